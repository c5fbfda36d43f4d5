"""A zigzag on a constant field is plain guidance at a larger scale (docs/mathematics.md, "Fair comparison")."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zigzag import (
    CFG,
    DDIM,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Resampling,
    Spherical,
    Standard,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
)

T, B = 6, 2
EPS = torch.finfo(torch.float64).eps
SOLVERS = {
    "ddim": DDIM.stable_diffusion(T),
    "karras": DDIM.karras(T, sigma_max=10.0),
    "flow": FlowEuler.uniform(T, shift=3.0),
    "spherical": Spherical.cosine(T),
}
each_solver = pytest.mark.parametrize("name", list(SOLVERS))
X = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(B, 3)
COND, UNCOND = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.1, 0.4]).double()


def constant(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """e(x, t, c) = c: knows neither the state nor the time."""
    return cond[:, None].expand_as(x)


def active(method: object, i: int) -> bool:
    """Whether the method zigzags at step i, from the table of docs/mathematics.md."""
    if isinstance(method, EndToEnd):
        return i == 0
    if isinstance(method, ZSampling):
        return i < (T - 1 if method.steps is None else method.steps)
    if isinstance(method, ImplicitZ):
        return method.start <= i < (T if method.steps is None else method.steps)
    if isinstance(method, Z2Sampling):
        return max(1, method.warmup) <= i < (T if method.steps is None else method.steps)
    return False


def span_factor(name: str, i: int, k: int) -> float:
    """(a_i / b_i) sum_{m=i}^{i+k-1} b_m / prod_{l=i}^{m} a_l, clipped at the end of the grid."""
    solver = SOLVERS[name]
    al, si = solver.alphas.tolist(), solver.sigmas.tolist()

    def coefficients(m: int) -> tuple[float, float]:
        if name == "flow":
            return 1.0, si[m + 1] - si[m]
        if name == "spherical":
            delta = math.atan2(si[m], al[m]) - math.atan2(si[m + 1], al[m + 1])
            return math.cos(delta), -math.sin(delta)
        return al[m + 1] / al[m], si[m + 1] - al[m + 1] / al[m] * si[m]

    total, product = 0.0, 1.0
    for m in range(i, min(i + k, T)):
        a, b = coefficients(m)
        product *= a
        total += b / product
    a, b = coefficients(i)
    return a / b * total


def closed(method: object, name: str, i: int, s: float, w: float) -> float:
    """w'_i = s + rounds (s - w) factor_i at an active step, s elsewhere."""
    if not active(method, i):
        return s
    span = T if isinstance(method, EndToEnd) else getattr(method, "span", 1)
    return s + getattr(method, "rounds", 1) * (s - w) * span_factor(name, i, span)


METHODS = [
    Standard(),
    Resampling(),
    EndToEnd(),
    EndToEnd(refine=2),
    ZSampling(),
    ZSampling(steps=3, rounds=2),
    ZSampling(steps=T, refine=1),
    ZSampling(span=2),
    ZSampling(steps=4, rounds=3, span=4),
    ZSampling(steps=T, span=T),
    ImplicitZ(),
    ImplicitZ(start=2, steps=4),
    Z2Sampling(warmup=0),
    Z2Sampling(warmup=2),
    Z2Sampling(warmup=1, steps=4),
]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: str(m))
SCALES = [(5.5, 0.0), (2.0, 1.0), (3.0, -0.5), (1.5, 3.0)]
each_scale = pytest.mark.parametrize(("strong", "weak"), SCALES)


def bound(name: str, i: int, scale: float) -> float:
    """w' = (x_j - a_i x_i) / b_i: the rounding of states as large as sigma_max w', over b_i."""
    solver = SOLVERS[name]
    lost = math.prod(1 / solver.step(k).a for k in range(T)) if name == "spherical" else 1.0
    b = abs(solver.step(i).b)
    return 32 * T * EPS * (1 + abs(scale)) * lost * (1 + float(solver.sigmas.max())) / min(b, 1.0)


def check_formula(plain: CFG, method: object, name: str, s: float, w: float) -> None:
    for i in range(T):
        want, got = closed(method, name, i, s, w), plain.at(SOLVERS[name].info(i))
        assert abs(got - want) <= bound(name, i, want), i


@each_solver
@each_method
@each_scale
def test_the_matched_scale_is_the_closed_formula(method: object, name: str, strong: float, weak: float) -> None:
    check_formula(matched_cfg(method, SOLVERS[name], strong, weak), method, name, strong, weak)


