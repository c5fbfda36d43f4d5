"""Without a gap `attach` changes nothing, on stochastic schedulers either: the noise is the scheduler's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from zigzag import ImplicitZ, Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

from real_schedulers import REAL, WANTED, distance, noise, runs, seeded  # noqa: E402

# numpy's, of diffusers; and of UniPC's corrector, which has a test of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]


UNMOVED = {"implicit": (ImplicitZ(), False), "z2": (Z2Sampling(warmup=1), False), "z": (ZSampling(rounds=2), True)}


# Whatever draws; and of the rest one that remembers, two that step twice and one that would correct.
STILL = ("dpm 2m", "pndm", "heun", "unipc")
DRAWING = (
    "ddim eta", "ddpm", "euler churned", "euler ancestral", "sde dpm 2m", "sde dpm 3m", "lcm", "tcd", "flow stochastic",
    "kdpm2 ancestral", "cogvideox dpm", "ltx ancestral", "scm",
)  # fmt: skip


@pytest.mark.parametrize("name", [*DRAWING, *STILL])
def test_without_a_gap_the_image_is_the_plain_one(name: str) -> None:
    """Also of stochastic schedulers: the same random numbers, and the generator ends where it would have ended.

    Where an inversion is approximate (its prediction is taken elsewhere) the prediction depends on no state and time.
    """
    case, same = REAL[name], (0.4, 0.4)
    if name.startswith("unipc"):
        case = dataclasses.replace(case, config={**case.config, "disable_corrector": list(range(case.steps))})
    for n, (method, flat) in enumerate(UNMOVED.values()):
        x, one, two = noise(1 + n % 2), seeded(), seeded()
        plain = runs(case, x, Standard(), conds=same, generator=one, flat=flat)
        ours = runs(case, x, method, conds=same, generator=two, flat=flat)
        assert distance(ours, plain) <= WANTED
        assert torch.equal(one.get_state(), two.get_state())
        if n == 1:
            with pytest.raises(AssertionError):  # with a gap it is another
                assert distance(runs(case, x, method), runs(case, x, Standard())) <= WANTED


@pytest.mark.parametrize("name", ["ddim eta", "ddpm", "sde dpm 2m", "lcm", "cogvideox dpm", "kdpm2 ancestral"])
def test_a_list_of_generators_is_each_samples_own(name: str) -> None:
    case, x, method = REAL[name], noise(2), ZSampling(steps=2)
    both = runs(case, x, method, generator=[seeded(1), seeded(2)])
    for n, seed in enumerate((1, 2)):
        conds = tuple(c + 0.1 * n for c in (1.0, -0.5))
        one = runs(case, x[n : n + 1], method, generator=[seeded(seed)], conds=conds)
        assert distance(both[n : n + 1], one) <= WANTED
