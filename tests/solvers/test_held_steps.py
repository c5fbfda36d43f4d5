"""Steps that hold memory and noise: dual to their inverses, and true to the marginals of a pair (x₀, ε)."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.held import (
    KINDS,
    MULTISTEP,
    SOLVERS,
    STOCHASTIC,
    Case,
    amplification,
    cases,
    inner_level,
    level,
    make,
    remembers,
    says,
)
from support.steps import EPS, check_collapse, check_duality, check_round_trips
from support.tensors import assert_within, noise, seeds
from zigzag.solvers import DDIM, LCM, AdamsBashforth, AffineStep, FlowEuler, Solver, Spherical

each_name = pytest.mark.parametrize("name", SOLVERS)


def invertible(case: Case) -> AffineStep:
    """The step, unless its a is 0 but for rounding (x₀ predicted, and nothing of the state kept)."""
    assume(abs(case.step.a) > 1e-12)
    return case.step


def tensors(seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [noise(seed + k, 2, 3, 4, dtype=dtype) for k in range(5)]


def remainder(step: AffineStep, m: Tensor, z: Tensor) -> Tensor | None:
    """`r`, with multiples of `m` in the place of what is remembered."""
    return step.remainder([(k + 1) * m for k in range(len(step.memory))], z if step.noisy else None)


# Lemma 1, and what a held remainder does to it -----------------------------------------------------------------------


def check_round_trips_holding(step: AffineStep, x: Tensor, e: Tensor, down: Tensor | None, up: Tensor | None) -> None:
    """The round trips of a step that holds `down` on its way, and whose inverse holds `up`."""
    check_round_trips(lambda x, e: step.forward(x, e, down), lambda y, e: step.inverse(y, e, up), step, x, e, down)


@each_name
@settings(max_examples=12)
@given(data=st.data(), seed=seeds)
def test_lemma_1_round_trips_and_collapse_whatever_a_step_holds(name: str, data: st.DataObject, seed: int) -> None:
    """The dualities; Ψ(Φ(x, e, r), e, r) = x in every dtype; Theorems 1 and 2 of the Z² paper, from which r cancels."""
    step = invertible(data.draw(cases((name,))))
    assert all(isinstance(k, float) for k in (step.a, step.b, *step.memory))
    check_duality(step)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x, e, e_w, m, z = tensors(seed, dtype)
        r = remainder(step, m, z)
        assert (r is None) == (not step.memory and not step.noisy)
        check_round_trips_holding(step, x, e, r, r)
        if dtype == torch.float64:
            check_collapse(step.shift, step, x, e, e_w, r)


@pytest.mark.parametrize("name", [*MULTISTEP, *STOCHASTIC])
def test_the_checks_refuse_an_inverse_that_holds_something_else(name: str) -> None:
    """Mutants: nothing held, memory of another knot and fresh noise, in the inverse."""
    step, (x, e, _, m, z) = make(name).step(2, 3, (0, 1)), tensors(0)
    held = remainder(step, m, z)
    for mutant in (None, remainder(step, m.flip(0), z.flip(0))):
        with pytest.raises(AssertionError):
            check_round_trips_holding(step, x, e, held, mutant)


@pytest.mark.parametrize("name", MULTISTEP)
def test_the_checks_refuse_the_coefficient_of_another_order(name: str) -> None:
    """Mutants: c, d and b/a of the first order, in the place of those of the order that the step has."""
    solver, (x, e, e_w, m, z) = make(name), tensors(0)
    step, first = solver.step(2, 3, (0, 1)), solver.step(2, 3)
    held = remainder(step, m, z)
    check_collapse(step.shift, step, x, e, e_w, held)
    with pytest.raises(AssertionError):
        check_collapse(first.shift, step, x, e, e_w, held)
    with pytest.raises(AssertionError):
        check_round_trips(
            lambda x, e: step.forward(x, e, held), lambda y, e: first.inverse(y, e, held), step, x, e, held
        )


# True pairs ----------------------------------------------------------------------------------------------------------


class Landing(NamedTuple):
    """Where a step from `α_i·x₀ + σ_i·ε` leads: coefficients on `(x₀, ε)`, and on the noise; a bound on rounding."""

    pair: Tensor
    noise: float
    bound: Tensor


def landing(case: Case, step: AffineStep | None = None) -> Landing:
    """By algebra of coefficients: the predictions are the true ones at every state, and so is all that is remembered.

    Bound: 16 roundings of the terms. What cancels within the coefficients is counted by its own size: `α_j/α_i` of
    the solvers in noise form, and what interpolation magnifies.
    """
    kind, solver, i, j = case.kind, case.solver, case.i, case.j
    step = step or case.step
    x, m = level(solver, i), remembers(solver)
    parts = [step.a * x, *(k * m for k in step.memory)]
    inner = solver.inner(i, j)
    if inner is None:
        parts.append(step.b * says(kind, *x.tolist()))
    else:
        y, at = torch.tensor(inner_level(solver, i, j), dtype=torch.float64), says(kind, *x.tolist())
        first = inner.first.a * x, inner.first.b * at
        assert_within(sum(first), y, 16 * EPS * sum(p.abs().sum() for p in first))
        parts += [step.b * (1 - inner.weight) * at, step.b * inner.weight * says(kind, *y.tolist())]
    size = sum(part.abs().sum() for part in parts)
    if isinstance(solver, AdamsBashforth) or inner is not None:
        size = size + (step.a * x).abs().sum() + amplification(case) * solver.alphas[j]
    return Landing(sum(parts), step.noise, 16 * EPS * size)


def check_marginal(case: Case, step: AffineStep | None = None) -> None:
    """The state at `j` is `α_j·x₀ + σ_j·ε`; with noise the two parts of variance are `σ_j²` in all."""
    (x0, eps), s, bound = landing(case, step)
    alpha, sigma = level(case.solver, case.j)
    assert_within(x0, alpha, bound)
    if not s:
        assert_within(eps, sigma, bound)
    else:
        assert eps >= -bound
        assert_within(eps**2 + s**2, sigma**2, 2 * bound * (eps.abs() + s + bound))


OFF = ("DDPM, large", "ancestral, large", "LCM")
CONSISTENT = [name for name in SOLVERS if name not in OFF]


@pytest.mark.parametrize("name", CONSISTENT)
@settings(max_examples=15)
@given(data=st.data())
def test_a_step_on_a_true_pair_lands_on_its_marginal(name: str, data: st.DataObject) -> None:
    check_marginal(data.draw(cases((name,))))


@pytest.mark.parametrize("name", CONSISTENT)
def test_the_marginal_check_refuses_coefficients_that_are_off(name: str) -> None:
    """Mutants: a, b, memory or noise off by a millionth, and a memory that is read in another order."""
    solver = make(name)
    case = Case(name, solver.prediction, solver, 2, 3, (0, 1))
    step, k = case.step, 1 + 1e-6
    check_marginal(case)
    mutants = [replace(step, a=step.a * k), replace(step, b=step.b * k)]
    mutants += [replace(step, memory=(step.memory[0] * k, *step.memory[1:]))] if step.memory else []
    mutants += [replace(step, noise=step.noise * k)] if step.noisy else []
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check_marginal(case, mutant)


def test_some_leave_the_marginals_on_purpose() -> None:
    """DDPM's large variance is that of the step up, β: more than the marginal takes. LCM has its boundary condition."""
    for name in OFF:
        solver = make(name)
        with pytest.raises(AssertionError):
            check_marginal(Case(name, "epsilon", solver, 2, 3, ()))
    large, small = make("DDPM, large"), make("DDPM")
    for i in range(len(large) - 1):
        assert large.step(i).noise == pytest.approx(large.noise_step(i + 1, i).b, rel=8 * EPS)
        ratio = float(large.sigmas[i + 1] / large.sigmas[i])  # β̃ = β·σ_j²/σ_i²
        assert small.step(i).noise == pytest.approx(large.step(i).noise * ratio, rel=64 * EPS)


