"""Every solver with memory, noise or two evaluations, on every grid, and what a true pair (x₀, ε) says of its steps."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from support.grids import grids
from zigzag.solvers import (
    DDIM,
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    FlowEuler,
    Heun,
    Solver,
    Spherical,
)

KINDS = ("epsilon", "x0", "v", "flow")

PRESETS: dict[str, Callable[..., Solver]] = {
    "leading": lambda T: DDIM.stable_diffusion(T),
    "trailing": lambda T: DDIM.stable_diffusion(T, spacing="trailing"),
    "linspace": lambda T: DDIM.stable_diffusion(T, spacing="linspace"),
    "karras": lambda T: DDIM.karras(T, sigma_max=20.0),
    "flow": lambda T, shift=3.0: FlowEuler.uniform(T, shift=shift),
    "cosine": lambda T, top=1.5: Spherical.cosine(T, phi_max=top),
}

Make = Callable[[Solver, str], Solver]


def _on(cls: Any, **options: Any) -> Make:
    return lambda base, kind: cls(base.alphas, base.sigmas, base.times, prediction=kind, **options)


def _noisy(cls: Any, **options: Any) -> Make:
    """Those that are said of ε alone."""
    return lambda base, kind: cls(base.alphas, base.sigmas, base.times, **options)


def _tcd(base: Solver, kind: str) -> Solver:
    """The inner level of each step has 0.7 of the noise of its end."""
    return TCD(
        base.alphas, base.sigmas, base.times, base.alphas[1:], 0.7 * base.sigmas[1:], prediction=kind,
    )  # fmt: skip


def _dpm2(base: Solver, kind: str) -> Solver:
    """The inner levels are the geometric means of k = σ/α; the mean of σ where k is infinite."""
    alphas, sigmas = base.alphas[:-1], base.sigmas[:-1]
    k = (sigmas[:-1] / alphas[:-1] * sigmas[1:] / alphas[1:]).sqrt()
    alpha = {"flow": 1 / (1 + k), "spherical": 1 / (1 + k**2).sqrt()}.get(shape_of(base), torch.ones_like(k))
    sigma = k * alpha
    pure = ~torch.isfinite(k) | (k > 1e6)
    alpha = torch.where(pure, (alphas[:-1] + alphas[1:]) / 2, alpha)
    sigma = torch.where(pure, (sigmas[:-1] + sigmas[1:]) / 2, sigma)
    times = (base.times[:-1] + base.times[1:]).double() / 2
    return DPM2(alphas=base.alphas, sigmas=base.sigmas, times=base.times.double(), inner_alphas=alpha,
                inner_sigmas=sigma, inner_times=times, prediction=kind)  # fmt: skip


def shape_of(base: Solver) -> str:
    """What holds of a grid's levels: α + σ = 1 ("flow"), α² + σ² = 1 ("spherical") or neither."""
    if torch.allclose(base.alphas + base.sigmas, torch.ones_like(base.alphas)):
        return "flow"
    return "spherical" if torch.allclose(base.alphas**2 + base.sigmas**2, torch.ones_like(base.alphas)) else "other"


MULTISTEP: dict[str, Make] = {
    "2M": _on(DPMSolver, lower_order_final=False),
    "2M, lower at the end": _on(DPMSolver, lower_order_final=True),
    "2M, heun": _on(DPMSolver, form="heun", lower_order_final=False),
    "3M": _on(DPMSolver, order=3, lower_order_final=False),
    "3M, released": _on(DPMSolver, order=3, released=True, lower_order_final=False),
    "DEIS-2": _on(AdamsBashforth),
    "DEIS-3": _on(AdamsBashforth, order=3),
    "DEIS-4": _on(AdamsBashforth, order=4),
    "DEIS-3, lower at the end": _on(AdamsBashforth, order=3, lower_order_final=True),
    "LMS-2": _on(AdamsBashforth, weights="lagrange"),
    "LMS-4": _on(AdamsBashforth, order=4, weights="lagrange"),
    "AB-2": _on(AdamsBashforth, weights="uniform"),
    "AB-3": _on(AdamsBashforth, order=3, weights="uniform"),
    "AB-4": _on(AdamsBashforth, order=4, weights="uniform"),
}
DETERMINISTIC: dict[str, Make] = {
    "DPM-1": _on(DPMSolver, order=1),
    "AB-1": _on(AdamsBashforth, order=1),
    "ancestral 0": _on(Ancestral, eta=0.0),
    **MULTISTEP,
}
STOCHASTIC: dict[str, Make] = {
    "eta 1": _noisy(DDIM, eta=1.0),
    "eta 0.4": _noisy(DDIM, eta=0.4),
    "DDPM": _noisy(DDPM),
    "DDPM, large": _noisy(DDPM, variance="large"),
    "ancestral": _on(Ancestral),
    "ancestral 0.4": _on(Ancestral, eta=0.4),
    "ancestral, large": _on(Ancestral, variance="large"),
    "SDE-1": _on(DPMSolver, order=1, sde=True),
    "SDE-2M": _on(DPMSolver, sde=True, lower_order_final=False),
    "SDE-2M, heun": _on(DPMSolver, sde=True, form="heun", lower_order_final=False),
    "SDE-3M": _on(DPMSolver, order=3, sde=True, lower_order_final=False),
    "LCM": _on(LCM),
    "consistency": _on(LCM, sigma_data=0.0),
    "TCD": _tcd,
}
TWO_STAGE: dict[str, Make] = {"Heun": _on(Heun), "DPM2": _dpm2}
SOLVERS: dict[str, Make] = {**DETERMINISTIC, **STOCHASTIC, **TWO_STAGE}
ON_EPSILON = ("eta 1", "eta 0.4", "DDPM", "DDPM, large")


