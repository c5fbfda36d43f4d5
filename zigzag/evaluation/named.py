"""Methods by name: what the command line calls them, and what tables and pictures do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, get_type_hints

from zigzag.methods import EndToEnd, ImplicitZ, Method, Resampling, Standard, Steered, Z2Sampling, ZSampling, is_steered
from zigzag.moves import Tol
from zigzag.support.objects import find_object, names_object

__all__ = ["METHODS", "label", "make_method", "name_of", "parse_method", "refinement"]

METHODS: Final[dict[str, Any]] = {
    "standard": Standard,
    "resampling": Resampling,
    "end-to-end": EndToEnd,
    "z": ZSampling,
    "implicit": ImplicitZ,
    "z2": Z2Sampling,
}
"""The methods by the names that the command line gives them."""

_LABELS: Final = {
    Standard: "Standard",
    Resampling: "Resampling",
    EndToEnd: "End-to-End",
    ZSampling: "Z-Sampling",
    ImplicitZ: "Implicit Z",
    Z2Sampling: "Z²-Sampling",
}


def label(method: Method | Steered, options: bool = True) -> str:
    """The name of a method in a table, with those of its options that are not the defaults."""
    kind = type(method)
    if kind not in _LABELS:
        return name_of(method) if options else kind.__name__
    changed = {k: v for k, v in vars(method).items() if options and v != getattr(kind, k)}
    texts = [k if v is True else f"{'λ' if k == 'steps' else k} {v}" for k, v in changed.items()]
    return f"{_LABELS[kind]} ({', '.join(texts)})" if texts else _LABELS[kind]


def name_of(value: object) -> str:
    """The repr of a value; of one that has an address in its repr, the name of its class with what it holds."""
    if isinstance(name := getattr(value, "__qualname__", None), str):
        return name
    text = repr(value)
    if not re.search(r" at 0x[0-9a-fA-F]+", text):
        return text
    state = getattr(value, "__dict__", {})
    held = ", ".join(f"{k}={name_of(v)}" for k, v in state.items() if v is not value and not k.startswith("_"))
    return f"{type(value).__qualname__}({held})"


def refinement(text: str) -> int | Tol:
    """How inversions are refined: by a count, "3", or to a tolerance, "1e-4".

    Raises:
        ValueError: for what is no number, and a tolerance out of range.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return Tol(float(text))
    except ValueError:
        raise ValueError(f"refine must be an integer, or a tolerance above 0 such as 1e-4, got {text!r}") from None


# Options that are no integers: what reads them, and what they must be.
_NUMBERS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "strength": (float, "a number"),
    "refine": (refinement, "an integer, or a tolerance such as 1e-4"),
}


def make_method(name: str, T: int, options: Mapping[str, Any]) -> Method:
    """A method of `METHODS` for a grid of T steps.

    Without a warm-up, "z2" has its default of 5 steps, or the 1 that the paper takes for few-step models where T < 6.

    Raises:
        ValueError: for an unknown method or option, listing those known; as the method, for a value out of range.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    kind = METHODS[name]
    known = [field.name for field in fields(kind)]
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"{name} has no option {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    few = {"warmup": 1} if kind is Z2Sampling and T < 6 else {}
    method: Method = kind(**{**few, **options})
    tuple(method.path(T))  # whose errors are said now
    return method


def parse_method(text: str, T: int) -> Method | Steered:
    """A method as one word: its name, and options after a colon: "z", "z:span=2,rounds=3", "z:refine=1e-4",
    "z:released", "z2:warmup=2"; or one of one's own, "module:object".

    Raises:
        ValueError: as `make_method`, and for a value that is no integer, or of a flag; for an object that is not to be
            had, or has no path.
    """
    name, _, rest = text.partition(":")
    if name not in METHODS and names_object(text):
        found = find_object(f"method must be one of {', '.join(METHODS)}, or module:object;", text)
        if is_steered(found):
            return found
        if not isinstance(found, Method):
            raise ValueError(f"method {text!r} must have path(T) or steer(T), got {name_of(found)}")
        tuple(found.path(T))  # whose errors are said now
        return found
    flags = [key for key, kind in get_type_hints(METHODS[name]).items() if kind is bool] if name in METHODS else []
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, given, value = item.partition("=")
        if key in flags:
            if given:
                raise ValueError(f"{name}: {key} takes no value, got {value!r}")
            options[key] = True
            continue
        number, wanted = _NUMBERS.get(key, (int, "an integer"))
        try:
            options[key] = number(value)
        except ValueError:
            raise ValueError(f"{name}: {key} must be {wanted}, got {value!r}") from None
    return make_method(name, T, options)
