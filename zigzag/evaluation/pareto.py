"""Scores against their cost, as a picture: what is on the front is beaten by nothing that costs as little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zigzag.evaluation.bench import Outcome
from zigzag.evaluation.compare import Line
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.scored import mean
from zigzag.support.extras import require_figure
from zigzag.support.files import replacing

__all__ = ["draw_pareto", "front"]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points `(cost, score)` no other beats, by cost: that is no dearer, no worse, and not the same in
    both."""
    kept = [
        k
        for k, (cost, score) in enumerate(points)
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    ]
    return sorted(kept, key=lambda k: points[k])


def draw_pareto(
    path: Path, every: Sequence[Line], outcomes: Mapping[Sampler, Outcome], scorers: Sequence[str], title: str
) -> None:
    """Writes a PNG with a row for each score: its mean and 95 % interval against rows, and against seconds, methods in
    colour, plain guidance in grey, the front as a line.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    figure = require_figure()(figsize=(11, 0.4 + 3.6 * len(scorers) + 0.16 * len(every)), layout="constrained")
    grid = figure.subplots(len(scorers), 2, sharey="row", squeeze=False)
    samplers = list(dict.fromkeys(line.sampler for line in every))
    labels = {line.sampler: line for line in reversed(every)}
    for scorer, (by_rows, by_time) in zip(scorers, grid, strict=True):
        for axes, cost in ((by_rows, "rows"), (by_time, "seconds")):
            known = [s for s in samplers if math.isfinite(getattr(outcomes[s], cost))]
            _points(axes, [(labels[s], getattr(outcomes[s], cost), mean(outcomes[s].scored, scorer)) for s in known])
            axes.set(xscale="log", xlabel="model rows a sample" if cost == "rows" else "seconds a sample")
        by_rows.set(ylabel=scorer)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _points(axes: Any, found: Sequence[tuple[Line, float, Any]]) -> None:
    at = [(cost, score.value) for _, cost, score in found]
    axes.plot(*zip(*[at[k] for k in front(at)], strict=True), color="0.8", linewidth=1, zorder=0) if at else None
    methods = 0
    for line, cost, score in found:
        plain = line.baseline or not line.against
        colour = "black" if not line.against else "0.6" if plain else f"C{methods}"
        methods += not plain
        off = [[max(score.value - score.low, 0)], [max(score.high - score.value, 0)]]
        shown = None if math.isnan(score.low) else off
        marker = "os^Dv"[sum(map(ord, line.label)) % 5] if line.baseline else "o"
        axes.errorbar([cost], [score.value], shown, marker=marker, color=colour, capsize=2, label=line.label.strip())