def make(name: str, grid: str = "leading", T: int = 6, kind: str | None = None) -> Solver:
    """A solver by name on a preset grid, for the grid's own prediction unless another is named."""
    base = PRESETS[grid](T)
    return SOLVERS[name](base, kind or base.prediction)


class Case(NamedTuple):
    """A step of a solver: from knot `i` to `j`, with the knots that it may read, from noise to data."""

    name: str
    kind: str
    solver: Solver
    i: int
    j: int
    remembered: tuple[int, ...]

    @property
    def step(self) -> Any:
        return self.solver.step(self.i, self.j, self.remembered)


@st.composite
def bases(draw: st.DrawFn) -> Solver:
    """The presets, and random uneven grids."""
    match draw(st.sampled_from([*PRESETS, "random", "random"])):
        case "random":
            return draw(grids()).solver
        case "flow":
            return PRESETS["flow"](draw(st.integers(2, 8)), shift=draw(st.floats(0.5, 5.0)))
        case "cosine":
            return PRESETS["cosine"](draw(st.integers(2, 8)), top=draw(st.sampled_from([math.pi / 2, 1.5, 1.2])))
        case name:
            return PRESETS[name](draw(st.integers(2, 8)))


@st.composite
def cases(draw: st.DrawFn, names: tuple[str, ...] = tuple(SOLVERS)) -> Case:
    """Any step of any solver on any grid; ε wants a first knot that holds something of the data."""
    name, base = draw(st.sampled_from(names)), draw(bases())
    pure = float(base.alphas[0]) < 1e-6
    if name in ON_EPSILON and pure:
        base = PRESETS["leading"](len(base))
        pure = False
    kinds = ("epsilon",) if name in ON_EPSILON else KINDS[1:] if pure else KINDS
    kind = draw(st.sampled_from(kinds))
    i = draw(st.integers(0, len(base) - 1))
    j = i + 1 if name == "DPM2" else draw(st.integers(i + 1, len(base)))
    left = draw(st.integers(0, 2**i - 1) | st.just(2**i - 1))  # which knots above have been left
    return Case(name, kind, SOLVERS[name](base, kind), i, j, tuple(n for n in range(i) if left >> n & 1))


def inner_level(solver: Solver, i: int, j: int) -> tuple[float, float]:
    """`(α, σ)` at which a step of two evaluations asks again: the next knot of Heun, the level that DPM2 was given."""
    return solver._levels[i] if isinstance(solver, DPM2) else (float(solver.alphas[j]), float(solver.sigmas[j]))


def says(kind: str, alpha: float, sigma: float) -> Tensor:
    """The true prediction of a kind at `α·x₀ + σ·ε`, as its coefficients on `(x₀, ε)`."""
    return torch.tensor(
        {"epsilon": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-sigma, alpha), "flow": (-1.0, 1.0)}[kind], dtype=torch.float64
    )


def level(solver: Solver, i: int) -> Tensor:
    """The true state at a knot, `(α, σ)`, as its coefficients on `(x₀, ε)`."""
    return torch.stack([solver.alphas[i], solver.sigmas[i]])


def remembers(solver: Solver) -> Tensor:
    """What a solver remembers of a true pair: x₀ in data form, ε in noise form."""
    return torch.tensor((0.0, 1.0) if isinstance(solver, AdamsBashforth) else (1.0, 0.0), dtype=torch.float64)


def amplification(case: Case) -> float:
    """How much larger than their sum the terms are that a noise-form step is made of, in `x/α`.

    A Lagrange polynomial `Π (u − u_m)/(u_n − u_m)` is written out in powers of u: its terms are at most those of
    `Π (|u| + |u_m|)/|u_n − u_m|`. The trapezoidal and the midpoint rule have the ends of the interval themselves.
    """
    alphas, sigmas, _ = case.solver.knots
    if alphas[case.i] < 1e-12:
        return 0.0
    k, end = sigmas[case.i] / alphas[case.i], sigmas[case.j] / alphas[case.j]
    ends = 1 / alphas[case.i] + k + end
    if not isinstance(case.solver, AdamsBashforth) or case.solver.weights == "uniform":
        return ends
    nodes = [k, *(sigmas[n] / alphas[n] for n in reversed(case.remembered) if alphas[n])][: len(case.step.memory) + 1]
    lagrange = case.solver.weights == "lagrange"
    us = [node / k - 1 if lagrange else math.log(node / k) for node in nodes]
    to = 1.0 if lagrange or not end else abs(math.log(end / k))
    terms = (
        math.prod((to + abs(u)) / abs(u_n - u) for u in us if u != u_n) for u_n in us
    )  # fmt: skip
    return ends + 6 * k * sum(terms)
