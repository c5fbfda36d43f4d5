"""What the tests of samplers share: methods, scales, prompts and noise, and that rows are those that ran."""

from __future__ import annotations

import torch

from support.evaluations import asked, moody
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling
from zigzag.evaluation.accuracy import noise
from zigzag.evaluation.samplers import Sampler

T = 4
METHODS = [
    Standard(), Resampling(), Resampling(steps=2, rounds=2), EndToEnd(), EndToEnd(refine=1), ZSampling(),
    ZSampling(span=2, refine=1, steps=2), ZSampling(rounds=2), ZSampling(released=True), ImplicitZ(),
    ImplicitZ(start=1, steps=3), Z2Sampling(warmup=1), Z2Sampling(warmup=0, steps=2),
]  # fmt: skip
SCALES = [(4.0, 0.0), (1.0, 0.0), (4.0, 1.0), (4.0, 4.0), (2.5, 1.5), (0.0, 0.0), (1.0, 1.0)]
TEXTS = ["a red circle", "two blue squares", "a triangle"]
X = noise("position", 0, 3, seed=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_rows(sampler: Sampler, name: str = "shapes-dit") -> None:
    """Those that a sampler says, that its trace counts, and that the model is asked for are the same."""
    model, trace = moody(name), Trace()
    sampler.draw(model, TEXTS, X, seeded(), trace)
    assert sampler.rows() == trace.rows == asked(model) / len(TEXTS)
