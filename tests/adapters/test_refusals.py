"""Schedulers that no solver steps as: refused before anything runs, with the reason and with what works."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag.solvers import Solver

diffusers = pytest.importorskip("diffusers")
AysSchedules = pytest.importorskip("diffusers.schedulers").AysSchedules
adapters = pytest.importorskip("zigzag.adapters.diffusers")
solver_from_scheduler = adapters.solver_from_scheduler
remedies = pytest.importorskip("zigzag.adapters.diffusers.remedies")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' own, of numpy

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim(**config: Any) -> Any:
    return diffusers.DDIMScheduler(**{**BETAS, "clip_sample": False, **config})


def euler(**config: Any) -> Any:
    return diffusers.EulerDiscreteScheduler(**BETAS, **config)


def dpm(**config: Any) -> Any:
    return diffusers.DPMSolverMultistepScheduler(**{**BETAS, "solver_order": 1, **config})


def flow(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


TRAILING: dict[str, Any] = {"timestep_spacing": "trailing"}
LINSPACE: dict[str, Any] = {"timestep_spacing": "linspace"}
GRIDS: dict[str, tuple[Callable[[], Solver], str]] = {
    "no scheduler": (lambda: solver_from_scheduler(3), "scheduler must be a diffusers scheduler, got 3"),
    "no grid": (lambda: solver_from_scheduler(ddim()), "steps is missing, and DDIMScheduler has no grid"),
    "no flow grid": (lambda: solver_from_scheduler(flow()), "steps is missing"),
    "no steps": (lambda: solver_from_scheduler(ddim(), 0), "steps must be .* got 0"),
    "too many steps": (lambda: solver_from_scheduler(ddim(), 1001), "steps: .* refuses.*cannot be larger"),
    "two grids": (lambda: solver_from_scheduler(euler(), 4, timesteps=[9, 1]), "timesteps, steps: .* refuses"),
    "no mu": (lambda: solver_from_scheduler(flow(use_dynamic_shifting=True), 4), "refuses: `mu` must be passed"),
    "ays in ddim": (
        lambda: solver_from_scheduler(ddim(), timesteps=AysSchedules["StableDiffusionTimesteps"]),
        "timesteps: DDIMScheduler.set_timesteps takes none; EulerDiscreteScheduler",
    ),
    "ddim off the table": (
        lambda: solver_from_scheduler(ddim(steps_offset=1), 1000),
        "1000, which lies outside .* of 1000",
    ),
    "ddim from nothing": (
        lambda: solver_from_scheduler(ddim(**TRAILING, rescale_betas_zero_snr=True), 4),
        "999, where alpha is 0 .*; use .*timestep_spacing='leading'.* or a model of v_prediction",
    ),
    "no step at all": (lambda: solver_from_scheduler(diffusers.RePaintScheduler(), 4), "needs original_image, mask"),
}


@pytest.mark.parametrize("case", GRIDS)
def test_what_does_not_fit_is_refused_with_its_reason(case: str) -> None:
    call, message = GRIDS[case]
    with pytest.raises(TypeError if case == "no scheduler" else ValueError, match=message):
        call()


def made(name: str, **config: Any) -> Any:
    return getattr(diffusers, name)(**{**BETAS, **config})


PRK: dict[str, Any] = {"steps_offset": 1}
SINGLE: dict[str, Any] = {"solver_order": 3}
# What is refused, why, at how many steps; what is named behind "; use " is run.
REFUSED: dict[str, tuple[Any, str, int]] = {
    "clip": (ddim(clip_sample=True), "no affine steps.*clip_sample=True clamps", 4),
    "ddpm clips": (made("DDPMScheduler"), "clip_sample=True clamps", 4),
    "threshold": (ddim(thresholding=True), "thresholding=True clamps", 4),
    "dpm threshold": (dpm(thresholding=True), "step 0, .*thresholding=True clamps", 4),
    "consistency clips": (diffusers.CMStochasticIterativeScheduler(), "clip_denoised=True clamps", 4),
    "learned": (made("DDPMScheduler", variance_type="learned_range"), "learned variance", 4),
    "linspace": (ddim(**LINSPACE), r"from time step 999 elsewhere than to the next one, 888: .* 1000//10 = 100", 10),
    "trailing": (ddim(**TRAILING), r"goes down by 1000//30 = 33 .*; use .*such as 25 or 40", 30),
    "half a flow": (dpm(prediction_type="flow_prediction"), "neither a flow nor a diffusion", 4),
    "runge-kutta": (made("PNDMScheduler", **PRK), "Runge-Kutta", 4),
    "triples": (made("DPMSolverSinglestepScheduler", **SINGLE), "one step of 3 model calls", 6),
    "noisy pairs": (made("DPMSolverSinglestepScheduler", algorithm_type="sde-dpmsolver++"), "noise between them", 6),
    "bh1 at data": (made("UniPCMultistepScheduler", solver_type="bh1"), "division by zero", 4),
    "ddim upward": (made("DDIMInverseScheduler", clip_sample=False), "runs from data to noise", 4),
    "dpm upward": (made("DPMSolverMultistepInverseScheduler"), "runs from data to noise", 4),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_scheduler_that_is_named_instead_works(case: str) -> None:
    scheduler, reason, steps = REFUSED[case]
    with pytest.raises(ValueError, match=f"{type(scheduler).__name__}.*{reason}") as refused:
        solver_from_scheduler(scheduler, steps)
    named = str(refused.value).split("; use ")[-1]
    if case == "consistency clips":  # nor unclamped, and there is no other for such a model
        assert named.startswith("method Standard()")
        return
    assert "its image is another one" in named
    expression = named[: named.index(")") + 1]
    config = type("Config", (), {"config": scheduler.config})
    instead = eval(expression, {**vars(diffusers), **schedulers(), "scheduler": config})
    assert len(solver_from_scheduler(instead, steps)) in (steps, (steps + 1) // 2)
    if "such as" in named:
        for number in (25, 40):
            assert len(solver_from_scheduler(scheduler, number)) == number


FOREIGN: dict[str, Any] = {
    "deis": made("DEISMultistepScheduler", thresholding=True),
    "sa": made("SASolverScheduler", thresholding=True),
    "dpm": dpm(algorithm_type="dpmsolver", final_sigmas_type="sigma_min", thresholding=True),
    "heun of four": made("PNDMScheduler"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_remedy_is_tried_on_the_schedulers_own_configuration(case: str) -> None:
    """That of DEIS or SA-Solver has names in it that another class refuses or misreads."""
    scheduler = FOREIGN[case]
    with pytest.raises(ValueError, match="; use ") as refused:
        solver_from_scheduler(scheduler, 6)
    named = str(refused.value).split("; use ")[-1]
    config = type("Config", (), {"config": scheduler.config})
    names = {type(scheduler).__name__, "DPMSolverMultistepScheduler", "DDIMScheduler"}
    instead = eval(
        named[: named.index(")") + 1], {**{name: getattr(diffusers, name) for name in names}, "scheduler": config}
    )
    assert len(solver_from_scheduler(instead, 6)) >= 5  # of PNDM's the last ends where it begins


def test_of_a_preconditioned_network_only_what_makes_the_same_of_its_output_is_named() -> None:
    """At the level that the network is told in the same way: another scheduler's x₀ of its output is another one."""
    churned = diffusers.EDMEulerScheduler(sigma_max=14.0)
    with pytest.raises(ValueError, match=r"; use EDMDPMSolverMultistepScheduler\.from_config\(scheduler\.config\) "):
        solver_from_scheduler(churned, 4, step_kwargs={"s_churn": 0.5})
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_max=14.0, thresholding=True)
    x, e = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    for refused in (churned, scheduler):
        (named,) = remedies.others(refused)
        other = getattr(diffusers, named.name).from_config(refused.config)
        for level in torch.tensor([0.1, 14.0]):
            assert torch.equal(refused.precondition_outputs(x, e, level), other.precondition_outputs(x, e, level))
            assert torch.equal(refused.precondition_inputs(x, level), other.precondition_inputs(x, level))
            assert torch.equal(refused.precondition_noise(level), other.precondition_noise(level))


