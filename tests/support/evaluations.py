"""What evaluations are tested with: a model whose verdicts depend on noise and path, and made-up verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from support.painters import Painter
from zigzag import Standard, ZSampling
from zigzag.evaluation.compare import Line
from zigzag.evaluation.evaluation import Evaluation, Result, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.verdicts import Verdict
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import CATEGORIES

T = 3
PLAIN = Sampler(Standard(), T, 2.0)
ZIGZAG = Sampler(ZSampling(), T, 2.0)
TRIAL = Trial(12, seed=4)


class Moody(Painter):
    """A painter that draws where the state sums up to more than nothing, and counts the rows it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        self.rows += len(x)
        drawn, empty = super().forward(x, t, tokens), super().forward(x, t, torch.zeros_like(tokens))
        return torch.where((x.sum((1, 2, 3)) > 0)[:, None, None, None], drawn, empty)


def moody(name: str = "shapes-dit") -> LearnedModel:
    """It under the interface of a learned model; as "shapes-unet" it is on the diffusion grid, and draws nonsense."""
    return LearnedModel(name, Moody())


@dataclass(frozen=True)
class MoodyWorker:
    """Makes one where it is needed."""

    def load(self) -> LearnedModel:
        return moody()


def asked(model: LearnedModel) -> int:
    """The rows that a moody model was asked for."""
    assert isinstance(model.network, Moody)
    return model.network.rows


def made(seed: int, right: float, rows: int = 20, prompts: int = 60, **more: float) -> list[Verdict]:
    """Verdicts of the same prompts for every seed, of which about the share `right` is right."""
    rng = Random(seed)
    return [
        Verdict(0, category, k, "a circle", rng.random() < right, ["red circle"], rows, **more)
        for k in range(prompts // len(CATEGORIES))
        for category in CATEGORIES
    ]


def results(lines: Sequence[Line]) -> dict[Sampler, Result]:
    """Made-up results of all lines."""
    samplers = list(dict.fromkeys(line.sampler for line in lines))
    return {s: Result(made(k, 0.4 + 0.04 * (k % 10), s.rows()), 0.001 * (k + 1)) for k, s in enumerate(samplers)}


def result(evaluation: Evaluation, sampler: Sampler, trial: Trial = TRIAL) -> list[Verdict]:
    return evaluation.run([sampler], [trial])[sampler].verdicts