@each_solver
def test_the_formula_check_fails_on_mutants(name: str) -> None:
    """gamma for w, no zigzag, span 1 for span 2, an off-by-one warmup, all steps for all but the last."""
    solver = SOLVERS[name]
    mutants = [
        (CFG.from_gamma(11.0), ZSampling(steps=T)),
        (CFG(5.5), ZSampling()),
        (matched_cfg(ZSampling(), solver), ZSampling(span=2)),
        (matched_cfg(Z2Sampling(warmup=3), solver), Z2Sampling(warmup=2)),
        (matched_cfg(ZSampling(steps=T), solver), ZSampling()),
    ]
    for plain, method in mutants:
        with pytest.raises(AssertionError):
            check_formula(plain, method, name, 5.5, 0.0)


def test_span_one_is_the_formula_everybody_quotes() -> None:
    """w' = s + rounds (s - w): (5.5, 0) becomes 11, twice 16.5."""
    for name, solver in SOLVERS.items():
        assert span_factor(name, 0, 1) == pytest.approx(1, rel=4 * EPS)
        assert matched_cfg(ZSampling(), solver).at(solver.info(0)) == pytest.approx(11, abs=bound(name, 0, 11))
        assert matched_cfg(ZSampling(rounds=2), solver).at(solver.info(0)) == pytest.approx(
            16.5, abs=bound(name, 0, 16.5)
        )
    flow = FlowEuler.uniform(T)
    assert matched_cfg(ZSampling(span=3), flow).at(flow.info(0)) == pytest.approx(22.0, rel=64 * EPS)


@each_solver
@pytest.mark.parametrize("strong", [5.5, 1.0, 0.0])
def test_the_matched_scale_of_an_inactive_step_is_the_strong_one_itself(name: str, strong: float) -> None:
    """w'_i = s, exactly: with s = 1 (one branch) anything else would cost a second row."""
    for method in METHODS:
        plain = matched_cfg(method, SOLVERS[name], strong, 0.5)
        for step in (SOLVERS[name].info(i) for i in range(T) if not active(method, i)):
            assert plain.at(step) == strong, (method, step.i)
            assert plain.branches(step) == CFG(strong).branches(step)


def budget(name: str, method: object, scale: float) -> float:
    """Rounding: 32 units a move of the largest state on the way, carried on by the product of the a's."""
    solver = SOLVERS[name]
    al, si = solver.alphas.tolist(), solver.sigmas.tolist()
    growth = max(1.0, max(al[m] / al[i] if al[i] > EPS and name != "flow" and name != "spherical" else 1.0
                          for i in range(T) for m in range(i, T + 1)))  # fmt: skip
    shrink = 1.0
    if name == "spherical":
        shrink = math.prod(1 / solver.step(i).a for i in range(T))
    return 32 * EPS * len(method.path(T)) * growth**2 * shrink**2 * (1 + max(si)) * (1 + scale)


def check_same_end(method: object, plain: object, name: str, strong: float, weak: float) -> None:
    """x_0 by the zigzag = x_0 by plain guidance at the matched scale, on the constant field."""
    solver = SOLVERS[name]
    args = {"cond": COND, "uncond": UNCOND}
    zigzag = sample(constant, X, solver, method, strong=strong, weak=weak, **args)
    straight = sample(constant, X, solver, Standard(), strong=plain, **args)
    largest = max(abs(closed(method, name, i, strong, weak)) for i in range(T))
    assert float((zigzag - straight).abs().max()) <= budget(name, method, largest)


DETERMINISTIC = [m for m in METHODS if not isinstance(m, Resampling)]


@each_solver
@pytest.mark.parametrize("method", DETERMINISTIC, ids=lambda m: str(m))
@each_scale
def test_a_constant_field_cannot_tell_a_zigzag_from_plain_guidance(
    method: object, name: str, strong: float, weak: float
) -> None:
    def formula(step: object) -> float:
        return closed(method, name, step.i, strong, weak)

    check_same_end(method, CFG(formula), name, strong, weak)
    check_same_end(method, matched_cfg(method, SOLVERS[name], strong, weak), name, strong, weak)
    if not isinstance(method, Standard):
        for mutant in (CFG(strong), CFG(lambda step: formula(step) + 1e-9)):
            with pytest.raises(AssertionError):
                check_same_end(method, mutant, name, strong, weak)


@each_solver
@given(
    steps=st.integers(0, T), rounds=st.integers(1, 3), span=st.integers(1, T + 1),
    strong=st.floats(-2, 8), weak=st.floats(-2, 3),
)  # fmt: skip
def test_every_zigzag_has_its_matched_scale(
    name: str, steps: int, rounds: int, span: int, strong: float, weak: float
) -> None:
    """Any steps, rounds, span (clipped at the end of the grid) and scales."""
    method = ZSampling(steps=steps, rounds=rounds, span=span)
    check_same_end(method, matched_cfg(method, SOLVERS[name], strong, weak), name, strong, weak)
