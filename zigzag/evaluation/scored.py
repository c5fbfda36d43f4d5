"""Scores of samplers on the same prompts and noise: their means, and who wins how often."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from zigzag.evaluation.accuracy import Score, wilson
from zigzag.evaluation.verdicts import Paired, Verdict

__all__ = ["Duel", "Mean", "Scored", "duel", "judged", "mean", "student"]

Z = 1.959964  # of a normal deviate, the 97.5th percentile


@dataclass(frozen=True)
class Scored:
    """What came of one prompt and one seed.

    Attributes:
        item: which prompt. What has the same one counts once, by its mean: the seeds of one prompt are no independent
            trials. seed: which noise. category, prompt: of which kind, and its text.
        rows: model rows that ran. beta: the effective scale, where it is known (`zigzag.Trace.beta`).
        scores: by the names of the scorers.
    """

    item: Hashable
    seed: int
    category: str
    prompt: str
    rows: float
    beta: float | None
    scores: Mapping[str, float]


def judged(verdict: Verdict, scorer: str) -> Scored:
    """A verdict as a score of 0 or 1. Each seed has prompts of its own there, and each counts."""
    v = verdict
    return Scored(v.key, v.seed, v.category, v.prompt, v.rows, v.beta, {scorer: float(v.right)})


@dataclass(frozen=True)
class Mean:
    """A mean over prompts, and its 95 % interval: Wilson's where all are 0 or 1, else Student's; NaN of one prompt."""

    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True)
class Duel:
    """Two samplers on the same prompts and noise, by one score.

    Attributes:
        pair: how many prompts the first, and the second, scored higher on, and how many there are.
        difference: of the means, with its paired 95 % interval: Agresti and Min's where all are 0 or 1, else Student's.
        rate: of the prompts on which they differ, the share that the first wins, with Wilson's 95 % interval; NaN where
            they never differ.
    """

    pair: Paired
    difference: tuple[float, float, float]
    rate: tuple[float, float, float]

    @property
    def ties(self) -> int:
        """Prompts on which they score alike."""
        return self.pair.pairs - self.pair.wins - self.pair.losses


def mean(found: Iterable[Scored], scorer: str) -> Mean:
    """The mean of a score over the prompts, each by the mean of its seeds."""
    values = [*_items(found, scorer).values()]
    if _binary(values):
        score = Score(round(sum(values)), len(values))
        return Mean(score.share, *wilson(score), len(values))
    return Mean(*_student(values), len(values))


def duel(first: Sequence[Scored], second: Sequence[Scored], scorer: str) -> Duel:
    """Compares two samplers prompt by prompt.

    Raises:
        ValueError: unless both have the same prompts and seeds, each once.
    """
    keys = [sorted((repr(s.item), s.seed) for s in found) for found in (first, second)]
    if keys[0] != keys[1] or len({*keys[0]}) < len(keys[0]):
        raise ValueError(f"scores must be of the same prompts and noise, got {len(first)} and {len(second)}")
    ours, theirs = _items(first, scorer), _items(second, scorer)
    gaps = [ours[item] - theirs[item] for item in ours]
    wins, losses = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    pair = Paired(wins, losses, len(gaps))
    rate = (math.nan, math.nan, math.nan)
    if wins + losses:
        won = Score(wins, wins + losses)
        rate = (won.share, *wilson(won))
    if _binary([*ours.values(), *theirs.values()]):
        return Duel(pair, (pair.difference, *pair.interval()), rate)
    return Duel(pair, _student(gaps), rate)


def student(degrees: int) -> float:
    r"""The 97.5th percentile of Student's t: exactly of 1 and 2 degrees of freedom, else to 1 % by

    .. math:: t = z + \frac{z^3 + z}{4ν} + \frac{5z^5 + 16z^3 + 3z}{96ν^2} + \frac{3z^7 + 19z^5 + 17z^3 - 15z}{384ν^3}

    Source: Abramowitz & Stegun, 26.7.5.
    """
    if degrees <= 2:
        p = 0.95
        return math.tan(math.pi * p / 2) if degrees == 1 else p * math.sqrt(2 / (1 - p**2))
    z, n = Z, degrees
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3


def _student(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean with Student's 95 % interval."""
    centre = fmean(values)
    if len(values) < 2:
        return centre, math.nan, math.nan
    spread = student(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre, centre - spread, centre + spread


def _items(found: Iterable[Scored], scorer: str) -> dict[Hashable, float]:
    by: dict[Hashable, list[float]] = {}
    for scored in found:
        by.setdefault(scored.item, []).append(scored.scores[scorer])
    return {item: fmean(values) for item, values in by.items()}


def _binary(values: Iterable[float]) -> bool:
    return all(value in (0.0, 1.0) for value in values)
