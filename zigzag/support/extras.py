"""What the optional extras bring, imported where it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["require", "require_figure"]


def require(module: str, need: str, extra: str) -> Any:
    """The module of that name, imported now.

    Args:
        module: with its package, "scipy.ndimage". need: who needs what, for the message. extra: that brings it.

    Raises:
        ImportError: if it is missing, naming the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'zigzag-diffusion[{extra}]'") from error


def require_figure() -> Any:
    """matplotlib's `Figure`.

    Raises:
        ImportError: if it is missing, naming the extra that brings it.
    """
    return require("matplotlib.figure", "a picture needs matplotlib", "plots").Figure
