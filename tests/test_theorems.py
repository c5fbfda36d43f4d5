"""The theorems behind the methods, on steps, on trajectories, and across parametrisations of one model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zigzag import (
    DDIM,
    AffineStep,
    FlowEuler,
    ImplicitZ,
    Spherical,
    Standard,
    Z2Sampling,
    ZSampling,
    sample,
    walk,
)
from zigzag.moves import Denoise, Shift
from zigzag.zoo import GaussianMixture

T, B = 6, 2
EPS = torch.finfo(torch.float64).eps
SOLVERS = {
    "ddim": DDIM.stable_diffusion(T),
    "karras": DDIM.karras(T, sigma_max=5.0),
    "flow": FlowEuler.uniform(T, shift=3.0),
    "spherical": Spherical([1.5, 1.3, 1.0, 0.6, 0.3, 0.1, 0.0]),
}
each_solver = pytest.mark.parametrize("name", list(SOLVERS))
knots = st.integers(0, T - 1).flatmap(lambda i: st.tuples(st.just(i), st.integers(i + 1, T)))


def size(*xs: torch.Tensor | float) -> float:
    """The sum of the largest magnitudes."""
    return sum(float(x.abs().max()) if isinstance(x, torch.Tensor) else abs(x) for x in xs)


def tensors(seed: int, n: int = 3) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.randint(-2, 3, (n,), generator=rng).double()
    return [scale[k] * torch.randn(B, 5, generator=rng, dtype=torch.float64) for k in range(n)]


# On one step --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A step whose way back is not its way forth."""

    a: float
    b: float
    c: float
    d: float

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return self.a * x + self.b * e

    def inverse(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return self.c * x + self.d * e

    def shift(self, x: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        return x - self.d * gap


def mutants(name: str) -> dict[str, Mutant]:
    solver = SOLVERS[name]
    step, after = solver.step(1), solver.step(2)
    made = {
        "the neighbouring interval": Mutant(step.a, step.b, after.c, after.d),
        "a shift the other way": Mutant(step.a, step.b, step.c, -step.d),
        "an inverse that forgets e": Mutant(step.a, step.b, step.c, 0.0),
    }
    if name == "spherical":
        made["swapped indices"] = Mutant(step.a, step.b, step.a, -step.b)
    return made


def check_identity(step: AffineStep | Mutant, x: torch.Tensor, e: torch.Tensor) -> None:
    """Psi(Phi(x, e), e) = x: with equal guidance and a reused prediction a zigzag goes nowhere."""
    y = step.forward(x, e)
    bound = 4 * EPS * (size(y) * abs(step.c) + size(e) * abs(step.d) + size(x) + abs(step.b / step.a) * size(e))
    assert size(step.inverse(y, e) - x) <= bound


def check_collapse(step: AffineStep | Mutant, x: torch.Tensor, e_s: torch.Tensor, e_w: torch.Tensor) -> None:
    """Z2 paper, Theorem 1: Psi(Phi(x, e_s), e_w) = x + (b/a)(e_s - e_w), e_w predicted at the anchor."""
    zigzag = step.inverse(step.forward(x, e_s), e_w)
    bound = 8 * EPS * (size(x) + abs(step.b / step.a) * size(e_s, e_w))
    assert size(zigzag - step.shift(x, e_s - e_w)) <= bound


def check_theorem_2(step: AffineStep | Mutant, x: torch.Tensor, e: torch.Tensor, gap: torch.Tensor) -> None:
    """Z2 paper, Theorem 2: Phi(x + (b/a) gap, e) = Phi(x, e + gap)."""
    bound = 8 * EPS * (abs(step.a) * size(x) + abs(step.b) * size(e, gap))
    assert size(step.forward(step.shift(x, gap), e) - step.forward(x, e + gap)) <= bound


@each_solver
@given(ij=knots, seed=st.integers(0, 10**6))
def test_equal_guidance_and_a_reused_prediction_is_the_identity(name: str, ij: tuple[int, int], seed: int) -> None:
    x, e, _ = tensors(seed)
    check_identity(SOLVERS[name].step(*ij), x, e)


@each_solver
@given(ij=knots, seed=st.integers(0, 10**6))
def test_a_zigzag_that_reuses_the_weak_prediction_is_a_shift(name: str, ij: tuple[int, int], seed: int) -> None:
    check_collapse(SOLVERS[name].step(*ij), *tensors(seed))


@each_solver
@given(ij=knots, seed=st.integers(0, 10**6))
def test_denoising_after_a_shift_adds_the_gap_to_the_prediction(name: str, ij: tuple[int, int], seed: int) -> None:
    check_theorem_2(SOLVERS[name].step(*ij), *tensors(seed))


@each_solver
def test_the_checks_on_a_step_fail_on_mutants(name: str) -> None:
    step, (x, e_s, e_w) = SOLVERS[name].step(1), tensors(0)
    good = Mutant(step.a, step.b, step.c, step.d)
    check_identity(good, x, e_s)
    check_collapse(good, x, e_s, e_w)
    check_theorem_2(good, x, e_s, e_w)
    for mutant in mutants(name).values():
        with pytest.raises(AssertionError):
            check_identity(mutant, x, e_s)
        with pytest.raises(AssertionError):
            check_theorem_2(mutant, x, e_s, e_w)
        with pytest.raises(AssertionError):
            check_collapse(Mutant(step.a, step.b, step.c, mutant.d), x, e_s, e_w)
        if mutant.c != step.c:
            with pytest.raises(AssertionError):
                check_collapse(Mutant(step.a, step.b, mutant.c, step.d), x, e_s, e_w)


# On trajectories ----------------------------------------------------------------------------------

X = torch.linspace(-1.2, 1.2, 6, dtype=torch.float64).reshape(B, 3)
COND, UNCOND = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.1, 0.4]).double()
LIP = 0.3


