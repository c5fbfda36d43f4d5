"""The theorems behind the methods, across parametrisations of one model (trap 3)."""

from __future__ import annotations

import math

import pytest
import torch

from support.mixtures import COND, MIXTURE, NOISE, UNCOND
from support.theorems import EPS, T, size
from zigzag import DDIM, FlowEuler, ImplicitZ, Spherical, Standard, Z2Sampling, ZSampling, sample, walk
from zigzag.moves import Denoise, Shift

ANGLES = torch.linspace(1.5, 0.0, T + 1, dtype=torch.float64) ** 1.2 / 1.5**0.2
SIGMAS = torch.tensor([0.97, 0.85, 0.66, 0.45, 0.25, 0.1, 0.0], dtype=torch.float64)
PAIRS = {
    "spherical": (Spherical(ANGLES), DDIM(torch.cos(ANGLES), torch.sin(ANGLES), ANGLES[:-1])),
    "flow": (FlowEuler(SIGMAS), DDIM(1 - SIGMAS, SIGMAS, SIGMAS[:-1])),
}


def draw(solver: object, method: object, **scales: float) -> torch.Tensor:
    return sample(MIXTURE.predictor(solver), NOISE, solver, method, cond=COND, uncond=UNCOND, **scales)


def check_one_sampler(one: object, two: object, other: object | None = None) -> None:
    """The same x_0 from the same model, whatever it is made to predict, up to rounding in the conversions.

    e in one parametrisation is (e in the other)/alpha plus multiples of x, so that a unit of rounding in one
    prediction is 1/alpha_0 units in the other at most: ten roundings a step.
    """
    for strong in (1.0, 0.0, 3.0):
        x, y = draw(one, Standard(), strong=strong), draw(other or two, Standard(), strong=strong)
        assert size(x - y) <= 10 * T * EPS * (size(x) + size(NOISE)) / float(two.alphas[0])


@pytest.mark.parametrize("pair", list(PAIRS))
def test_standard_sampling_does_not_see_the_parametrisation(pair: str) -> None:
    """Spherical on v = DDIM on epsilon; FlowEuler on u = DDIM on epsilon at alpha = 1 - sigma."""
    one, two = PAIRS[pair]
    assert one.prediction != two.prediction
    check_one_sampler(one, two)
    alphas, sigmas = two.alphas.clone(), two.sigmas.clone()
    alphas[2], sigmas[2] = alphas[2] * 1.0001, sigmas[2] * 0.9999
    with pytest.raises(AssertionError):
        check_one_sampler(one, two, DDIM(alphas, sigmas, two.times))


def shift_of(solver: object, i: int) -> torch.Tensor:
    """x~ - x of a Shift at knot i, from x = NOISE."""
    path = (Shift(i, True), Denoise(i, i + 1))
    args = {"cond": COND, "uncond": UNCOND, "strong": 3.0, "weak": 0.0}
    visit = next(iter(walk(MIXTURE.predictor(solver), NOISE, solver, path, **args)))
    return visit.state - NOISE


def check_ratio(one: torch.Tensor, two: torch.Tensor, ratio: float, alpha: float) -> None:
    assert size(one - ratio * two) <= 32 * EPS * (size(one, two) + size(NOISE)) / alpha


@pytest.mark.parametrize("i", range(1, T))
@pytest.mark.parametrize("pair", list(PAIRS))
def test_shifts_do_see_the_parametrisation(pair: str, i: int) -> None:
    """Trap 3: the solver's own prediction is the anchor, since d differs.

    gap_v = gap_u = gap_eps / alpha_i, and b/a is (sigma_j alpha_i - sigma_i alpha_j)/alpha_j for epsilon,
    -tan(delta) for v, sigma_j - sigma_i for u. So Shift_v = cos(phi_j)/(cos(phi_i) cos(delta)) Shift_eps and
    Shift_u = (alpha_j/alpha_i) Shift_eps.
    """
    one, two = PAIRS[pair]
    a_i, a_j = float(two.alphas[i]), float(two.alphas[i + 1])
    ratio = a_j / a_i / (math.cos(float(ANGLES[i] - ANGLES[i + 1])) if pair == "spherical" else 1.0)
    v, eps = shift_of(one, i), shift_of(two, i)
    assert size(eps) > 1e-3 and ratio > 1.002
    check_ratio(v, eps, ratio, a_i)
    with pytest.raises(AssertionError):
        check_ratio(v, eps, 1.0, a_i)


@pytest.mark.parametrize("pair", list(PAIRS))
@pytest.mark.parametrize("method", [ImplicitZ(), ZSampling(), Z2Sampling(warmup=1)], ids=lambda m: type(m).__name__)
def test_zigzags_of_one_model_differ_between_parametrisations(pair: str, method: object) -> None:
    one, two = PAIRS[pair]
    x, y = draw(one, method, strong=2.0, weak=0.0), draw(two, method, strong=2.0, weak=0.0)
    assert size(x - y) > 1e-3 * size(x)
