"""A study as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zigzag.evaluation.accuracy import wilson
from zigzag.evaluation.compare import Line, Results, rows
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.studies.study import Study
from zigzag.evaluation.verdicts import overall
from zigzag.support.extras import require_figure
from zigzag.support.files import replacing

__all__ = ["draw_study"]


def draw_study(path: Path, study: Study, results: Results, model: str) -> None:
    """Writes the share that is right, with Wilson's 95 % intervals, as PNG: curves over the swept quantity with
    standard sampling in grey, or over rows and over milliseconds, or, without points, a line for each sampler.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    Figure = require_figure()
    if not study.points:
        figure = Figure(figsize=(8, 0.35 * len(study.lines) + 1), layout="constrained")
        _dots(figure.subplots(), study.lines, results)
    elif study.by_cost:
        figure = Figure(figsize=(11, 4.5), layout="constrained")
        by_rows, by_time = figure.subplots(1, 2, sharey=True)
        _curves(by_rows, study, results, [rows(results[point.sampler]) for point in study.points])
        _curves(by_time, study, results, [1000 * results[point.sampler].seconds for point in study.points])
        by_rows.set(xlabel=study.axis, ylabel="right, %", xscale="log")
        by_time.set(xlabel="milliseconds a sample", xscale="log")
        figure.legend(*by_rows.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    else:
        figure = Figure(figsize=(6.5, 4.2), layout="constrained")
        axes = figure.subplots()
        _band(axes, study.lines[0].sampler, results)
        _curves(axes, study, results, [point.x for point in study.points])
        axes.set(xlabel=study.axis, ylabel="right, %")
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    figure.suptitle(f"{study.title} ({study.source}), {model}", fontsize="medium")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _percent(sampler: Sampler, results: Results) -> tuple[float, float, float]:
    """The share that is right and its interval, in per cent."""
    score = overall(results[sampler].verdicts)
    low, high = wilson(score)
    return 100 * score.share, 100 * low, 100 * high


def _band(axes: Any, sampler: Sampler, results: Results) -> None:
    share, low, high = _percent(sampler, results)
    axes.axhline(share, color="0.6", linestyle="--", label=f"Standard, w = {sampler.strong:g}")
    axes.axhspan(low, high, color="0.93", zorder=0)


def _curves(axes: Any, study: Study, results: Results, x: Sequence[float]) -> None:
    series = list(dict.fromkeys(point.series for point in study.points))
    # A little to the side of each other, or the intervals hide each other.
    spread = 0.006 * (max(x) - min(x)) if not study.by_cost else 0.0
    for k, name in enumerate(series):
        at = [(x[n], *_percent(point.sampler, results)) for n, point in enumerate(study.points) if point.series == name]
        place, share, low, high = zip(*sorted(at), strict=True)
        below = [s - v for s, v in zip(share, low, strict=True)]
        above = [v - s for s, v in zip(share, high, strict=True)]
        places = [p + (k - (len(series) - 1) / 2) * spread for p in place]
        axes.errorbar(places, share, [below, above], marker="o", markersize=4, capsize=2, linewidth=1.2, label=name)


def _dots(axes: Any, lines: Sequence[Line], results: Results) -> None:
    for k, line in enumerate(lines):
        share, low, high = _percent(line.sampler, results)
        colour = "0.6" if line.baseline else "C0" if line.against else "black"
        axes.errorbar([share], [k], xerr=[[share - low], [high - share]], marker="o", capsize=2, color=colour)
    axes.axvline(_percent(lines[0].sampler, results)[0], color="0.6", linestyle="--", linewidth=0.8)
    labels = [f"{line.label} – {rows(results[line.sampler]):g} rows" for line in lines]
    axes.set_yticks(range(len(lines)), labels, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel("right, %")
