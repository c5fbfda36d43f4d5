"""A traversal driven by callable models: what it asks is answered, and a callback may change what it reaches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from typing import TypeAlias

import torch
from torch import Tensor

from zigzag.guided import Answer, Query
from zigzag.model import Models
from zigzag.visits import Visit

__all__ = ["Traversal", "drive"]

Traversal: TypeAlias = Generator[Query | Visit, Answer | Tensor | None, None]


def drive(
    moves: Traversal,
    models: Models,
    recorded: Iterable[bool],
    callback: Callable[[Visit], Tensor | None] | None,
    progress: AbstractContextManager[Callable[[int], None]],
) -> Generator[Visit, None, None]:
    """Answers what a traversal asks, and yields its visits; each move under the grad mode that `recorded` says."""
    new: Tensor | None = None
    with progress as tick:
        for grad in recorded:
            with torch.set_grad_enabled(grad):
                try:
                    message = moves.send(new)
                except StopIteration:
                    return
                while isinstance(message, Query):
                    message = moves.send(models(message))
            new = None if callback is None else _state_like(message.state, callback(message))
            tick(message.rows)
            yield message if new is None else message._replace(state=new)
            del message  # or its prediction would be held through the next model call


def _state_like(x: Tensor, new: object) -> Tensor | None:
    if new is None:
        return None
    if not isinstance(new, Tensor) or new.shape != x.shape:
        got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise ValueError(f"callback must return None or a state of shape {tuple(x.shape)}, got {got}")
    return new.to(x.dtype)
