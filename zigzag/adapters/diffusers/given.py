"""What a pipeline passes to its scheduler's `step`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from zigzag.adapters.diffusers.stepping import BY_CALL

__all__ = ["extras_of", "given_to"]


def given_to(signature: inspect.Signature, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names, also those that the signature does not name."""
    given = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def extras_of(signature: inspect.Signature, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is given, what belongs to the step itself (`eta`, `s_churn`) and is not what it would be by default."""
    extras = {}
    for name, value in given.items():
        default = signature.parameters[name].default if name in signature.parameters else None
        if name not in BY_CALL and not _same(value, default):
            extras[name] = value
    return extras


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default; what compares by entries (a tensor, an array) is never one."""
    return value is default or (isinstance(value, bool | int | float | str) and bool(value == default))
