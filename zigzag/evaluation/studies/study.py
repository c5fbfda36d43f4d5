"""What a study is: samplers, where they stand in a picture, and the lines of its table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from zigzag.evaluation.compare import Line
from zigzag.evaluation.samplers import Sampler

__all__ = ["STEPS", "STRONG", "Point", "Study"]

STEPS = 10
STRONG = 4.0  # the best scale of standard sampling on record for shapes-unet


class Point(NamedTuple):
    """A point of a picture: on the curve `series`, at `x` of the swept quantity, called `name` in the table."""

    series: str
    x: float
    sampler: Sampler
    name: str = ""


@dataclass(frozen=True)
class Study:
    """A study of a paper.

    Attributes:
        title: what is swept. source: where the papers have it. axis: the swept quantity, with its symbol.
        points: what is sampled, and where it stands in the picture. lines: the table.
        by_cost: whether x is the rows, or the seconds, of the sampler itself, `Point.x` being unused.
        errors: whether the table has δ, τ₁ and τ₂. exact: whether the model runs in float32 even where others do not.
    """

    title: str
    source: str
    axis: str
    points: list[Point]
    lines: list[Line] = field(default_factory=list)
    by_cost: bool = False
    errors: bool = False
    exact: bool = False
