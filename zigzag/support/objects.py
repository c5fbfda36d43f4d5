"""Objects of one's own, by the words `module:object`."""

from __future__ import annotations

import os
import re
import sys
from functools import reduce
from importlib import import_module
from typing import Any

__all__ = ["find_object", "names_object"]


def names_object(text: str) -> bool:
    """Whether a text is of the form `module:object`, with dots in either."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text) is not None


def _imported(module: str) -> Any:
    return import_module(module)


def find_object(name: str, text: str) -> Any:
    """The object `module:object`, the module being found from the current folder too; a class is called for one.

    Args:
        name: the option, for the message. text: what was given.

    Raises:
        ValueError: for another form, a module that cannot be imported, and an object that it does not have.
    """
    if not names_object(text):
        raise ValueError(f"{name} must be of the form module:object, got {text!r}")
    module, _, path = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = reduce(getattr, path.split("."), _imported(module))
        return found() if isinstance(found, type) else found
    except Exception as error:  # whatever a module of the user's raises
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} {text!r} is not to be had: {type(error).__name__}: {reason}") from error
