"""Methods of living objects replaced for a while, and model calls watched; all put back in the end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from torch import nn

__all__ = ["Patches"]

ABSENT: Final = object()


class Patches(ExitStack):
    """Changes to objects, undone in reverse order on leaving the block."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Sets an attribute of the instance alone, over its class's."""
        before = vars(owner).get(name, ABSENT)
        setattr(owner, name, value)
        if before is ABSENT:
            self.callback(delattr, owner, name)
        else:
            self.callback(setattr, owner, name, before)

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        """`owner.name(…)` becomes `wrapper(original, …)`, with the signature of the original (pipelines inspect it)."""
        self.set(owner, name, _Wrapped(owner, name, wrapper))

    def watch(self, model: nn.Module, saw: Callable[[Any], None]) -> None:
        """Every call of `model` is told to `saw`, with its output."""
        if getattr(model, "_compiled_call_impl", None) is None:
            self.callback(model.register_forward_hook(lambda module, args, output: saw(output)).remove)
            return

        # After `model.compile()` a hook would be compiled in, or skipped: watch the compiled call from outside.
        def watching(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            saw(output)
            return output

        self.wrap(model, "_compiled_call_impl", watching)


class _Wrapped:
    """A method of one object, called through a wrapper. A deep copy of the object has its own method back."""

    def __init__(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        self.owner, self.name, self.original = owner, name, getattr(owner, name)
        self.wrapper = wrapper
        functools.update_wrapper(self, self.original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapper(self.original, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Pipelines with two modalities step a copy of their scheduler for the second.
        copied = memo.get(id(self.owner), self.owner)
        return getattr(type(copied), self.name).__get__(copied)
