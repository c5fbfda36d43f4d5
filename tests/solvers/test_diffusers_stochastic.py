"""Stochastic solvers and those of two evaluations are diffusers' schedulers, fed the same noise, to rounding."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from support.schedulers import EPS, SD, check_history, model, start, widened
from zigzag.solvers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    FlowAncestral,
    FlowEuler,
    Heun,
    Solver,
)
from zigzag.solvers.multistep import DataStep

diffusers = pytest.importorskip("diffusers")

KINDS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
LEADING: dict[str, Any] = {"timestep_spacing": "leading"}


def scheduler(name: str, steps: int, **config: Any) -> Any:
    made = getattr(diffusers, name)(**SD | config)
    made.set_timesteps(steps)
    return made


def abars(made: Any, final: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(α, σ, t)` of a scheduler that looks ᾱ up by time step."""
    bars = made.alphas_cumprod.double()
    bars = torch.cat([bars[made.timesteps], torch.as_tensor(final).double().reshape(1)])
    return bars.sqrt(), (1 - bars).sqrt(), made.timesteps


def check(make: Any, build: Any, mutants: list[dict[str, Any]], **options: Any) -> None:
    """`build(scheduler)` steps as the scheduler that `make()` makes, and `build(scheduler, **mutant)` does not."""
    made = make()
    scale = float(getattr(made, "init_noise_sigma", 1.0))
    check_history(made, build(made), start(scale), generators=True, **options)
    for mutant in mutants:
        with pytest.raises(AssertionError, match="step"):
            check_history(make(), build(make(), **mutant), start(scale), generators=True, **options)


# DDIM, DDPM, ancestral Euler -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim_with_eta_is_diffusers(eta: float, to_one: bool) -> None:
    """Onto clean data neither adds noise."""

    def build(made: Any, **mutant: Any) -> Solver:
        return DDIM(*abars(made, made.final_alpha_cumprod), **{"eta": eta} | mutant)

    config = {"clip_sample": False, "set_alpha_to_one": to_one, "steps_offset": 1} | LEADING
    check(lambda: scheduler("DDIMScheduler", 10, **config), build, [{"eta": eta * 0.999}, {"eta": 0.0}], eta=eta)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_diffusers(variance: str) -> None:
    """fixed_small and fixed_large; its last time step is 0, where it adds nothing."""

    def build(made: Any, **mutant: Any) -> Solver:
        return DDPM(*abars(made, 1.0), **{"variance": variance} | mutant)

    config = {"clip_sample": False, "variance_type": f"fixed_{variance}"}
    check(
        lambda: scheduler("DDPMScheduler", 10, **config), build,
        [{"variance": {"small": "large", "large": "small"}[variance]}],
    )  # fmt: skip


@pytest.mark.parametrize("config", [LEADING | {"steps_offset": 1}, {"timestep_spacing": "trailing"}], ids=str)
def test_ancestral_euler_is_ddim_at_alpha_one_with_eta_one(config: dict[str, Any]) -> None:
    def build(made: Any, **mutant: Any) -> Solver:
        sigmas = made.sigmas.double()
        alphas = torch.full_like(sigmas, mutant.pop("alpha", 1.0))
        return DDIM(alphas, sigmas, made.timesteps, **{"eta": 1.0} | mutant)

    check(lambda: scheduler("EulerAncestralDiscreteScheduler", 10, **config), build, [{"eta": 0.999}, {"eta": 0.0}])