def test_where_the_level_is_told_otherwise_no_other_scheduler_is_named() -> None:
    """Stable Audio's, by an arctangent of it."""
    pytest.importorskip("torchsde")
    assert remedies.others(diffusers.CosineDPMSolverMultistepScheduler()) == []


def test_a_scheduler_that_cannot_be_made_is_not_named() -> None:
    class Odd(diffusers.DDIMScheduler):
        def step(self, model_output: Any, timestep: Any, sample: Any, **kwargs: Any) -> Any:
            return super().step(model_output.clamp(-1, 1), timestep, sample, **kwargs)

        @classmethod
        def from_config(cls, config: Any, **changes: Any) -> Any:
            raise TypeError("none of these")

    odd = Odd(**BETAS, clip_sample=True)
    with pytest.raises(ValueError, match=r"clip_sample=True clamps.*; use DPMSolverMultistepScheduler"):
        solver_from_scheduler(odd, 4)


@pytest.mark.parametrize(
    ("scheduler", "grid"),
    [
        (ddim(set_alpha_to_one=False), {"steps": 4}),
        (euler(final_sigmas_type="sigma_min"), {"steps": 4}),
        (flow(), {"sigmas": [1.0, 0.75, 0.5, 0.0]}),
    ],
)
def test_a_last_step_that_does_nothing_is_left_out(scheduler: Any, grid: dict[str, Any]) -> None:
    """It ends at the level that it starts from: what is before it leads there, and is the scheduler's."""
    solver = solver_from_scheduler(scheduler, **grid)
    scheduler.set_timesteps(**{"num_inference_steps" if name == "steps" else name: n for name, n in grid.items()})
    assert len(scheduler.timesteps) == 4 and len(solver) == 3
    x, e = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    for i, t in enumerate(scheduler.timesteps):
        scheduler._step_index = i
        after = scheduler.step(e, t, x)[0]
        torch.testing.assert_close(after, x if i == 3 else solver.step(i).forward(x, e), rtol=1e-5, atol=1e-5)