def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The gap depends on the state."""
    return LIP * torch.sin(x + cond[:, None]) + 0.1 * torch.cos(t.to(x.dtype))[:, None]


def constant_gap(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """The prediction depends on state and time, the gap e_c - e_u on neither."""
    return LIP * torch.sin(x) + 0.1 * torch.cos(t.to(x.dtype))[:, None] + cond[:, None]


class Reused:
    """A predictor that answers every question about a time and a condition as it answered the first one."""

    def __init__(self) -> None:
        self.known: dict[tuple[float, float], torch.Tensor] = {}

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return self.known.setdefault((float(t[0]), float(cond[0])), field(x, t, cond))


def end(fn: Callable[..., torch.Tensor], name: str, method: object, **scales: float) -> torch.Tensor:
    return sample(fn, X, SOLVERS[name], method, cond=COND, uncond=UNCOND, batched=False, **scales)


def rounding(name: str, moves: int, s: float, w: float) -> float:
    """32 units a move of the largest state, amplified by prod(|a| + 2 |b| (Lip(e_s) + Lip(e_w)))."""
    steps = [SOLVERS[name].step(i) for i in range(T)]
    spread = LIP * (abs(s) + abs(1 - s) + abs(w) + abs(1 - w))
    growth = math.prod(max(1.0, p.a + abs(p.b) * spread * 2 + 1e-3) for p in steps)
    state = 1.2 + sum(abs(p.b) for p in steps) * (abs(s) + abs(w) + 2)
    return 32 * EPS * moves * growth * state


def check_same(one: torch.Tensor, two: torch.Tensor, bound: float) -> None:
    assert size(one - two) <= bound


@each_solver
@pytest.mark.parametrize(("s", "w"), [(5.5, 0.0), (3.0, 1.0), (2.0, 0.5)])
def test_the_explicit_zigzag_with_a_reused_prediction_is_implicit_z(name: str, s: float, w: float) -> None:
    """Phi Psi Phi with the predictions of the anchor is Shift Phi, all the way; without reuse it is not."""
    bound = rounding(name, 3 * T, s, w)
    shifted = end(Reused(), name, ImplicitZ(steps=T - 1), strong=s, weak=w)
    check_same(end(Reused(), name, ZSampling(), strong=s, weak=w), shifted, bound)
    for mutant in [
        end(field, name, ZSampling(), strong=s, weak=w),
        end(Reused(), name, ZSampling(released=True), strong=s, weak=w),
        end(Reused(), name, Standard(), strong=s, weak=w),
        end(Reused(), name, ZSampling(), strong=s + 1, weak=w),
    ]:
        with pytest.raises(AssertionError):
            check_same(mutant, shifted, bound)


@each_solver
@pytest.mark.parametrize("warmup", range(T))
def test_z2_is_implicit_z_where_the_gap_is_constant(name: str, warmup: int) -> None:
    """Z2Sampling(warmup) = ImplicitZ(start=max(1, warmup)): a cached gap is as good as a fresh one."""
    s, w = 3.0, 0.5
    bound = rounding(name, 2 * T, s, w)
    implicit = end(constant_gap, name, ImplicitZ(start=max(1, warmup)), strong=s, weak=w)
    check_same(end(constant_gap, name, Z2Sampling(warmup=warmup), strong=s, weak=w), implicit, bound)
    broken = [
        Standard(),
        Z2Sampling(warmup=max(1, warmup) - 1 if warmup > 1 else 2),
        ImplicitZ(start=max(1, warmup) - 1),
    ]
    for mutant in broken:
        with pytest.raises(AssertionError):
            check_same(end(constant_gap, name, mutant, strong=s, weak=w), implicit, bound)
    if warmup < T - 1:
        with pytest.raises(AssertionError):
            one, two = (
                end(field, name, method, strong=s, weak=w)
                for method in (Z2Sampling(warmup=warmup), ImplicitZ(start=max(1, warmup)))
            )
            check_same(one, two, bound)


@each_solver
@pytest.mark.parametrize("method", [ImplicitZ(), Z2Sampling(warmup=1), Z2Sampling(warmup=3)], ids=lambda m: str(m))
def test_a_shift_by_no_gap_moves_nothing(name: str, method: object) -> None:
    """strong = weak: x + (b/a) 0 = x to the bit, so that ImplicitZ and Z2 are Standard."""
    plain = end(field, name, Standard(), strong=3.0)
    assert torch.equal(end(field, name, method, strong=3.0, weak=3.0), plain)
    assert not torch.allclose(end(field, name, method, strong=3.0, weak=2.9), plain)


# Across parametrisations (trap 3) -----------------------------------------------------------------

MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.5]], dtype=torch.float64),
    0.5,
    labels=torch.tensor([0, 1, 1]),
)
NOISE = torch.tensor([[0.3, -1.1], [-0.8, 0.6]], dtype=torch.float64)
LABELS, NULL = torch.tensor([0, 1]), torch.tensor([-1, -1])
ANGLES = torch.linspace(1.5, 0.0, T + 1, dtype=torch.float64) ** 1.2 / 1.5**0.2
SIGMAS = torch.tensor([0.97, 0.85, 0.66, 0.45, 0.25, 0.1, 0.0], dtype=torch.float64)
PAIRS = {
    "spherical": (Spherical(ANGLES), DDIM(torch.cos(ANGLES), torch.sin(ANGLES), ANGLES[:-1])),
    "flow": (FlowEuler(SIGMAS), DDIM(1 - SIGMAS, SIGMAS, SIGMAS[:-1])),
}


def draw(solver: object, method: object, **scales: float) -> torch.Tensor:
    return sample(MIXTURE.predictor(solver), NOISE, solver, method, cond=LABELS, uncond=NULL, **scales)


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
    args = {"cond": LABELS, "uncond": NULL, "strong": 3.0, "weak": 0.0}
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
    with pytest.raises(AssertionError):
        check_same(x, y, 10 * T * EPS * (size(x) + size(NOISE)) / float(two.alphas[0]))
