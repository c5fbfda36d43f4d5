"""What the nodes take from ComfyUI, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["TRIED", "of_host"]

TRIED = "0.3.64"


def of_host(module: str, name: str) -> Any:
    """`name` of a module of ComfyUI.

    Raises:
        ImportError: outside of ComfyUI, or in a version of it that has no such thing.
    """
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"the zigzag nodes need {module}.{name} of ComfyUI, and it is not to be had ({error}): they run within "
            f"ComfyUI only, and were tried with version {TRIED}"
        ) from error
