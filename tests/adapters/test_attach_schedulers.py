"""`attach` on every scheduler of diffusers, against copies of the real scheduler that are stepped with its history."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from zigzag import ImplicitZ, Resampling, ZSampling

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, solver_from_scheduler = adapters.attach, adapters.solver_from_scheduler

import real_steps  # noqa: E402
from real_schedulers import METHODS, REAL, WANTED, Real, distance, noise, runs, walks  # noqa: E402

# numpy's, of diffusers; and of UniPC's corrector, which has a test of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]


@pytest.mark.parametrize("name", REAL)
def test_zigzags_are_those_of_the_real_scheduler(name: str) -> None:
    """Every method and batch: `x + (b/a)·(e_s − e_w)` and the explicit inverse, with history and noise held."""
    for batch, (kind, method) in itertools.product((1, 2), METHODS.items()):
        x = noise(batch)
        ours, theirs = runs(REAL[name], x, method), walks(REAL[name], x, method)
        assert distance(ours, theirs) <= WANTED, (kind, batch)


def check_fails(case: Real, method: Any, **options: Any) -> None:
    with pytest.raises(AssertionError):
        assert distance(runs(case, noise(2), method), walks(case, noise(2), method, **options)) <= WANTED


def test_the_check_fails_on_a_corrector_left_on() -> None:
    """Its b/a would take all of the noise out of the state."""
    for name in ("unipc", "sa"):
        check_fails(dataclasses.replace(REAL[name], prepare=lambda scheduler, k: None), ImplicitZ(steps=3))


def test_the_check_fails_where_history_is_not_restored_on_the_way_up(monkeypatch: pytest.MonkeyPatch) -> None:
    leap = real_steps.Walk.leap

    def mutant(self: Any, i: int, *args: Any) -> Any:
        self.stands[i] = self.stands[max(self.stands)] if max(self.stands) == i + 1 else self.stands[i]
        if hasattr(self.stands[i].scheduler, "_step_index"):
            self.stands[i].scheduler._step_index = i
        return leap(self, i, *args)

    monkeypatch.setattr(real_steps.Walk, "leap", mutant)
    for name in ("dpm 2m", "deis", "lms"):
        check_fails(REAL[name], ZSampling())


def test_the_check_fails_on_noise_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    held = pytest.importorskip("zigzag.held")
    remainder = held.Held.remainder

    def mutant(self: Any, step: Any, x: Tensor) -> Any:
        return remainder(self, step._replace(draws=step.interval is not None), x)

    monkeypatch.setattr(held.Held, "remainder", mutant)
    for name in ("ddpm", "euler ancestral", "sde dpm 2m", "flow stochastic"):
        check_fails(REAL[name], ZSampling())


def sigma_levels(scheduler: Any) -> Callable[[int], tuple[float, float]]:
    return lambda i: (1.0, float(scheduler.sigmas[i]))


def cos_levels(scheduler: Any) -> Callable[[int], tuple[float, float]]:
    table = [*scheduler.alphas_cumprod.double()[scheduler.timesteps.long()].tolist(), 1.0]
    return lambda i: (table[i] ** 0.5, (1 - table[i]) ** 0.5)


def solver_levels(case: Real, scheduler: Any) -> Callable[[int], tuple[float, float]]:
    solver = solver_from_scheduler(scheduler, step_kwargs=case.extra)
    return lambda i: (float(solver.alphas[i]), float(solver.sigmas[i]))


# Of these the levels are found by hand; of the others they are the solver's.
BY_HAND = {
    "ddim": cos_levels,
    "ddim eta": cos_levels,
    "ddpm": cos_levels,
    "euler": sigma_levels,
    "euler ancestral": sigma_levels,
    "dpm 2m": cos_levels,
    "lcm": cos_levels,
}


@pytest.mark.parametrize("name", REAL)
def test_resampling_renoises_to_the_knots_and_begins_anew_there(name: str) -> None:
    """From the generator that the pipeline passes; below the knot memory and noise are forgotten.

    Of SA-Solver with noise in every step: what it draws where it adds none, is drawn when noise is next asked for.
    """
    case, method, x = REAL[name], Resampling(steps=2, rounds=2), noise(2)
    if name == "sa":
        case = dataclasses.replace(case, config={**case.config, "tau_func": lambda t: 1.0})
    scheduler = case.make()
    scheduler.set_timesteps(case.steps, **case.grid)
    levels = BY_HAND[name](scheduler) if name in BY_HAND else solver_levels(case, scheduler)
    assert distance(runs(case, x, method), walks(case, x, method, levels=levels)) <= WANTED
