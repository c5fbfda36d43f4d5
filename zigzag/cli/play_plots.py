"""What the page of `zigzag play` shows beside its pictures: the traces by step, and the path as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from zigzag.moves import Denoise
from zigzag.support.extras import require_figure
from zigzag.trace import Record, Trace

__all__ = ["plot", "series"]

PANELS = {
    "δ": ("delta",),
    "‖τ₁‖ and ‖τ₂‖": ("tau1", "tau2"),
    "β": ("beta",),
}
NAMES = {"delta": "δ", "tau1": "‖τ₁‖", "tau2": "‖τ₂‖", "beta": "β"}


def series(records: Sequence[Record], name: str) -> tuple[list[int], list[float]]:
    """The steps at which a quantity of the trace is known, in the order of the moves, and what it is of one sample.

    A step is the knot that the move comes back to or, of a Denoise, the one that it leaves.
    """
    steps, values = [], []
    for record in records:
        value: Tensor | None = getattr(record, name)
        if value is not None:
            steps.append(record.move.start if isinstance(record.move, Denoise) else record.knot)
            values.append(float(value[0]))
    return steps, values


def plot(trace: Trace, steps: int) -> Any:
    """A figure of δ, τ₁, τ₂ and β by step, one panel below the other; None where the walk has none of them.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    found = {name: series(trace.records, name) for names in PANELS.values() for name in names}
    panels = {title: [n for n in names if found[n][0]] for title, names in PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return None
    figure = require_figure()(figsize=(7.2, 0.5 + 1.55 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name, marker in zip(names, "os", strict=False):
            axis.plot(*found[name], marker=marker, markersize=3.5, linewidth=1, label=NAMES[name])
        axis.set_ylabel(title)
        axis.set_xlim(-0.5, steps - 0.5)
        axis.margins(y=0.15)
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=8, ncols=2)
    axes[-1].set_xlabel("step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure
