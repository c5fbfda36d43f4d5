"""Predictors over diffusers' models say what they were made for, and `walk` refuses a solver that does not fit."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import DDIM, FlowEuler, Spherical, Standard, sample
from zigzag.capture.weights import modules_run
from zigzag.solvers import DPMSolver, Heun, Solver, adapt_prediction
from zigzag.solvers.predictions import MadeFor, made_for_of

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
conventions = pytest.importorskip("zigzag.adapters.diffusers.conventions")

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Counted:
    """A model of diffusers whose calls are counted, with what it is sampled with."""

    def __init__(self, model: Any, x: Tensor, cond: Any, common: Any = None) -> None:
        self.model, self.x, self.cond, self.common, self.calls = model.eval(), x, cond, common, 0
        model.register_forward_pre_hook(self._called)

    def _called(self, *args: Any) -> None:
        self.calls += 1

    def run(self, eps_fn: Any, solver: Solver) -> Tensor:
        """The sample, after so many calls."""
        self.calls = 0
        return sample(eps_fn, self.x, solver, Standard(), cond=self.cond, strong=1.0)

    def refused(self, eps_fn: Any, solver: Solver, match: str) -> None:
        """Refused, before the model runs."""
        with pytest.raises(ValueError, match=match):
            self.run(eps_fn, solver)
        assert self.calls == 0


@pytest.fixture
def unet() -> Counted:
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return Counted(model, torch.randn(2, 4, 8, 8), {"encoder_hidden_states": torch.randn(2, 5, 16)})


@pytest.fixture
def flux() -> Counted:
    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, joint_attention_dim=16, num_attention_heads=2,
        attention_head_dim=8, axes_dims_rope=(2, 2, 4), pooled_projection_dim=12, guidance_embeds=False,
    )  # fmt: skip
    cond = {"encoder_hidden_states": torch.randn(2, 5, 16), "pooled_projections": torch.randn(2, 12)}
    return Counted(model, torch.randn(2, 4, 16), cond, {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(5, 3)})


def scheduler_of(name: str, steps: int, **config: Any) -> Any:
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("scheduler", [None, diffusers.FlowMatchEulerDiscreteScheduler()], ids=["alone", "scheduler"])
def test_a_flow_transformer_is_refused_on_a_solver_of_epsilon(flux: Counted, scheduler: Any) -> None:
    eps_fn = adapters.dit_predictor(flux.model, scheduler=scheduler, common=flux.common)
    assert made_for_of(eps_fn) == MadeFor("flow")
    flux.refused(eps_fn, DDIM.stable_diffusion(4), "eps_fn predicts 'flow', but DDIM.*adapt_prediction")
    flow = FlowEuler.uniform(4, time_scale=1000.0)
    for solver in (flow, FlowEuler.uniform(3, shift=3.0, time_scale=1000.0), Heun.on(flow), DPMSolver.on(flow)):
        assert flux.run(eps_fn, solver).isfinite().all() and flux.calls >= len(solver)
    grid = DDIM([0.1, 0.9, 1.0], [0.9, 0.1, 0.0], [900.0, 100.0])
    flux.run(adapt_prediction(eps_fn, grid, "flow"), grid)  # as the refusal says


def test_a_convention_that_leaves_the_prediction_to_the_checkpoint_says_none(flux: Counted) -> None:
    told = conventions.Convention(time="t/N", channels=2)
    assert made_for_of(adapters.dit_predictor(flux.model, common=flux.common, convention=told)) is None
    v = scheduler_of("DDIMScheduler", 4, **BETAS, prediction_type="v_prediction")
    eps_fn = adapters.dit_predictor(flux.model, common=flux.common, convention=told, scheduler=v)
    assert made_for_of(eps_fn) == MadeFor("v")


@pytest.mark.parametrize(("said", "kind"), [("epsilon", "epsilon"), ("v_prediction", "v")])
def test_a_unet_predicts_what_its_scheduler_says_on_any_grid(unet: Counted, said: str, kind: str) -> None:
    """DDIM scales nothing, so that no level is looked up, and any grid of that prediction will do."""
    eps_fn = adapters.unet_predictor(
        unet.model, scheduler=scheduler_of("DDIMScheduler", 4, **BETAS, prediction_type=said)
    )
    assert made_for_of(eps_fn) == MadeFor(kind)
    angles = Spherical.cosine(3)
    solvers = {"epsilon": DDIM.stable_diffusion(3), "v": Spherical(angles.sigmas.asin(), [900, 500, 100])}
    unet.run(eps_fn, solvers.pop(kind))
    unet.refused(eps_fn, *solvers.values(), f"eps_fn predicts '{kind}', but")
    assert made_for_of(adapters.unet_predictor(unet.model)) is None  # nothing says


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
@pytest.mark.parametrize("said", ["epsilon", "v_prediction"])
def test_a_scheduler_that_scales_the_input_is_held_to_its_grid(unet: Counted, name: str, said: str) -> None:
    scheduler = scheduler_of(name, 6, **BETAS, prediction_type=said)
    eps_fn = adapters.unet_predictor(unet.model, scheduler=scheduler)
    solver = adapters.solver_from_scheduler(scheduler)
    unet.x = unet.x * float(scheduler.init_noise_sigma)
    assert unet.run(eps_fn, solver).isfinite().all()
    other = adapters.solver_from_scheduler(scheduler, 5)
    unet.refused(eps_fn, other, r"eps_fn was made for .*T=6.*has no knot of time .* make it for the solver")
    assert unet.run(eps_fn.__wrapped__, other).isnan().any()  # mutant: what was refused is not a number


def test_the_steps_are_read_when_the_first_walk_asks_and_of_the_grid_that_was_set(
    unet: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler, steps = scheduler_of("EulerDiscreteScheduler", 6, **BETAS), []
    solver, other = (adapters.solver_from_scheduler(scheduler, T) for T in (6, 5))
    step = type(scheduler).step

    @wraps(step)  # it is called by the names that it takes
    def counted(*args: Any, **kwargs: Any) -> Any:
        steps.append(1)
        return step(*args, **kwargs)

    monkeypatch.setattr(type(scheduler), "step", counted)
    eps_fn = adapters.unet_predictor(unet.model, scheduler=scheduler)
    assert not steps
    scheduler.set_timesteps(5)
    unet.refused(eps_fn, other, "eps_fn was made for .*T=6")
    assert (read := len(steps))
    unet.x = unet.x * float(scheduler.init_noise_sigma)
    assert unet.run(eps_fn, solver).isfinite().all()
    assert len(steps) == read


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_capture_finds_the_model_behind_the_predictor(unet: Counted, name: str) -> None:
    """Also where none of it is seen to be called, as within a compiled function."""
    eps_fn = adapters.unet_predictor(unet.model, scheduler=scheduler_of(name, 6, **BETAS))
    with modules_run(eps_fn) as found:
        pass
    assert found == [*unet.model.modules()]


def test_the_scheduler_s_knots_under_another_solver_are_its_grid(unet: Counted) -> None:
    """Also of numbers that are not the table's to the last digit, which float32 tables are not."""
    scheduler = scheduler_of("EulerDiscreteScheduler", 6, **BETAS)
    eps_fn = adapters.unet_predictor(unet.model, scheduler=scheduler)
    sigmas, times = scheduler.sigmas.double() * (1 + 1e-7), scheduler.timesteps
    for begin in (0, 2):  # image to image
        knots = (torch.ones_like(sigmas[begin:]), sigmas[begin:], times[begin:])
        for solver in (DDIM(*knots), DDIM(*knots, eta=1), DPMSolver(*knots)):
            assert unet.run(eps_fn, solver).isfinite().all()
    vp = (1 + sigmas**2).rsqrt()  # the same times, of states that Euler does not scale
    unet.refused(eps_fn, DDIM(vp, sigmas * vp, times), "has no knot of time")