def schedulers() -> dict[str, Any]:
    """diffusers' module is lazy: its names are not in its dictionary before they are asked for."""
    names = {type(scheduler).__name__ for scheduler, *_ in REFUSED.values()}
    return {name: getattr(diffusers, name) for name in (*names, "DPMSolverMultistepScheduler")}


def test_a_flow_that_counts_up_what_there_is_of_the_data_runs_down() -> None:
    """Mochi's and OmniGen's: `x = σ·x₀ + (1 − σ)·ε`, of which the model says `x₀ − ε`."""
    scheduler = flow(invert_sigmas=True)
    solver = solver_from_scheduler(scheduler, 4)
    scheduler.set_timesteps(4)
    torch.testing.assert_close(solver.alphas, scheduler.sigmas.double(), rtol=1e-6, atol=1e-6)
    x0, eps = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    x, last = eps, 1.0
    for i, (alpha, sigma) in enumerate(zip(solver.alphas[1:], solver.sigmas[1:], strict=True)):
        assert float(sigma) < last
        x, last = solver.step(i).forward(x, x0 - eps), float(sigma)
        torch.testing.assert_close(x, alpha * x0 + sigma * eps, rtol=1e-6, atol=1e-6)
    x = solver.step(3).inverse(x, x0 - eps)
    torch.testing.assert_close(x, solver.alphas[3] * x0 + solver.sigmas[3] * eps, rtol=1e-6, atol=1e-6)


def test_x0_predictions_have_steps_and_no_inverse_at_the_last() -> None:
    """`a = σ_j/σ_i = 0` there: a path that needs it is refused, and zigzags before it are not."""
    for make in (ddim, euler, dpm):
        solver = solver_from_scheduler(make(prediction_type="sample"), 4)
        assert solver.prediction == "x0" and all(solver.invertible_step(i) for i in range(3))
        with pytest.raises(ValueError, match="from knot 3 to 4 has no inverse"):
            solver.invertible_step(3)


class Bent(diffusers.DDIMScheduler):  # type: ignore[misc]
    factor = 1.0

    def step(self, model_output: Tensor, timestep: int, sample: Tensor, **kwargs: Any) -> Any:
        return super().step(self.factor * model_output, timestep, sample, **kwargs)


@pytest.mark.parametrize(("factor", "native"), [(1 + 1e-8, True), (1 + 1e-5, False)])
def test_a_native_solver_is_held_against_what_step_really_does_to_1e_6(factor: float, native: bool) -> None:
    """Beyond that the steps are those that were read off the scheduler, and as it makes them."""
    scheduler = Bent(**BETAS, clip_sample=False)
    scheduler.factor = factor
    solver, plain = solver_from_scheduler(scheduler, 6), solver_from_scheduler(ddim(), 6)
    assert (type(solver) is type(plain)) == native
    if not native:
        for i in range(5):
            assert abs(float(solver.step(i).b) / float(plain.step(i).b) - factor) < 1e-9
        assert repr(solver) == "Rehearsed(Bent, T=6, prediction='epsilon')"


class Other(diffusers.EulerDiscreteScheduler):  # type: ignore[misc]
    kind, last = "", 0.0

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **kwargs: Any) -> Any:
        out = super().step(model_output, timestep, sample, **kwargs)
        if self.kind == "remembers":
            out.prev_sample, self.last = out.prev_sample + 1e-3 * self.last, model_output
        elif self.kind == "noisy":
            out.prev_sample = out.prev_sample + 1e-3 * torch.randn(sample.shape)
        elif self.kind == "bends late":
            out.prev_sample = out.prev_sample.clamp(-60, 60)
        elif self.kind == "drifts":
            out.prev_sample = out.prev_sample + 1e-3
        return out


@pytest.mark.parametrize("kind", ["remembers", "noisy", "bends late", "drifts"])
def test_what_a_step_remembers_or_draws_is_read_and_what_bends_it_is_found_out(kind: str) -> None:
    scheduler, state = Other(**BETAS), torch.random.get_rng_state()
    scheduler.kind = kind
    if kind in ("bends late", "drifts"):
        with pytest.raises(ValueError, match=r"no affine steps: step [01], at time step"):
            solver_from_scheduler(scheduler, 6)
    else:
        solver = solver_from_scheduler(scheduler, 6)
        first, second = solver.step(0), solver.step(1, None, [0])
        memory, drawn = (1e-3, 0.0) if kind == "remembers" else (0.0, 1e-3)
        assert first.memory == () and abs(float(first.noise) - drawn) < 1e-12
        assert abs(sum(map(float, second.memory)) - memory) < 1e-12 and abs(float(second.noise) - drawn) < 1e-12
        assert solver.memory == int(kind == "remembers")
    assert torch.equal(torch.random.get_rng_state(), state)
