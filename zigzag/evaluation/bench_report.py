"""A bench from the first model call to tables and a picture on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from zigzag.evaluation.bench import Bed, Plan, measure
from zigzag.evaluation.bench_tables import bench_figures, bench_tables
from zigzag.evaluation.cells import Cell, digest
from zigzag.evaluation.engines import complete
from zigzag.evaluation.pareto import draw_pareto
from zigzag.support.files import replacing, write_json
from zigzag.support.machine import machine, versions

__all__ = ["bench_report"]


def bench_report(
    bed: Bed, plan: Plan, title: str, do: Callable[[Sequence[Cell]], object] = complete, stem: str = "bench"
) -> str:
    """Samples and scores what is not on record, and writes `stem.txt`, `stem.json` and, where matplotlib is installed
    and there are scores, `stem.png` into the bed's folder.

    Args:
        do: runs cells.

    Returns:
        The text.

    Raises:
        Unfinished, ValueError, TypeError, OSError, ImportError: as `measure`.
    """
    every, outcomes = measure(bed, plan, do)
    count = sum(len(outcome.scored) for outcome in outcomes.values())
    whole = digest(bed.folder)
    note = (
        f"{bed.note}; differences with 95 % intervals, a prompt counting once; wins, losses and p of the exact sign "
        f"test by prompt.\n{count} samples; digest of all images and verdicts in {bed.folder}: {whole}\n"
        f"{machine()}; {versions(['diffusers'])}"
    )
    text = "\n\n".join([title, bench_tables(every, outcomes, bed.scorers), note])
    with replacing(bed.folder / f"{stem}.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    content = {
        "title": title, **bed.about, "digest": whole, "machine": machine(), "versions": versions(["diffusers"]),
        "lines": bench_figures(every, outcomes, bed.scorers),
    }  # fmt: skip
    write_json(bed.folder / f"{stem}.json", content)
    if not bed.scorers:
        return text
    if find_spec("matplotlib") is None:
        return f"{text}\n\nno {stem}.png: it needs matplotlib (pip install 'zigzag-diffusion[plots]')"
    draw_pareto(bed.folder / f"{stem}.png", every, outcomes, bed.scorers, title)
    return text
