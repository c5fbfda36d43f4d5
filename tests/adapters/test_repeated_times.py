"""Grids of diffusers on which two knots share an integer time, as Karras' and the exponential σ have at 50 steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import Standard, sample
from zigzag.solvers import Solver, adapt_prediction
from zigzag.zoo import GaussianMixture

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
REPEATED = {"use_karras_sigmas": 1, "use_exponential_sigmas": 3}  # times at 50 steps that another knot has as well
X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
each_spacing = pytest.mark.parametrize("spacing", REPEATED)
each_order = pytest.mark.parametrize("order", [1, 2])


def model(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return torch.tanh(0.8 * x) * 0.7


def set_scheduler(spacing: str, steps: int = 50, **config: Any) -> Any:
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS, **{spacing: True}, **config)
    scheduler.set_timesteps(steps)
    return scheduler


def repeats(solver: Solver) -> int:
    return len(solver) - len(solver.times.unique())


@each_spacing
@each_order
@pytest.mark.parametrize("said", ["sample", "epsilon", "v_prediction"])
def test_the_models_own_prediction_is_right_on_them(spacing: str, order: int, said: str) -> None:
    """Against the scheduler's own loop, to what its float32 coefficients leave: no level is found by its time."""
    scheduler = set_scheduler(spacing, solver_order=order, prediction_type=said)
    solver = adapters.solver_from_scheduler(scheduler)
    assert repeats(solver) == REPEATED[spacing] and not solver.times.is_floating_point()
    scheduler.set_begin_index(0)  # by the time alone it would begin its count anew
    wanted = X
    for t in scheduler.timesteps:
        wanted = scheduler.step(model(wanted, t), t, wanted).prev_sample
    found = sample(model, X, solver, Standard(), cond=None, strong=1.0)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@each_spacing
@each_order
def test_a_conversion_by_the_time_is_refused_on_them_and_right_without(spacing: str, order: int) -> None:
    """x₀ on a solver of ε: which α and σ a time that two knots share means cannot be told."""
    solver = adapters.solver_from_scheduler(set_scheduler(spacing, solver_order=order))
    share = r"knots \d+ and \d+ of .* share the time \d+; take fewer steps or another spacing, or a solver of the model"
    with pytest.raises(ValueError, match=f"adapt_prediction finds the knot by its time, but {share}"):
        adapt_prediction(model, solver, "x0")
    with pytest.raises(ValueError, match=f"GaussianMixture.predictor finds the knot by its time, but {share}"):
        GaussianMixture(torch.zeros(2, 3), 0.5).predictor(solver)
    adapt_prediction(model, solver, "epsilon")  # nothing is looked up

    # Fewer steps, as it advises: what is converted there is what the scheduler makes of x₀ itself.
    fewer = adapters.solver_from_scheduler(set_scheduler(spacing, 12, solver_order=order))
    assert repeats(fewer) == 0
    own = adapters.solver_from_scheduler(set_scheduler(spacing, 12, solver_order=order, prediction_type="sample"))
    found, wanted = (
        sample(fn, X, on, Standard(), cond=None, strong=1.0)
        for fn, on in ((adapt_prediction(model, fewer, "x0"), fewer), (model, own))
    )
    assert (found - wanted).norm() <= 1e-9 * wanted.norm()