@pytest.mark.parametrize("name", [*MULTISTEP, "SDE-2M", "SDE-3M"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_remembered_of_a_true_pair_is_its_data_or_its_noise(name: str, kind: str) -> None:
    """`remember(i, x, e)`: x₀ of the solvers in data form, ε of those in noise form, whatever is predicted."""
    solver = make(name, "trailing", kind=kind)
    x0, eps = noise(0, 2, 5), noise(1, 2, 5)
    for i in range(len(solver)):
        x, e = (k[0] * x0 + k[1] * eps for k in (level(solver, i), says(kind, *level(solver, i).tolist())))
        m = remembers(solver)
        p = 1 / min(float(solver.alphas[i]), float(solver.sigmas[i]))
        assert_within(solver.remember(i, x, e), m[0] * x0 + m[1] * eps, 8 * EPS * (1 + p) * (x0.abs() + eps.abs()))


@pytest.mark.parametrize(
    "grid",
    [DDIM.stable_diffusion(8), DDIM.karras(8), FlowEuler.uniform(8), Spherical.cosine(8)],
    ids=lambda grid: f"{type(grid).__name__} {grid.times[0]:.3g}",
)
def test_a_consistency_step_keeps_the_size_of_the_data(grid: Solver) -> None:
    """Where the prediction is true: `P·α_i + Q = α_j`. What suits training steps does not suit other times."""
    alphas, _, times = grid.knots

    def sizes(solver: LCM) -> list[float]:
        steps = [solver.data_step(i, i + 1, ()) for i in range(len(grid))]
        return [(step.P * alphas[i] + step.Q) / alphas[i + 1] for i, step in enumerate(steps)]

    assert sizes(LCM.on(grid)) == pytest.approx([1.0] * len(grid), abs=2e-3)
    scaled = sizes(LCM.on(grid, sigma_data=0.5))
    assert (max(scaled) > 1.01) == (max(times) < 100)
