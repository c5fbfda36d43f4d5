"""A solver is the same whatever mode, default device or default dtype it is built in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.devices import MODES, NoFloat64, default_dtype
from zigzag import DDIM, FlowEuler, Spherical, Standard, sample
from zigzag.solvers import (
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    FlowAncestral,
    Heun,
    Solver,
    adapt_prediction,
)
from zigzag.zoo import GaussianMixture

SIGMAS = [1.0, 0.9876, 0.9643, 0.9, 0.75, 0.4987, 0.0]
TIMES = [1000 * sigma for sigma in SIGMAS[:-1]]

MAKERS: dict[str, Callable[[], Solver]] = {
    "flow": lambda: FlowEuler.uniform(6, shift=3.0, time_scale=1000.0),
    "flow of lists": lambda: FlowEuler(SIGMAS, times=TIMES),
    "ddim of lists": lambda: DDIM([0.1, 0.9, 1.0], [0.99, 0.4, 0.0], [999, 1]),
    "leading": lambda: DDIM.stable_diffusion(6),
    "linspace": lambda: DDIM.stable_diffusion(6, spacing="linspace", eta=1),
    "table": lambda: DDIM.from_alphas_cumprod([0.9, 0.5, 0.1], [2, 1]),
    "ddpm": lambda: DDPM.stable_diffusion(6, variance="large"),
    "ancestral": lambda: Ancestral.on(Spherical.cosine(6), eta=0.5),
    "flow ancestral": lambda: FlowAncestral.on(FlowEuler.uniform(6)),
    "karras": lambda: DDIM.karras(6, eta=0.5),
    "cosine": lambda: Spherical.cosine(6),
    "dpm": lambda: DPMSolver.on(FlowEuler.uniform(6), order=3),
    "adams": lambda: AdamsBashforth.on(DDIM.karras(6), order=4),
    "lcm": lambda: LCM.on(DDIM.stable_diffusion(4)),
    "tcd": lambda: TCD.from_alphas_cumprod([0.99, 0.9, 0.5, 0.1], [3, 2, 1]),
    "heun": lambda: Heun.on(Spherical.cosine(6)),
    "dpm2": lambda: DPM2.karras(6),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MAKERS)
def test_a_solver_is_the_same_in_every_mode(name: str, mode: str) -> None:
    wanted = MAKERS[name]()
    with MODES[mode]():
        made = MAKERS[name]()
    for column in ("alphas", "sigmas", "times", "inner_times"):
        value = getattr(made, column)
        assert value.device.type == "cpu" and not value.is_inference() and not value.requires_grad, column
        assert value.dtype == getattr(wanted, column).dtype
        assert value.dtype in (torch.float64, torch.int64)
        assert torch.equal(value, getattr(wanted, column)), column
    assert made.step(1, 2, (0,)) == wanted.step(1, 2, (0,))


def test_times_keep_the_digits_that_they_were_given() -> None:
    with default_dtype(torch.bfloat16):
        assert FlowEuler(SIGMAS, times=TIMES).times.tolist() == TIMES


def test_a_solver_of_a_validation_step_samples_with_gradients() -> None:
    net, time = torch.nn.Linear(8, 8), torch.nn.Embedding(1000, 8)
    with torch.inference_mode():
        solver = DPMSolver.on(DDIM.stable_diffusion(10), order=2)
    x = torch.randn(2, 8)
    x0 = sample(lambda x, t, c: net(x + time(t)), x, solver, Standard(), cond=None, strong=1.0, grad=True)
    x0.sum().backward()  # type: ignore[no-untyped-call]
    assert net.weight.grad is not None and bool(net.weight.grad.abs().sum() > 0)


def test_the_imitation_notices() -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2, device="meta").double()


def small(x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
    return x * 0.1


# Knots that share a time ---------------------------------------------------------------------------------------

SHARED = DDIM([0.1, 0.5, 0.9, 1.0], [0.99, 0.8, 0.4, 0.0], [7, 3, 3])


def test_a_wrapper_that_finds_the_knot_by_its_time_refuses_a_grid_that_repeats_one() -> None:
    for make in (
        lambda: adapt_prediction(small, SHARED, "x0"),
        lambda: adapt_prediction(small, SHARED, "v"),
        lambda: GaussianMixture(torch.zeros(2, 3), 0.5).predictor(SHARED),
    ):
        with pytest.raises(ValueError, match=r"knots 1 and 2 of .* share the time 3"):
            make()
    adapt_prediction(small, SHARED, "epsilon")  # nothing is looked up


def test_a_solver_of_the_models_own_prediction_needs_no_time_to_know_the_knot() -> None:
    """x₀-predictions on knots that share a time, against a loop by hand in the data form of DDIM."""
    alphas, sigmas, times = [0.1, 0.5, 0.9, 1.0], [0.99, 0.8, 0.4, 0.0], [7, 3, 3]
    solver = DPMSolver(alphas, sigmas, times, prediction="x0", order=1)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = x
    for i in range(3):
        x0 = torch.tanh(wanted)
        wanted = alphas[i + 1] * x0 + sigmas[i + 1] * (wanted - alphas[i] * x0) / sigmas[i]
    found = sample(lambda x, t, c: torch.tanh(x), x, solver, Standard(), cond=None, strong=1.0)
    torch.testing.assert_close(found, wanted)
