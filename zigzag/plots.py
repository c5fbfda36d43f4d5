"""matplotlib, where it is installed."""

from __future__ import annotations

from typing import Any

__all__ = ["require_figure"]


def require_figure() -> Any:
    """matplotlib's `Figure`.

    Raises:
        ImportError: if it is missing, naming the extra that brings it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a picture needs matplotlib: pip install 'zigzag-diffusion[plots]'") from error
    return Figure
