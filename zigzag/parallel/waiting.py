"""Outputs of calls that were not made yet: tensors that are filled, in place, when somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Waiting"]

TENSOR: Final[Any] = Tensor
# What does not look at the numbers. A descriptor's `__get__` is made anew at each access, and compares equal.
KNOWN: Final = {
    *(getattr(TENSOR, name).__get__ for name in ("shape", "dtype", "device", "ndim", "is_meta")),
    *(TENSOR.size, TENSOR.dim, TENSOR.numel, TENSOR.__len__),
}

COMPILED: Final = (
    "a prediction whose rows are split over ranks was handed to compiled code before it was there; compile nothing "
    "that joins the two branches (TableLoop(compiled=False)), or evaluate them in one call (batched=True)"
)


class Waiting(Tensor):
    """A tensor of a known shape whose numbers are not there yet; a slice of it is another.

    Whatever looks at them has them made first; from then on it is an ordinary tensor, in the same memory.
    """

    _owner: Owner

    @staticmethod
    def on(memory: Tensor, owner: Owner) -> Waiting:
        """One in the memory of a tensor, which its owner is to fill."""
        made: Waiting = torch.Tensor._make_subclass(Waiting, memory)
        made._owner = owner
        owner.waiting.append(made)
        return made

    def filled(self) -> None:
        """From now on it is an ordinary tensor."""
        del self._owner
        self.__class__ = Tensor  # type: ignore[assignment]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            raise RuntimeError(COMPILED)
        owner = args[0]._owner if func == Tensor.__getitem__ and _cuts(*args) else None
        if func not in KNOWN and owner is None:
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Waiting):
                    leaf._owner.make()
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        return result if owner is None else Waiting.on(result, owner)


class Owner(Protocol):
    """Who fills tensors that wait.

    Attributes:
        waiting: which.
    """

    waiting: list[Waiting]

    def make(self) -> None:
        """Fills all of them, and says so to each (`filled`)."""


def _cuts(x: object, index: object) -> bool:
    """Whether it is a part of a waiting tensor, in its own memory."""
    each = index if isinstance(index, tuple) else (index,)
    return isinstance(x, Waiting) and all(type(part) in (slice, int, type(...), type(None)) for part in each)
