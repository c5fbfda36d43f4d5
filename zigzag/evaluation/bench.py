"""A bench: methods on prompts and seeds beside plain guidance, each image scored, in cells that any engine may run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final, NamedTuple, Protocol

from zigzag.evaluation.cells import Cell, each_once
from zigzag.evaluation.compare import Line, lines
from zigzag.evaluation.engines import complete
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.scored import Scored
from zigzag.methods import Method, Standard, Steered
from zigzag.moves import Renoise
from zigzag.solvers import Solver

__all__ = [
    "BASELINES",
    "Bed",
    "Outcome",
    "Plan",
    "Tried",
    "Unfinished",
    "betas",
    "effective",
    "first_lines",
    "has_effective",
    "measure",
]

BASELINES: Final = ("standard", "matched", "effective", "rows")
"""What methods are compared with: standard sampling; plain CFG at the scale that equals the method on a constant field;
plain CFG at the scale raised by the mean β that was measured; plain CFG with as many rows."""

_LINKS: Final = {"matched": "at the matched scale of", "rows": "with the rows of"}


class Bed(Protocol):
    """What methods are compared on: a model, prompts, seeds and scorers, with what is on record of them.

    Attributes:
        folder: where all is kept. scorers: the names of the scores. about: what was asked, for the report, as JSON.
        note: the same as a line of text. own: the model's solver of a number of steps, where it is known beforehand.
    """

    folder: Path
    scorers: Sequence[str]
    about: Mapping[str, Any]
    note: str
    own: Callable[[int], Solver] | None

    def rows(self, sampler: Sampler) -> int:
        """Model rows that a sample is expected to take."""
        ...

    def cells(self, sampler: Sampler) -> Sequence[Cell]:
        """The cells of a sampler, always in the same order."""
        ...

    def prepare(self, left: Sequence[Cell]) -> None:
        """Fails now, where what is left to do could not be written."""
        ...

    def scoring(self, cells: Sequence[Cell]) -> Sequence[Cell]:
        """The cells that score what those cells have made."""
        ...

    def timed(self, cells: Sequence[Cell]) -> tuple[int, float, float]:
        """Of what is on record and was timed: how many samples, their model rows, their seconds."""
        ...

    def scored(self, cells: Sequence[Cell]) -> list[Scored]:
        """What came of cells that are done, and scored as far as there are scores."""
        ...


class Tried(NamedTuple):
    """A method, and on how many steps."""

    method: Method | Steered
    steps: int


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        methods: on one number of steps or on several. strong, weak: as in `Sampler`. baselines: of `BASELINES`, for
            each method on its steps.

    Raises:
        ValueError: for an unknown baseline, or without a method.
    """

    methods: tuple[Tried, ...]
    strong: float
    weak: float = 0.0
    baselines: tuple[str, ...] = BASELINES

    def __post_init__(self) -> None:
        if unknown := [name for name in self.baselines if name not in BASELINES]:
            raise ValueError(f"baselines must be of {', '.join(BASELINES)}, got {unknown[0]!r}")
        if not self.methods:
            raise ValueError("methods must be one at least")


@dataclass(frozen=True)
class Outcome:
    """What came of a sampler: the scores of all prompts and seeds, and the seconds that a sample took (NaN: unknown);
    of the processor on a CPU, by the clock on a GPU."""

    scored: list[Scored]
    seconds: float

    @property
    def rows(self) -> float:
        """Model rows of a sample."""
        return fmean(scored.rows for scored in self.scored)

    @property
    def beta(self) -> float | None:
        """The mean effective scale, where it is known."""
        known = [scored.beta for scored in self.scored if scored.beta is not None]
        return fmean(known) if known else None


class Unfinished(RuntimeError):
    """Cells are not done that the next ones wait for: they are those of other processes, or have failed."""


def first_lines(bed: Bed, plan: Plan) -> list[Line]:
    """Standard sampling and each method with its baselines, but for those at the effective scale, which is not known
    before the method has been sampled.

    Raises:
        ValueError, TypeError: for anything out of range.
    """
    grids = list(dict.fromkeys(tried.steps for tried in plan.methods))
    kept: list[Line] = []
    for steps in grids:
        methods = [tried.method for tried in plan.methods if tried.steps == steps]
        found = lines(methods, steps, plan.strong, plan.weak, own=bed.own, rows=bed.rows)
        wanted = [line for line in found[1:] if not line.baseline or _asked(line.label, plan.baselines)]
        if "standard" in plan.baselines or any(isinstance(method, Standard) for method in methods):
            wanted = [found[0], *wanted]
        there = {line.sampler for line in wanted}
        on = f", {steps} steps" if len(grids) > 1 else ""
        kept += [Line(line.label + on, line.sampler, tuple(r for r in line.against if r in there)) for line in wanted]
    return kept


