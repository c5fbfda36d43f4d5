"""The verdicts of an evaluation: on disk, as JSON lines, and counted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zigzag.evaluation.accuracy import Score
from zigzag.support.files import replacing
from zigzag.zoo.shapes import CATEGORIES

__all__ = ["Paired", "Verdict", "mcnemar", "others", "overall", "paired", "read", "scores", "write"]


@dataclass(frozen=True)
class Verdict:
    """What came of one prompt and one noise.

    Attributes:
        seed, category, index: which prompt, and which noise. prompt: its text.
        right: whether the checker holds it for true of the image. seen: what the detector saw there.
        rows: model rows that ran for the sample.
        delta: `Σ ‖x̃ − x‖²` over the zigzags, each at the knot it turns down from again. tau1, tau2: `‖τ₁‖` and `‖τ₂‖`,
            the mean over the zigzags that have them; None where there are none (`zigzag.trace.Record`).
        beta: by how much larger a scale plain guidance would have moved the state alike, the mean over the steps
            (`zigzag.Trace.beta`); None where nothing was injected or one step's is not known, and in files of before
            it was kept.
    """

    seed: int
    category: str
    index: int
    prompt: str
    right: bool
    seen: list[str]
    rows: float
    delta: float | None = None
    tau1: float | None = None
    tau2: float | None = None
    beta: float | None = None

    @property
    def key(self) -> tuple[int, str, int]:
        """The same in all samplers that had the same prompt and noise."""
        return self.seed, self.category, self.index


def write(path: Path, head: dict[str, Any], verdicts: Iterable[Verdict]) -> None:
    """Writes what was evaluated, and a line for each sample.

    Raises:
        OSError: where the folder cannot be made or written.
    """
    lines = [head, *(asdict(verdict) for verdict in verdicts)]
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def read(path: Path, head: dict[str, Any]) -> list[Verdict]:
    """What `write` wrote, or nothing where there is no file.

    Raises:
        ValueError: if the file is damaged, or of another evaluation.
    """
    if not path.exists():
        return []
    try:
        first, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
        found = [Verdict(**line) for line in lines]
        if len({verdict.key for verdict in found}) < len(found):
            raise ValueError("a sample stands in it twice")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no file of verdicts: {error}; remove it to evaluate anew") from error
    if _kept_by(first) != _kept_by(head):
        raise ValueError(f"{path} holds verdicts of another evaluation: {first}")
    return found


def _kept_by(head: Any) -> Any:
    """A head without its names, of which nothing depends on."""
    return {k: v for k, v in head.items() if k != "sampler"} if isinstance(head, dict) else head


def others(folder: Path, version: int) -> int:
    """How many files of a folder have verdicts of another version."""
    count = 0
    for path in folder.glob("*.jsonl"):
        with path.open(encoding="utf-8", errors="replace") as lines:
            try:
                head = json.loads(lines.readline())
            except ValueError:  # a damaged one, which `read` names
                continue
        count += isinstance(head, dict) and head.get("version") != version
    return count


def scores(verdicts: Sequence[Verdict]) -> dict[str, Score]:
    """How many were right, by category."""
    return {
        category: Score(sum(v.right for v in verdicts if v.category == category), count)
        for category in CATEGORIES
        if (count := sum(v.category == category for v in verdicts))
    }


def overall(verdicts: Sequence[Verdict]) -> Score:
    """How many were right in all."""
    return Score(sum(v.right for v in verdicts), len(verdicts))


@dataclass(frozen=True)
class Paired:
    """Two samplers on the same prompts and noise.

    Attributes:
        wins: pairs where only the first was right. losses: where only the second was. pairs: all.
    """

    wins: int
    losses: int
    pairs: int

    @property
    def p(self) -> float:
        """`mcnemar` of the two."""
        return mcnemar(self.wins, self.losses)

    @property
    def difference(self) -> float:
        """The share that the first is right more often."""
        return (self.wins - self.losses) / self.pairs

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        r"""Agresti and Min's 95 % interval of the difference `(b − c)/n`: Wald's, with half a pair more in each cell.

        .. math:: \frac{b - c}{n + 2} ± \frac{z}{n + 2}\sqrt{b + c + 1 - \frac{(b - c)^2}{n + 2}}

        Source: Agresti & Min 2005, Statistics in Medicine 24, section 3.
        """
        n, b, c = self.pairs + 2, self.wins + 0.5, self.losses + 0.5
        spread = z / n * math.sqrt(b + c - (b - c) ** 2 / n)
        return (b - c) / n - spread, (b - c) / n + spread


def paired(first: Sequence[Verdict], second: Sequence[Verdict]) -> Paired:
    """Counts the pairs of the same seed, category and index.

    Raises:
        ValueError: unless both have the same ones, each once.
    """
    other = {v.key: v.right for v in second}
    if {v.key for v in first} != other.keys() or not len(first) == len(second) == len(other):
        raise ValueError(f"verdicts must be of the same prompts and noise, got {len(first)} and {len(second)}")
    wins = sum(v.right and not other[v.key] for v in first)
    losses = sum(other[v.key] and not v.right for v in first)
    return Paired(wins, losses, len(first))


def mcnemar(wins: int, losses: int) -> float:
    r"""The exact two-sided p of McNemar's test, that wins and losses are equally likely.

    .. math:: p = \min\Big(1,\; 2^{1-n} \sum_{k=0}^{\min(b, c)} \binom{n}{k}\Big), \qquad n = b + c

    Source: McNemar 1947; the binomial form.
    """
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / 2**n))
