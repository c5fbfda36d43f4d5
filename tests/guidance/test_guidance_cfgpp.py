"""CFG++ is Tweedie with the guided prediction and renoising with the unconditional one."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from support.guidance import COND, UNCOND, at, branches, needed
from support.tensors import assert_within, noise
from zigzag.guidance import CFG, CFGPlusPlus
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical, StepInfo

EPS = torch.finfo(torch.float64).eps


def cfgpp_solvers() -> dict[str, Solver]:
    """Grids with α_0 >= 0.07, for the definition divides by α_i; the last knot has σ = 0."""
    return {
        "ddim": DDIM.stable_diffusion(8),
        "edm": DDIM.karras(6, sigma_min=0.1, sigma_max=10.0),
        "flow": FlowEuler(torch.tensor([0.95, 0.8, 0.3, 0.0], dtype=torch.float64)),
        "spherical": Spherical.cosine(5, phi_max=1.5),
    }


def both(x: Tensor, e: Tensor, alpha: float, sigma: float, prediction: str) -> tuple[Tensor, Tensor]:
    """x₀ (Tweedie) and ε of a prediction, by hand."""
    if prediction == "epsilon":
        return (x - sigma * e) / alpha, e
    if prediction == "flow":
        return x - sigma * e, x + alpha * e
    return alpha * x - sigma * e, sigma * x + alpha * e


def check_cfgpp(rule: Any, solver: Solver, i: int, j: int, lam: float, seed: int) -> None:
    """CFG++ in its own two lines, in the solver's own parametrisation:
    x̂₀ = Tweedie(x_i, e_∅ + λ·(e_c − e_∅));  x_j = α_j·x̂₀ + σ_j·ε_∅."""
    info = solver.info(i, j)
    x, e_c, e_u = (noise(seed + k, 2, 5) for k in range(3))
    x = x * (info.alpha_i**2 + info.sigma_i**2) ** 0.5
    guided = e_u + lam * (e_c - e_u)
    x0_hat, _ = both(x, guided, info.alpha_i, info.sigma_i, solver.prediction)
    _, eps_u = both(x, e_u, info.alpha_i, info.sigma_i, solver.prediction)
    expected = info.alpha_j * x0_hat + info.sigma_j * eps_u

    w = rule.at(info)
    actual = solver.step(i, j).forward(x, needed(rule, e_c, e_u, info))
    size = (x.abs() + (1 + info.sigma_i) * (e_c.abs() + e_u.abs())) * (1 + info.alpha_j / info.alpha_i)
    assert_within(actual, expected, 16 * EPS * (1 + abs(w)) * size)


@pytest.mark.parametrize("name", list(cfgpp_solvers()))
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.6, 1.0])
def test_cfgpp_is_tweedie_with_the_guided_and_renoising_with_the_unconditional(name: str, lam: float) -> None:
    solver = cfgpp_solvers()[name]
    for i in range(len(solver)):
        check_cfgpp(CFGPlusPlus(lam), solver, i, i + 1, lam, seed=i)
    check_cfgpp(CFGPlusPlus(lam), solver, 0, len(solver), lam, seed=9)


@pytest.mark.parametrize("name", list(cfgpp_solvers()))
def test_the_cfgpp_check_refuses_a_constant_scale_and_renoising_with_the_guided(name: str) -> None:
    """Mutants: w = λ is DDIM renoised with the guided prediction; w with its two products exchanged."""

    def exchanged(step: StepInfo) -> float:
        down, up = step.alpha_j * step.sigma_i, step.alpha_i * step.sigma_j
        return 0.6 * up / (down - up)

    solver = cfgpp_solvers()[name]
    for mutant in (CFG(0.6), CFG(exchanged), CFGPlusPlus(0.5)):
        with pytest.raises(AssertionError):
            check_cfgpp(mutant, solver, 1, 2, 0.6, seed=0)


@pytest.mark.parametrize("name", list(cfgpp_solvers()))
def test_the_scale_of_cfgpp_is_that_of_the_design(name: str) -> None:
    """w = λ·α_jσ_i/(α_jσ_i − α_iσ_j); the denominator cancels, so its rounding is relative to w/λ."""
    solver, lam = cfgpp_solvers()[name], 0.6
    for i in range(len(solver)):
        n = solver.info(i)
        ratio = n.alpha_j * n.sigma_i / (n.alpha_j * n.sigma_i - n.alpha_i * n.sigma_j)
        w = CFGPlusPlus(lam).at(n)
        assert abs(w - lam * ratio) <= 8 * EPS * ratio**2
        assert tuple(CFGPlusPlus(lam).branches(n)) == branches(w)
        assert tuple(CFGPlusPlus(0.0).branches(n)) == UNCOND


def test_at_sigma_j_0_cfgpp_is_cfg_at_lambda() -> None:
    last = at(alpha_j=1.0, sigma_j=0.0)
    assert math.isclose(CFGPlusPlus(0.6).at(last), 0.6, rel_tol=4 * EPS)
    assert tuple(CFGPlusPlus(1.0).branches(last)) == COND
