"""What multistep solvers weigh their predictions by: the integral of the polynomial through them, by quadrature."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from support.held import PRESETS
from support.steps import EPS
from zigzag.solvers import DDIM, AdamsBashforth, DPMSolver, FlowEuler, Solver

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(40)
GRIDS: dict[str, Callable[[int], Solver]] = {
    "vp": PRESETS["trailing"],
    "karras": PRESETS["karras"],
    "flow": PRESETS["flow"],
}
each_grid = pytest.mark.parametrize("grid", GRIDS)


def integral(f: Callable[[np.ndarray], np.ndarray], start: float, end: float) -> float:
    """Gauss–Legendre at 40 points: exact to rounding for what is smooth over the interval."""
    middle, half = (start + end) / 2, (end - start) / 2
    return float(half * (WEIGHTS * f(middle + half * POINTS)).sum())


def cardinal(nodes: list[float], n: int) -> Callable[[np.ndarray], np.ndarray]:
    """The polynomial that is 1 at node n and 0 at the others."""
    others = [u for m, u in enumerate(nodes) if m != n]
    return lambda u: np.prod([(u - v) / (nodes[n] - v) for v in others], axis=0) if others else np.ones_like(u)


def check(got: list[float], want: list[float], nodes: list[float], end: float) -> None:
    """Rounding: differences of nodes, and the interval, lose digits as they are near, once for each of the others."""
    near = min(abs(u - v) / (abs(u) + abs(v)) for u in nodes for v in (*nodes, end) if u != v)
    lost = max(1.0, max(abs(end - u) for u in nodes) / abs(end - nodes[0])) ** (len(nodes) - 1)
    scale = sum(map(abs, want))
    for g, w in zip(got, want, strict=True):
        assert abs(g - w) <= 64 * EPS * len(nodes) * lost * scale / near, (g, w)


def check_noise_form(solver: AdamsBashforth, i: int, order: int, form: str) -> None:
    """x_j/α_j = x_i/α_i + Σ w_n·ε_n, w_n = ∫ ℓ_n dk from k_i to k_j: in k, or in u = log k with dk = e^u du."""
    step, alphas = solver.step(i, i + 1, range(i)), solver.alphas.tolist()
    k = (solver.sigmas / solver.alphas).tolist()
    nodes = [k[i - n] for n in range(order)]
    got = [w / alphas[i + 1] for w in (step.b, *step.memory)]
    if form == "lagrange":
        want = [integral(cardinal(nodes, n), k[i], k[i + 1]) for n in range(order)]
        check(got, want, nodes, k[i + 1])
        return
    us, end = [math.log(v) for v in nodes], math.log(k[i + 1])
    want = [integral(lambda u, n=n: cardinal(us, n)(u) * np.exp(u), us[0], end) for n in range(order)]
    check(got, want, us, end)


def noise_form(grid: str, T: int, order: int, form: str) -> AdamsBashforth:
    base = GRIDS[grid](T)  # on ε: a is α_j/α_i, and b the weight of the newest prediction itself
    return AdamsBashforth(base.alphas, base.sigmas, base.times, order=order, weights=form)


@each_grid
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("form", ["exponential", "lagrange"])
@pytest.mark.parametrize("T", [10, 1000])
def test_noise_form_integrates_the_polynomial_through_its_predictions(grid: str, order: int, form: str, T: int) -> None:
    solver = noise_form(grid, T, order, form)
    for i in range(order + 1, T - 1, max(1, T // 7)):  # the last knot has log k = −∞ on two of the grids
        if order == 1 and form == "exponential":
            assert solver.step(i, None, range(i)) == solver.step(i)
        check_noise_form(solver, i, order, form)
    if order > 1:  # mutants: the other variable, and another order
        other = {"exponential": "lagrange", "lagrange": "exponential"}[form]
        for mutant in (noise_form(grid, T, order, other), noise_form(grid, T, order, "uniform")):
            with pytest.raises((AssertionError, ValueError)):
                check_noise_form(mutant, order + 1, order, form)


def test_the_last_weights_of_deis_reach_clean_data() -> None:
    """∫_0^1 (log k)^p dk = (−1)^p·p!, on k from 1 down to 0: for order 2 from k = e to 1, w_1 = ∫_1^0 log k dk = 1."""
    k = torch.tensor([math.e, 1.0, 0.0], dtype=torch.float64)
    step = AdamsBashforth(torch.ones(3), k, [1.0, 0.0]).step(1, 2, (0,))
    assert step.memory[0] == pytest.approx(1, rel=16 * EPS)  # ℓ_1 = log k
    assert step.b == pytest.approx(-2, rel=16 * EPS)  # ℓ_0 = 1 − log k


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_evenly_spaced_knots_have_the_classical_coefficients(order: int) -> None:
    """Adams–Bashforth, by exact integration of the Lagrange polynomials on 0, −1, −2, −3 from 0 to 1."""
    sigmas = torch.arange(7, -1, -1, dtype=torch.float64)
    for form in ("uniform", "lagrange"):
        solver = AdamsBashforth(torch.ones(8), sigmas, sigmas[:-1], order=order, weights=form)
        step = solver.step(5, 6, range(5))
        for n, got in enumerate((step.b, *step.memory)):
            poly = [Fraction(1)]
            for m in range(order):
                if m != n:
                    shifted, kept = [Fraction(0), *poly], [*(c * m for c in poly), Fraction(0)]
                    poly = [(s + k) / (m - n) for s, k in zip(shifted, kept, strict=True)]
            want = -sum(c / (p + 1) for p, c in enumerate(poly))  # k falls by 1
            assert got == pytest.approx(float(want), rel=64 * EPS)


def check_data_form(solver: DPMSolver, i: int, order: int, sde: bool) -> None:
    """x_j = … + α_j·Σ w_n·m_n, w_n = ∫ g·e^{−g(λ_j − λ)}·ℓ_n(λ) dλ from λ_i to λ_j, g = 1, or 2 for the SDE."""
    step, alphas, g = solver.step(i, i + 1, range(i)), solver.alphas.tolist(), 2 if sde else 1
    lam = (solver.alphas / solver.sigmas).log().tolist()
    nodes, end = [lam[i - n] for n in range(order)], lam[i + 1]
    want = [
        integral(lambda u, n=n: g * np.exp(-g * (end - u)) * cardinal(nodes, n)(u), nodes[0], end) for n in range(order)
    ]
    got = [w / alphas[i + 1] for w in (step.b, *step.memory)]
    h = end - nodes[0]
    for one, two in zip(got, want, strict=True):  # (e^{−h} − 1 + h)/h² is rounded at 1/h²
        assert abs(one - two) <= 64 * EPS * (1 + 1 / h**2) * sum(map(abs, want)) * 4, (one, two)


def data_form(grid: str, T: int, order: int, sde: bool, **more: object) -> DPMSolver:
    base = GRIDS[grid](T)  # on x₀: b is the weight of the newest prediction itself
    options = {"order": order, "sde": sde, "form": "heun", "lower_order_final": False} | more
    return DPMSolver(base.alphas, base.sigmas, base.times, prediction="x0", **options)


@each_grid
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sde", [False, True], ids=["ode", "sde"])
@pytest.mark.parametrize("T", [10, 100])
def test_data_form_integrates_the_polynomial_through_its_predictions(grid: str, order: int, sde: bool, T: int) -> None:
    """The order that there is: D_1 and D_2 stand for h·m' and h²·m'', the latter only if it is doubled."""
    solver = data_form(grid, T, order, sde)
    for i in range(order + 1, T - 1, max(1, T // 7)):
        check_data_form(solver, i, order, sde)
    mutants = [data_form(grid, T, order, not sde)]
    mutants += [data_form(grid, T, 2, sde, form="midpoint")] if order == 2 else []
    mutants += [data_form(grid, T, 3, sde, released=True)] if order == 3 else []
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check_data_form(mutant, order + 1, order, sde)


def test_pure_noise_is_read_by_none_but_the_evenly_spaced() -> None:
    """A first knot at α = 0 has k = ∞: no polynomial goes through it, and log k and λ leave it without weight."""
    flow = FlowEuler.uniform(6)
    for form in ("exponential", "lagrange"):
        solver = AdamsBashforth.on(flow, order=3, weights=form)
        assert solver.step(1, None, (0,)) == solver.step(1)
        assert solver.step(2, None, (0, 1)) == solver.step(2, None, (1,))
    uniform = AdamsBashforth.on(flow, order=2, weights="uniform").step(1, None, (0,))
    k = (flow.sigmas / flow.alphas).tolist()
    assert uniform.memory[0] == pytest.approx(-(k[2] - k[1]) * float(flow.alphas[2]) / 2, rel=8 * EPS)
    step = DPMSolver.on(flow, lower_order_final=False).step(1, None, (0,))
    assert step.memory == (0.0,) and step.b == pytest.approx(flow.step(1).b, rel=8 * EPS)


def test_order_one_is_ddim_and_its_sde_is_eta_one() -> None:
    """In either form, on every grid; and ancestral Euler where α = 1, by the formula of k-diffusion."""
    for grid in ("leading", "karras"):
        base = PRESETS[grid](5)
        for i in range(5):
            want = base.step(i)
            for one in (DPMSolver.on(base, order=1), AdamsBashforth.on(base, order=1), DDIM(*levels(base), eta=0)):
                assert (one.step(i).a, one.step(i).b) == pytest.approx((want.a, want.b), rel=16 * EPS)
            eta, sde = DDIM(*levels(base), eta=1.0).step(i), DPMSolver.on(base, order=1, sde=True).step(i)
            assert (eta.a, eta.b, eta.noise) == pytest.approx((sde.a, sde.b, sde.noise), rel=64 * EPS)
    base = PRESETS["karras"](5)
    for i in range(5):
        s_i, s_j = base.sigmas[i].item(), base.sigmas[i + 1].item()
        up = s_j * math.sqrt((s_i**2 - s_j**2) / s_i**2)
        down = math.sqrt(s_j**2 - up**2)
        step = DDIM(*levels(base), eta=1.0).step(i)
        assert (step.a, step.b + s_i, step.noise) == pytest.approx((1.0, down, up), rel=1e-9, abs=64 * EPS * s_i)


def levels(solver: Solver) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return solver.alphas, solver.sigmas, solver.times