def test_what_only_the_scheduler_knows_is_refused_without_advice_that_fails(unet: Counted) -> None:
    """EDM's make x₀ of the model's output, which no other solver does."""
    scheduler = scheduler_of("EDMEulerScheduler", 4)
    eps_fn = adapters.unet_predictor(unet.model, scheduler=scheduler)
    assert unet.run(eps_fn, adapters.solver_from_scheduler(scheduler)).isfinite().all()
    with pytest.raises(ValueError, match=r"use a solver of 'preconditioned'$"):
        unet.run(eps_fn, DDIM.karras(4))
    unet.refused(eps_fn, adapters.solver_from_scheduler(scheduler, 3), "has no knot of time")


def test_a_scheduler_that_no_solver_steps_as_is_no_reason_to_refuse(unet: Counted) -> None:
    """Its steps are an SDE's of two calls; the input is scaled by the times all the same."""
    pytest.importorskip("torchsde")
    scheduler = scheduler_of("DPMSolverSDEScheduler", 4, **BETAS)
    with pytest.raises(ValueError):
        adapters.solver_from_scheduler(scheduler)
    eps_fn = adapters.unet_predictor(unet.model, scheduler=scheduler)
    assert made_for_of(eps_fn) == MadeFor("epsilon")
    sigmas, times = scheduler.sigmas.unique().flip(0), scheduler.timesteps[::2]
    assert unet.run(eps_fn, DDIM(torch.ones_like(sigmas), sigmas, times)).isfinite().all()


def test_steps_read_off_a_scheduler_of_unknown_levels_take_any_predictor() -> None:
    """What it predicts cannot be told then, and so is not held against the predictor."""
    from zigzag.checks import check_made_for
    from zigzag.solvers.predictions import made_for

    solver = DDIM.stable_diffusion(4)
    solver.prediction = "unknown"  # type: ignore[assignment]
    check_made_for("eps_fn", made_for(lambda x, t, cond: x, "flow"), solver)