class Neighbours(Ancestral):
    """A mutant: what the interval before takes from the noise."""

    def data_step(self, i: int, j: int, remembered: tuple[int, ...]) -> DataStep:
        """True to the marginal, as any share of the noise is."""
        s = super().data_step(max(i - 1, 0), max(i, 1), ()).noise
        alphas, sigmas, _ = self.knots
        s = min(s, sigmas[j])
        P = math.sqrt(sigmas[j] ** 2 - s**2) / sigmas[i]
        return DataStep(P, alphas[j] - P * alphas[i], noise=s)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_ddim_with_eta_is_diffusers_on_every_prediction(kind: str, eta: float) -> None:
    def build(made: Any, **mutant: Any) -> Solver:
        cls = mutant.pop("cls", Ancestral)
        given = {"prediction": KINDS[kind], "eta": eta} | mutant
        solver: Solver = cls(*abars(made, made.final_alpha_cumprod), **given)
        return solver

    config = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": kind} | LEADING
    other = "v" if kind == "epsilon" else "epsilon"
    check(
        lambda: scheduler("DDIMScheduler", 10, **config), build,
        [{"eta": eta * 0.999}, {"eta": 0.0}, {"cls": Neighbours}, {"prediction": other}], eta=eta,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_diffusers_on_every_prediction(kind: str, variance: str) -> None:
    def build(made: Any, **mutant: Any) -> Solver:
        return Ancestral(*abars(made, 1.0), **{"prediction": KINDS[kind], "variance": variance} | mutant)

    config = {"clip_sample": False, "variance_type": f"fixed_{variance}", "prediction_type": kind}
    check(
        lambda: scheduler("DDPMScheduler", 10, **config), build,
        [{"variance": {"small": "large", "large": "small"}[variance]}],
    )  # fmt: skip


@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_the_ancestral_steps_of_a_flow_are_diffusers(eta: float) -> None:
    """LTX's, which adds 1e-12 to what it divides by."""
    made = diffusers.LTXEulerAncestralRFScheduler(eta=eta)
    made.set_timesteps(8)
    sigmas = made.sigmas.double()

    def check_steps(solver: Solver) -> None:
        each = deepcopy(made)
        x, theirs_from, ours_from = start(), *(torch.Generator().manual_seed(1) for _ in range(2))
        with widened(each):
            for i, t in enumerate(each.timesteps):
                e, step = model(x, i), solver.step(i)
                theirs = each.step(e, t, x, generator=theirs_from).prev_sample
                z = torch.randn(x.shape, generator=ours_from, dtype=x.dtype)
                ours = step.forward(x, e, step.remainder((), z) if step.noisy else None)
                lost = 1e-12 / float(solver.alphas[i + 1]) ** 2 + 64 * EPS
                assert ((ours - theirs).abs() <= 4 * lost * (x.abs() + e.abs() + z.abs())).all(), f"step {i}"
                x = theirs

    flow = FlowEuler(sigmas, made.timesteps)
    check_steps(FlowAncestral.on(flow, eta=eta))
    for mutant in (FlowAncestral.on(flow, eta=0.999 * eta), Ancestral.on(flow, eta=eta), flow):
        with pytest.raises(AssertionError, match="step"):
            check_steps(mutant)


# Distilled models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [2, 4, 8])
def test_lcm_is_diffusers(kind: str, steps: int) -> None:
    """Its last step ends at the consistency function itself, α = 1 and σ = 0."""

    def build(made: Any, **mutant: Any) -> Solver:
        alphas, sigmas, times = abars(made, 1.0)
        return LCM(alphas, sigmas, times, **{"prediction": KINDS[kind]} | mutant)

    def make() -> Any:
        return scheduler("LCMScheduler", steps, clip_sample=False, prediction_type=kind, timestep_scaling=0.01)

    def scaled(made: Any, **mutant: Any) -> Solver:
        return build(made, **{"timestep_scaling": 0.01} | mutant)

    check(make, scaled, [{"sigma_data": 0.0}, {"timestep_scaling": 0.011}])
    plain = scheduler("LCMScheduler", steps, clip_sample=False, prediction_type=kind)  # 10, as models are trained with
    check_history(plain, build(plain), start(), generators=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_tcd_is_diffusers(kind: str, gamma: float) -> None:
    def build(made: Any, **mutant: Any) -> Solver:
        bars = made.alphas_cumprod.double()
        return TCD.from_alphas_cumprod(bars, made.timesteps, **{"gamma": gamma, "prediction": KINDS[kind]} | mutant)

    def make() -> Any:
        return scheduler("TCDScheduler", 4, clip_sample=False, prediction_type=kind)

    check(make, build, [{"gamma": 0.5}, {"gamma": 0.99 * gamma if gamma else 0.01}], eta=gamma)
    assert build(make()).step(0).noisy == (gamma > 0)  # γ = 0 is DDIM


def test_multistep_consistency_on_a_flow_is_diffusers_flow_match_lcm() -> None:
    """x_j = (1 − σ_j)·x₀ + σ_j·z: LCM without a boundary condition."""
    made = diffusers.FlowMatchLCMScheduler(shift=3.0)
    made.set_timesteps(4)
    sigmas = made.sigmas.double()
    solver = LCM(1 - sigmas, sigmas, made.timesteps, prediction="flow", sigma_data=0.0)
    x, theirs_from, ours_from = start(), *(torch.Generator().manual_seed(1) for _ in range(2))
    with widened(made):
        for i, t in enumerate(made.timesteps):
            e, step = model(x, i), solver.step(i)
            theirs = made.step(e, t, x, generator=theirs_from).prev_sample
            z = torch.randn(x.shape, generator=ours_from, dtype=x.dtype)
            ours = step.forward(x, e, step.remainder((), z) if step.noisy else None)
            assert ((ours - theirs).abs() <= 16 * EPS * (x.abs() + e.abs() + z.abs())).all(), i
            x = theirs


# Two evaluations -----------------------------------------------------------------------------------------------------


def check_halves(made: Any, solver: Solver, x: Tensor) -> None:
    """The scheduler is called 2T − 1 times; what it gives to be asked at next is the inner state, and then the next."""
    calls = iter(made.timesteps)
    with widened(made):
        for i in range(len(solver)):
            e, step, inner = model(x, 2 * i), solver.step(i), solver.inner(i, i + 1)
            theirs, y = made.step(e, next(calls), x).prev_sample, None
            bound = 64 * EPS * (1 + solver.sigmas[0]) * (x.abs() + solver.sigmas[i] * e.abs())
            if inner is not None:
                y = inner.first.forward(x, e)
                assert ((y - theirs).abs() <= bound).all(), f"first half of step {i}"
                e_2 = model(theirs, 2 * i + 1)
                bound = bound + 64 * EPS * solver.sigmas[0] * e_2.abs()
                told = next(calls)
                assert math.isclose(solver.all_times[inner.told], float(told), rel_tol=1e-6)
                theirs = made.step(e_2, told, theirs).prev_sample
                e = torch.lerp(e, e_2, inner.weight)
            assert ((step.forward(x, e) - theirs).abs() <= bound).all(), f"step {i}"
            x = theirs
    assert next(calls, None) is None


@pytest.mark.parametrize("config", [LEADING | {"steps_offset": 1}, {"use_karras_sigmas": True}], ids=str)
def test_heun_is_diffusers(config: dict[str, Any]) -> None:
    def make() -> Any:
        return scheduler("HeunDiscreteScheduler", 8, **config)

    sigmas = make().sigmas.double()
    sigmas = torch.cat([sigmas[:1], sigmas[1::2]])
    times = torch.cat([make().timesteps[:1], make().timesteps[1::2]]).double()
    grid = torch.ones_like(sigmas), sigmas, times
    check_halves(make(), Heun(*grid), start(float(sigmas[0])))
    for mutant in (DDIM(*grid), AdamsBashforth(*grid)):
        with pytest.raises((AssertionError, TypeError)):
            check_halves(make(), mutant, start(float(sigmas[0])))


@pytest.mark.parametrize("config", [LEADING | {"steps_offset": 1}, {"use_karras_sigmas": True}], ids=str)
def test_dpm2_is_diffusers_kdpm2(config: dict[str, Any]) -> None:
    """Its inner levels are the means of log σ; its last step is Euler's."""

    made = scheduler("KDPM2DiscreteScheduler", 8, **config)
    sigmas, inner = made.sigmas.double(), made.sigmas_interpol.double()[1:-4:2]
    sigmas, (times, told) = torch.cat([sigmas[:1], sigmas[1:-2:2]]), (made.timesteps[k::2].double() for k in (0, 1))
    grid = torch.ones_like(sigmas), sigmas, times
    check_halves(deepcopy(made), DPM2(*grid, torch.ones_like(inner), inner, told), start(float(sigmas[0])))
    off = inner * (1 + 1e-5)
    with pytest.raises(AssertionError, match="step"):
        check_halves(deepcopy(made), DPM2(*grid, torch.ones_like(inner), off, told), start(float(sigmas[0])))


def test_plms_is_a_step_of_heun_and_then_the_classical_fourth_order() -> None:
    """diffusers' PNDM without its Runge–Kutta steps asks at the second time twice: once to redo its first step."""
    made = scheduler("PNDMScheduler", 10, skip_prk_steps=True, steps_offset=1)
    bars = made.alphas_cumprod.double()
    times = torch.cat([made.timesteps[:1], made.timesteps[2:]])
    bars = torch.cat([bars[times], made.final_alpha_cumprod.double()[None]])
    grid = bars.sqrt(), (1 - bars).sqrt(), times
    heun, plms = Heun(*grid), AdamsBashforth(*grid, order=4, weights="uniform")
    calls = iter(made.timesteps.tolist())
    with widened(made):
        x = start()
        memory, bound = [model(x, 0)], 256 * EPS * 20
        y = made.step(memory[0], next(calls), x).prev_sample
        inner = heun.inner(0, 1)
        assert inner is not None and (inner.first.forward(x, memory[0]) - y).abs().max() <= bound
        e = model(y, 1)
        ours, x = heun.step(0).forward(x, (memory[0] + e) / 2), made.step(e, next(calls), y).prev_sample
        assert (ours - x).abs().max() <= bound
        for i in range(1, 10):
            e, step = model(x, i + 1), plms.step(i, None, range(i))
            ours = step.forward(x, e, step.remainder(memory[::-1][: len(step.memory)]))
            x = made.step(e, next(calls), x).prev_sample
            assert step.order == min(i + 1, 4) and (ours - x).abs().max() <= bound, i
            memory.append(e)
