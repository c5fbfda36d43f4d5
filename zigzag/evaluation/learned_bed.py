"""What a bench of a learned model stands on: prompts of its grammar, and the checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from zigzag.evaluation.cells import Cell
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.scored import Scored, judged
from zigzag.evaluation.verdict_cells import VerdictCell
from zigzag.solvers import Solver

__all__ = ["LearnedBed", "total"]


class LearnedBed:
    """A learned model on prompts of its grammar: the cells are those of `zigzag eval`, the score is the checker's."""

    scorers: Sequence[str] = ("shapes",)

    def __init__(self, evaluation: Evaluation, trials: Sequence[Trial]) -> None:
        self.evaluation, self.trials, self.folder = evaluation, list(dict.fromkeys(trials)), evaluation.folder
        self.own: Callable[[int], Solver] | None = evaluation.model.solver
        self.about: Mapping[str, Any] = {
            "model": evaluation.model.name,
            "weights": evaluation.weights,
            "trials": [asdict(trial) for trial in self.trials],
        }
        seeds = ", ".join(str(trial.seed) for trial in self.trials)
        self.note = f"{evaluation.model.name}, {sum(t.prompts for t in self.trials)} prompts a line, seed {seeds}"
        self._cells: dict[Sampler, list[VerdictCell]] = {}

    def rows(self, sampler: Sampler) -> int:
        """Model rows that a sample is expected to take."""
        return sampler.expected_rows(self.own)

    def cells(self, sampler: Sampler) -> list[VerdictCell]:
        """Those of `Evaluation`."""
        if sampler not in self._cells:
            self._cells |= self.evaluation.cells([sampler], self.trials)
        return self._cells[sampler]

    def prepare(self, left: Sequence[Cell]) -> None:
        """As `Evaluation.prepare`."""
        self.evaluation.prepare()

    def scoring(self, cells: Sequence[Cell]) -> list[Cell]:
        """None: each cell has judged its images."""
        return []

    def timed(self, cells: Sequence[Cell]) -> tuple[int, float, float]:
        """Samples, rows and seconds of what was timed."""
        own = [cell for cell in cells if isinstance(cell, VerdictCell)]
        return total([(*cell.seconds(), found[0].rows) for cell in own if (found := cell.verdicts())])

    def scored(self, cells: Sequence[Cell]) -> list[Scored]:
        """The verdicts."""
        own = [cell for cell in cells if isinstance(cell, VerdictCell)]
        return [judged(verdict, "shapes") for cell in own for verdict in cell.verdicts()]


def total(timed: Sequence[tuple[int, float, float]]) -> tuple[int, float, float]:
    """Samples, rows and seconds in all, of blocks with samples, seconds and rows a sample."""
    return sum(n for n, _, _ in timed), sum(n * rows for n, _, rows in timed), sum(seconds for _, seconds, _ in timed)
