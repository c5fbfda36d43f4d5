"""Inversion schemes by name: what the command line calls them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, get_type_hints

from zigzag.inversion import EDICT, OBELM, FixedPoint, Recorded, Rex, Scheme

__all__ = ["SCHEMES", "parse_scheme"]

SCHEMES: Final[dict[str, Callable[..., Scheme]]] = {
    "direct": partial(Recorded, "naive"),
    "edit-friendly": partial(Recorded, "independent"),
    "edict": EDICT,
    "obelm": OBELM,
    "rex": Rex,
    "fixed-point": FixedPoint,
}
"""The schemes by the names that the command line gives them."""


def parse_scheme(text: str) -> Scheme:
    """A scheme as one word: its name, and options after a colon: "edict", "edict:p=0.9", "fixed-point:tol=1e-6,most=9".

    Raises:
        ValueError: for an unknown scheme or option, listing those known; as the scheme, for a value out of range.
    """
    name, _, rest = text.partition(":")
    if name not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {text!r}")
    make = SCHEMES[name]
    hints = get_type_hints(make) if isinstance(make, type) else {}
    known = {key: kind for key, kind in hints.items() if kind in (int, float)}
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}; it has: {', '.join(known) or 'none'}")
        try:
            options[key] = known[key](value)
        except ValueError:
            wanted = "an integer" if known[key] is int else "a number"
            raise ValueError(f"{name}: {key} must be {wanted}, got {value!r}") from None
    return make(**options)
