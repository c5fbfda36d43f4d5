"""What a bench will take, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence

from zigzag.evaluation.bench import Bed, Plan, betas, effective, first_lines, has_effective
from zigzag.evaluation.cells import Cell

__all__ = ["estimate"]


def estimate(bed: Bed, plan: Plan) -> str:
    """Cells, rows and hours of a bench, as a table; nothing is sampled, and no model is loaded.

    A row takes what the rows of this bench that are on record have taken, on the device that they ran on; where there
    are none, nothing is said of hours.

    Raises:
        ValueError, TypeError: as `measure`, for anything out of range.
    """
    every, waiting = first_lines(bed, plan), list[tuple[str, Sequence[Cell]]]()
    if "effective" in plan.baselines:
        known = betas(bed, every)
        for line in (line for line in every if has_effective(line.sampler) and line.sampler not in known):
            label = f"  CFG at the effective scale of {line.label}, not known yet"
            waiting.append((label, bed.cells(line.sampler.standard)))
        every = effective(every, known)
    done = {cell.digest for line in every for cell in bed.cells(line.sampler) if cell.done()}
    entries = [
        (line.label, bed.cells(line.sampler), [c for c in bed.cells(line.sampler) if c.digest not in done])
        for line in every
    ]
    entries += [(label, cells, list(cells)) for label, cells in waiting]
    found = [(label, len(cells), len(left), sum(cell.cost for cell in left)) for label, cells, left in entries]
    # What stands in two lines is sampled once; what is not known yet has no cells of its own to be told by.
    once = {cell.digest: cell for line in every for cell in bed.cells(line.sampler)}
    several = [*once.values(), *(cell for _, cells in waiting for cell in cells)]
    left = [*(cell for cell in once.values() if cell.digest not in done), *several[len(once) :]]
    rows = sum(cell.cost for cell in left)
    found.append(("in all, each once", len(several), len(left), rows))
    wide = max(len(entry[0]) for entry in found)
    head = f"{'':<{wide}}  {'cells':>8}  {'left':>8}  {'rows left':>13}"
    body = [f"{label:<{wide}}  {cells:>8,}  {left:>8,}  {n:>13,}" for label, cells, left, n in found]
    return "\n".join([head, "-" * len(head), *body, "", _hours(bed, rows, [cells for _, cells, _ in entries])])


def _hours(bed: Bed, rows: int, every: Sequence[Sequence[Cell]]) -> str:
    cells = {cell.digest: cell for cells in every for cell in cells if cell.done()}
    count, ran, seconds = bed.timed([*cells.values()])
    if not ran:
        return (
            "no cell of this bench is on record with its seconds, so that nothing is said of hours: they are rows left "
            "× seconds a row / 3600. Begin, and stop when a few cells are done: they are kept, and measured here"
        )
    each = seconds / ran
    return (
        f"{rows:,} rows left at {each:.4g} s a row, as measured on {count:,} samples of this bench: "
        f"{rows * each / 3600:.4g} hours of one such device, without the scores"
    )
