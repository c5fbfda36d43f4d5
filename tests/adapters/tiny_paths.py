"""What the tests of pipelines share that begin from an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Two implementations of one algorithm in float32; what they differ by is measured at 1e-6 and below.
WANTED = 1e-5


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.dtype == y.dtype and x.shape == y.shape and float((x - y).norm() / y.norm()) <= WANTED


def picture(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(8)).clamp(-1, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs_of(case: Any) -> list[Tensor]:
    """What the model was shown at each call of one plain run."""
    seen: list[Tensor] = []
    hook = case.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    case.run()
    hook.remove()
    return seen


def calls_of(path: Sequence[Any]) -> int:
    """Model calls of moves without refinements."""
    return sum(getattr(move, "fresh", type(move).__name__ not in ("Shift", "Renoise")) for move in path)


def path_from(knot: int, method: Any, steps: int) -> list[Any]:
    """The moves of a method on `steps` steps, laid on a grid from `knot` on."""
    return [_moved(move, knot) for move in method.path(steps)]


def _moved(move: Any, by: int) -> Any:
    # refine of an Invert is a number too, but no knot
    names = [name for name in type(move).__dataclass_fields__ if name in ("i", "j", "fresh")]
    values = (getattr(move, name) for name in names)
    return type(move)(*(value + by if type(value) is int else value for value in values))
