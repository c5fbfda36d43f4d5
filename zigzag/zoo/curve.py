"""The loss curve of a training run, as a picture."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from zigzag.support.extras import require_figure
from zigzag.support.files import replacing

__all__ = ["draw_losses"]


def draw_losses(path: Path, losses: Tensor) -> None:
    """Writes the loss of every step `(N,)` in grey, and its mean over a fiftieth of the run in front, as PNG.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    window = max(1, len(losses) // 50)
    smooth = losses.unfold(0, window, 1).mean(1)
    figure = require_figure()(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses.tolist(), color="0.8", linewidth=0.5)
    axes.plot(range(window, len(losses) + 1), smooth.tolist(), color="C0")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
