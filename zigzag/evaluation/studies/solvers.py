"""What the studies of solvers sample: every method on first-order, multistep and stochastic steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zigzag.evaluation.compare import Line, lines
from zigzag.evaluation.named import label
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.evaluation.solvers import solver_label
from zigzag.evaluation.studies.study import STEPS, STRONG, Study
from zigzag.methods import ImplicitZ, Method, Resampling, Standard, Z2Sampling, ZSampling

__all__ = ["SOLVERS", "ancestral", "budget", "matched", "methods", "solvers"]

SOLVERS = ("ddim", "ddim:eta=1", "2m", "sde-2m")


def _methods(steps: int) -> tuple[Method, ...]:
    return Resampling(), ZSampling(), ImplicitZ(), Z2Sampling(warmup=max(1, steps // 5))


def solvers(strong: float = STRONG, steps: int = STEPS) -> Study:
    """Standard sampling and Z², on each solver; against standard sampling on it, and at first order."""
    z2 = Z2Sampling(warmup=max(1, steps // 5))
    return Study(f"Solvers, {steps} steps", "ours", "", [], _lines((z2,), strong, steps))


def methods(strong: float = STRONG, steps: int = STEPS) -> Study:
    """Every method on each solver; against standard sampling on it, and at first order."""
    every = _lines(_methods(steps), strong, steps)
    return Study(f"Methods by solvers, {steps} steps", "Z-Sampling, open question 1", "", [], every)


def matched(strong: float = STRONG, steps: int = STEPS) -> Study:
    """The same, with plain CFG at the matched scale and with the same rows, on the same solver, beside each."""
    every = [line for solver in SOLVERS for line in lines(_methods(steps), steps, strong, solver=solver)]
    return Study(f"Methods by solvers, {steps} steps, with their baselines", "both papers", "", [], every)


def _lines(zigzags: Sequence[Method], strong: float, steps: int) -> list[Line]:
    first = Sampler(Standard(), steps, strong)
    every: list[Line] = []
    for solver in SOLVERS:
        plain = replace(first, solver=solver)
        for method in (Standard(), *zigzags):
            sampler = replace(plain, method=method)
            against = tuple(dict.fromkeys(rival for rival in (plain, first) if rival != sampler))
            every.append(Line(f"{solver_label(solver)}: {label(method)}", sampler, against))
    return every


def ancestral(strong: float = STRONG, steps: int = STEPS) -> Study:
    """Zigzags on ancestral steps, with the noise of an interval held, and drawn anew by the Φ that leaves for good."""
    z = Sampler(ZSampling(), steps, strong)
    longer = baselines(z)["same rows"]
    every: list[Line] = []
    for solver in ("ddim", "ddim:eta=1", "ddim:eta=1,fresh"):
        plain = Sampler(Standard(), steps, strong, solver=solver.removesuffix(",fresh"))
        names = {"Standard": plain, "CFG with the rows of Z": replace(longer, solver=plain.solver)}
        zigzags = {label(method): replace(z, method=method, solver=solver) for method in (ZSampling(), ImplicitZ())}
        shown = zigzags if solver.endswith("fresh") else {**names, **zigzags}
        for name, sampler in shown.items():
            rivals: Sequence[Sampler] = [plain, names["CFG with the rows of Z"], replace(sampler, solver="ddim")]
            rivals = rivals[2:] if sampler == plain else rivals
            against = tuple(dict.fromkeys(rival for rival in rivals if rival != sampler))
            every.append(Line(f"{solver_label(solver)}: {name}", sampler, against))
    return Study("Ancestral steps, noise held and fresh", "Z-Sampling, Table 15", "", [], every)


def budget(strong: float = STRONG) -> Study:
    """What is best at about 20, 40 and 50 rows: every method on every solver, in as many steps as the rows allow."""
    standard = Standard()
    first: dict[int, Sampler] = {}
    every: list[Line] = []
    plans: dict[int, list[tuple[Method, int]]] = {
        20: [(standard, 10), (Z2Sampling(warmup=2), 10), (ImplicitZ(), 5), (Resampling(), 5)],
        40: [(standard, 20), (Z2Sampling(warmup=4), 20), (ZSampling(), 8), (ImplicitZ(), 10), (Resampling(), 10)],
        50: [(standard, 25), (Z2Sampling(warmup=5), 25), (ZSampling(), 10), (ImplicitZ(), 12), (Resampling(), 13)],
    }
    for rows, plan in plans.items():
        for solver in SOLVERS:
            for method, steps in plan:
                sampler = Sampler(method, steps, strong, solver=solver)
                rival = first.setdefault(rows, sampler)
                against = (rival,) if sampler != rival else ()
                every.append(
                    Line(f"{rows} rows: {solver_label(solver)}, {label(method, False)}, {steps}", sampler, against)
                )
    return Study("The best line at 20, 40 and 50 rows", "ours", "", [], every)
