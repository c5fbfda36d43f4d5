"""Methods of living objects replaced for a while, and model calls watched; all put back in the end."""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, TypeAlias

from torch import nn

from zigzag.adapters.diffusers.timesteps import copied, plain

__all__ = ["Patches", "is_wrapped"]

ABSENT: Final = object()
OfCopy: TypeAlias = Callable[[], Callable[..., Any] | None]


class Patches(ExitStack):
    """Changes to objects, undone in reverse order on leaving the block."""

    def keep_plain(self, owner: Any, name: str) -> None:
        """In the end the times that a scheduler has there are plain ones."""
        self.callback(lambda: setattr(owner, name, plain(getattr(owner, name))))

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Sets an attribute of the instance alone, over its class's."""
        before = vars(owner).get(name, ABSENT)
        setattr(owner, name, value)
        if before is ABSENT:
            self.callback(delattr, owner, name)
        else:
            self.callback(setattr, owner, name, before)

    def wrap(self, owner: Any, name: str, wrapper: Callable[..., Any], *, of_copy: OfCopy = lambda: None) -> None:
        """`owner.name(…)` becomes `wrapper(original, …)`, with the signature of the original (pipelines inspect it).

        of_copy: when a copy of `owner` is made, gives the wrapper of its method; None leaves it its own.
        """
        wrapped = _Wrapped(owner, name, wrapper, of_copy)
        self.set(owner, name, wrapped)
        self.callback(wrapped.retire)

    def copies(self, owner: Any) -> None:
        """A copy of `owner`, shallow or deep, has methods of its own, wrapped as `of_copy` says.

        A copy of its attributes alone would step the original.
        """
        before = copyreg.dispatch_table.get(type(owner))
        copyreg.dispatch_table[type(owner)] = _reduced
        self.callback(_register, type(owner), before)

    def watch(self, model: nn.Module, saw: Callable[[Any, Any, Any], None]) -> None:
        """Every call of `model` is told to `saw`: its output, and what it was called with."""
        if getattr(model, "_compiled_call_impl", None) is None:
            hook = model.register_forward_hook(
                lambda module, args, kwargs, output: saw(output, args, kwargs), with_kwargs=True
            )
            self.callback(hook.remove)
            return

        # After `model.compile()` a hook would be compiled in, or skipped: watch the compiled call from outside.
        def watching(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            saw(output, args, kwargs)
            return output

        self.wrap(model, "_compiled_call_impl", watching)


def is_wrapped(owner: Any) -> bool:
    """Whether methods of `owner` are wrapped: it was patched itself, or is a copy of what was."""
    return any(isinstance(value, _Wrapped) for value in vars(owner).values())


def _register(cls: type, reduce: Any) -> None:
    if reduce is None:
        del copyreg.dispatch_table[cls]
    else:
        copyreg.dispatch_table[cls] = reduce


def _reduced(owner: Any) -> Any:
    """As an object is copied: without the wrapped methods, which the copy is given its own of."""
    reduced = owner.__reduce_ex__(4)
    if reduced[0] is not copyreg.__newobj__ or not isinstance(reduced[2], dict):  # type: ignore[attr-defined]
        return reduced
    wrapped = {name: value for name, value in reduced[2].items() if isinstance(value, _Wrapped)}
    state = {name: copied(value) for name, value in reduced[2].items() if name not in wrapped}
    return _rebuilt, (type(owner), *wrapped.values()), state


def _rebuilt(cls: Any, *wrapped: _Wrapped) -> Any:
    copied = cls.__new__(cls)
    for each in wrapped:
        each.give_to(copied)
    return copied


class _Wrapped:
    """A method of one object, called through a wrapper until it retires, and through another one on a copy."""

    def __init__(self, owner: Any, name: str, wrapper: Callable[..., Any], of_copy: OfCopy) -> None:
        self.owner, self.name, self.original = owner, name, getattr(owner, name)
        self.wrapper, self.of_copy = wrapper, of_copy
        self.copies: list[_Wrapped] = []
        functools.update_wrapper(self, self.original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.wrapper(self.original, *args, **kwargs)

    def retire(self) -> None:
        """From now on it is the original, wherever it was put away; copies of the owner have none any more."""
        for wrapped in (self, *self.copies):
            wrapped.wrapper, wrapped.of_copy = _call, lambda: None
        for wrapped in self.copies:
            if vars(wrapped.owner).get(wrapped.name) is wrapped:
                delattr(wrapped.owner, wrapped.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Pipelines of views copy the attributes of their scheduler alone, and put them back into it.
        if id(self.owner) not in memo:
            return self
        copied = memo[id(self.owner)]
        return getattr(type(copied), self.name).__get__(copied)

    def give_to(self, copied: Any) -> None:
        """Wraps the method of a copy of the owner, where it is to be: pipelines of two modalities step one."""
        method = getattr(type(copied), self.name).__get__(copied)
        if (wrapper := self.of_copy()) is None:
            return
        new = _Wrapped.__new__(_Wrapped)
        new.owner, new.name, new.original, new.copies = copied, self.name, method, self.copies
        new.wrapper, new.of_copy = wrapper, self.of_copy
        functools.update_wrapper(new, method)
        self.copies.append(new)
        vars(copied)[self.name] = new


def _call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return original(*args, **kwargs)
