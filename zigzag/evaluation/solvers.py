"""Solvers by name, on the grid of another: what the command line and the studies call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from zigzag.evaluation.named import name_of
from zigzag.solvers import DDIM, DDPM, DPM2, LCM, TCD, AdamsBashforth, Ancestral, DPMSolver, Heun, Solver

__all__ = ["SHORT", "SOLVERS", "Made", "make_solver", "solver_label"]

# A solver by name, one of one's own, or a function of the model's own that returns one.
Made: TypeAlias = "str | Solver | Callable[[Solver], Solver]"


def _ddim(grid: Solver, eta: float = 0.0, fresh: bool = False) -> Solver:
    """The grid's own solver; with noise, DDIM with η, at 1 on v and flows as the first-order SDE of DPM-Solver++."""
    if eta == 0 and not fresh:
        return grid
    if grid.prediction == "epsilon":
        return DDIM(grid.alphas, grid.sigmas, grid.times, eta=eta, fresh_noise=fresh)
    if eta != 1:
        return Ancestral.on(grid, eta=eta, fresh_noise=fresh)
    # The same step in other words, whose roundings results that are kept stand on.
    return DPMSolver.on(grid, order=1, sde=True, fresh_noise=fresh)


def _ddpm(grid: Solver, variance: str = "small", fresh: bool = False) -> Solver:
    if grid.prediction != "epsilon":
        return Ancestral.on(grid, variance=variance, fresh_noise=fresh)
    return DDPM(grid.alphas, grid.sigmas, grid.times, variance=variance, fresh_noise=fresh)  # type: ignore[arg-type]


def _dpm(grid: Solver, fresh: bool = False, **options: Any) -> Solver:
    return DPMSolver.on(grid, fresh_noise=fresh, **options)


def _lcm(grid: Solver, fresh: bool = False) -> Solver:
    return LCM.on(grid, fresh_noise=fresh)


def _tcd(grid: Solver, gamma: float = 0.3, fresh: bool = False) -> Solver:
    return TCD.on(grid, gamma=gamma, fresh_noise=fresh)


def _yes_or_no(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(value)
    return value == "yes"


_yes_or_no.__name__ = "yes or no"  # as `int` is called where a value does not fit

# The makers, each with the options it takes and what they are.
SOLVERS: Final[dict[str, tuple[Callable[..., Solver], Mapping[str, Any]]]] = {
    "ddim": (_ddim, {"eta": float, "fresh": bool}),
    "ddpm": (_ddpm, {"variance": str, "fresh": bool}),
    "dpm": (
        _dpm,
        {
            "order": int,
            "sde": bool,
            "form": str,
            "released": bool,
            "lower_order_final": _yes_or_no,
            "euler_at_final": bool,
            "fresh": bool,
        },
    ),
    "adams": (AdamsBashforth.on, {"order": int, "weights": str}),
    "heun": (Heun.on, {}),
    "dpm2": (DPM2.on, {}),
    "lcm": (_lcm, {"fresh": bool}),
    "tcd": (_tcd, {"gamma": float, "fresh": bool}),
}
"""The solvers by the names that the command line gives them."""

SHORT: Final = {
    "2m": "dpm:order=2",
    "3m": "dpm:order=3",
    "sde-2m": "dpm:order=2,sde",
    "deis": "adams:order=2",
    "lms": "adams:order=4,weights=lagrange",
    "plms": "adams:order=4,weights=uniform",
}
"""Short names for some of them with their options."""

_LABELS: Final = {"ddim": "first order", "ddim:eta=1": "η = 1", "2m": "2M", "3m": "3M", "sde-2m": "SDE-2M"}


def make_solver(text: Made, grid: Solver) -> Solver:
    """A solver as one word, on the knots, times and prediction of `grid`; or one of one's own, or a function of `grid`.

    "ddim" is `grid` itself (first order); options come after a colon: "ddim:eta=1", "dpm:order=3", "dpm:order=2,sde",
    "dpm:order=3,lower_order_final=no,euler_at_final", "adams:order=3,weights=lagrange", "heun", "dpm2", "lcm:fresh",
    "tcd:gamma=0.5". Short ones: "2m", "3m", "sde-2m", "deis", "lms", "plms".

    Raises:
        TypeError: for what is no solver.
        ValueError: for an unknown solver or option, listing those known; for a value that does not fit; for a solver of
            another number of steps or another prediction than those of `grid`; for a grid that does not tell the levels
            between its knots, where the solver ("dpm2", "tcd") needs them.
    """
    if not isinstance(text, str):
        return _own(text, grid)
    name, _, rest = SHORT.get(text, text).partition(":")
    if name not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join([*SOLVERS, *SHORT])}, got {text!r}")
    make, known = SOLVERS[name]
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, given, value = item.partition("=")
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}; it has: {', '.join(known) or 'none'}")
        if (known[key] is bool) == bool(given):
            raise ValueError(f"{name}: {key} {'takes no value' if given else 'needs a value'}, got {item!r}")
        try:
            options[key] = True if known[key] is bool else known[key](value)
        except ValueError:
            raise ValueError(f"{name}: {key} must be {known[key].__name__}, got {value!r}") from None
    return make(grid, **options)


def _own(given: object, grid: Solver) -> Solver:
    solver = given(grid) if callable(given) and not isinstance(given, Solver) else given
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a name, a Solver, or a function of a Solver to one, got {name_of(given)}")
    if (len(solver), solver.prediction) != (len(grid), grid.prediction):
        raise ValueError(
            f"solver must have {len(grid)} steps of {grid.prediction!r}, as the model's own has, got {solver!r}"
        )
    return solver


def solver_label(text: Made) -> str:
    """What a solver is called in a table."""
    if not isinstance(text, str):
        return name_of(text)
    name = text.removesuffix(",fresh")
    return _LABELS.get(name, name) + (", fresh noise" if name != text else "")