def _asked(label: str, baselines: Collection[str]) -> bool:
    return any(words in label for name, words in _LINKS.items() if name in baselines)


def effective(every: Sequence[Line], known: Mapping[Sampler, float | None]) -> list[Line]:
    """The lines, with plain CFG at the effective scale behind each method that has one.

    That is the strong scale and the mean `β` over all prompts and seeds (`zigzag.Trace.beta`), to two digits. A method
    that puts fresh noise into the state has none: its `β` says how the noise happens to lie.
    """
    found: list[Line] = []
    for line in every:
        beta = known.get(line.sampler)
        if beta is None:
            found.append(line)
            continue
        other = replace(line.sampler.standard, strong=round(_number(line.sampler) + beta, 2))
        standard = line.against[:1] if line.against and isinstance(line.against[0].method, Standard) else ()
        name = f"  CFG at the effective scale of {line.label}"
        there = any(other == line.sampler for line in (*every, *found))
        found.append(line._replace(against=tuple(dict.fromkeys((*line.against, other)))))
        found += [] if there else [Line(name, other, standard)]
    return found


def betas(bed: Bed, every: Sequence[Line]) -> dict[Sampler, float | None]:
    """The mean `β` of each method that has an effective scale and is sampled."""
    found: dict[Sampler, float | None] = {}
    for sampler in (line.sampler for line in every if has_effective(line.sampler)):
        if all(cell.done() for cell in bed.cells(sampler)):
            found[sampler] = _outcome(bed, sampler).beta
    return found


def has_effective(sampler: Sampler) -> bool:
    """Whether it is a method of which a mean `β` says something."""
    method = sampler.method
    if isinstance(method, Standard) or not isinstance(method, Method):
        return False
    return not any(isinstance(move, Renoise) for move in method.path(sampler.steps))


def _number(sampler: Sampler) -> float:
    assert isinstance(sampler.strong, float)
    return sampler.strong


def measure(
    bed: Bed, plan: Plan, do: Callable[[Sequence[Cell]], object] = complete
) -> tuple[list[Line], dict[Sampler, Outcome]]:
    """Samples and scores all that is not on record: the methods, then what waits for their `β`, then the scores.

    Args:
        do: runs those of the cells that are not done. It is given all of a stage, so that what is its share of them
            depends on nothing that others may be doing.

    Raises:
        Unfinished: where cells are left that `do` did not run.
        ValueError, TypeError: before the first model call, for anything out of range.
        OSError, ImportError: likewise, for what cannot be written, and for what is missing.
    """
    every = first_lines(bed, plan)
    try:
        _complete(bed, every, do)
        if "effective" in plan.baselines:
            every = effective(every, betas(bed, every))
            _complete(bed, every, do)
    except Unfinished:
        _score(bed, every, do)  # what there is
        raise
    _score(bed, every, do)
    return every, {line.sampler: _outcome(bed, line.sampler) for line in every}


def _complete(bed: Bed, every: Sequence[Line], do: Callable[[Sequence[Cell]], object]) -> None:
    cells = each_once(cell for line in every for cell in bed.cells(line.sampler))
    if left := [cell for cell in cells if not cell.done()]:
        bed.prepare(left)
    _run(cells, do)


def _score(bed: Bed, every: Sequence[Line], do: Callable[[Sequence[Cell]], object]) -> None:
    _run(each_once(cell for line in every for cell in bed.scoring(bed.cells(line.sampler))), do)


def _run(cells: Sequence[Cell], do: Callable[[Sequence[Cell]], object]) -> None:
    do(cells)  # which may have to meet others, even where nothing is left
    if left := [cell for cell in cells if not cell.done()]:
        raise Unfinished(f"{len(left)} of {len(cells)} cells are not done, the first of {left[0].about}")


def _outcome(bed: Bed, sampler: Sampler) -> Outcome:
    cells = bed.cells(sampler)
    count, _, seconds = bed.timed(cells)
    return Outcome(bed.scored(cells), seconds / count if count else float("nan"))
