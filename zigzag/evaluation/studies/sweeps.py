"""What the studies of the papers sample: the paths, scales and steps of each, fixed before anything was measured."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from zigzag.evaluation.compare import Line, lines
from zigzag.evaluation.named import label
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.studies.gaps import lora_roles, partial, strengths, weak_scales
from zigzag.evaluation.studies.solvers import ancestral, budget, matched, methods, solvers
from zigzag.evaluation.studies.study import STEPS, STRONG, Point, Study
from zigzag.guidance import Guidance
from zigzag.methods import EndToEnd, ImplicitZ, Method, Resampling, Standard, Z2Sampling, ZSampling

__all__ = ["HEADLINE", "STUDIES"]

WARMUP = 2  # a fifth of the steps, as the Z² paper's 10 of 50
_STANDARD = Standard()
HEADLINE: tuple[Method, ...] = (Resampling(), EndToEnd(), ZSampling(), ImplicitZ(), Z2Sampling(warmup=WARMUP))


def _plain(
    method: Method = _STANDARD, strong: float = STRONG, weak: float | Guidance = 0.0, steps: int = STEPS
) -> Sampler:
    return Sampler(method, steps, strong, weak)


def _scale_of(sampler: Sampler) -> Sampler:
    method = sampler.method if isinstance(sampler.method, Method) else None
    return Sampler(Standard(), sampler.steps, sampler.strong, sampler.weak, matched=method)


def _table(points: list[Point], rivals: Callable[[Point], Sequence[Sampler]] = lambda point: [_plain()]) -> list[Line]:
    """Standard sampling, then a line for each point, against its rivals: the first in the table, others in duels."""
    first = Line("Standard", _plain())
    return [first] + [
        Line(
            point.name or f"{point.series}, {point.x:g}",
            point.sampler,
            tuple(rival for rival in rivals(point) if rival != point.sampler),
        )
        for point in points
    ]


def guidance_gap() -> Study:
    """γ₂ from none to more than γ₁; at γ₂ = γ₁ the gap is nothing."""
    z2, points = Z2Sampling(warmup=WARMUP), []
    for method, series in ((ZSampling(), "Z-Sampling"), (z2, "Z²-Sampling")):
        points += [Point(series, weak, _plain(method, weak=weak)) for weak in (0, 1, 2, 3, 4, 5, 6)]
    points += [Point("CFG at the matched scale of Z", w, _scale_of(_plain(ZSampling(), weak=w))) for w in (0, 1, 2, 3)]
    return Study(
        "The guidance gap",
        "Z-Sampling, Figure 7",
        f"w of the inversion (γ₂), at γ₁ = {STRONG:g}",
        points,
        _table(points),
    )


def zigzag_steps() -> Study:
    """λ, the number of steps that are active."""
    points = [Point("Z-Sampling", n, _plain(ZSampling(steps=n))) for n in (1, 2, 3, 5, 7, 9)]
    points += [Point("Implicit Z", n, _plain(ImplicitZ(steps=n))) for n in (1, 3, 5, 10)]
    points += [Point("Z²-Sampling", n, _plain(Z2Sampling(warmup=WARMUP, steps=n))) for n in (3, 5, 7, 9, 10)]
    return Study(
        "Zigzag steps", "Z-Sampling, Figure 9; Z², Figure 7a", "λ: active before this step", points, _table(points)
    )


def span() -> Study:
    """k steps down and k up; the last is the end-to-end zigzag at the first step only."""
    points = [Point("Z-Sampling", k, _plain(ZSampling(span=k))) for k in (1, 2, 3, 4)]
    points += [Point("CFG at the matched scale of Z", k, _scale_of(_plain(ZSampling(span=k)))) for k in (1, 2, 3, 4)]
    points += [Point("End-to-End", STEPS, _plain(EndToEnd()))]
    return Study("Span", "Z-Sampling, Table 12", "span k", points, _table(points))


def strong_scale() -> Study:
    """γ₁, with each method beside standard sampling at the same scale."""
    scales = (1.5, 2.5, 4.0, 6.0, 9.0)
    points = [Point("Standard", s, _plain(strong=s)) for s in scales]
    points += [Point("Z-Sampling", s, _plain(ZSampling(), s)) for s in scales]
    points += [Point("CFG at the matched scale of Z", s, _scale_of(_plain(ZSampling(), s))) for s in scales]
    points += [Point("Z²-Sampling", s, _plain(Z2Sampling(warmup=WARMUP), s)) for s in scales]
    return Study(
        "The strong scale", "Z-Sampling, Table 13", "w of denoising (γ₁), at γ₂ = 0", points,
        _table(
            points,
            lambda point: [
                _plain(strong=point.x), *([_scale_of(point.sampler)] if point.series == "Z-Sampling" else [])
            ],
        ),
    )  # fmt: skip


def cost() -> Study:
    """Accuracy against rows and seconds, by the number of steps."""
    points = [Point("Standard", T, _plain(steps=T)) for T in (5, 10, 20, 50)]
    for method in (Resampling(), EndToEnd(), ImplicitZ()):
        points += [Point(label(method), T, _plain(method, steps=T)) for T in (5, 10)]
    points += [Point("Z-Sampling", T, _plain(ZSampling(), steps=T)) for T in (5, 10, 20)]
    # The paper's own way to compare at equal time: half the steps, the first half of them zigzags.
    points += [Point("Z-Sampling, λ = T/2", T, _plain(ZSampling(steps=T // 2), steps=T)) for T in (5, 10, 20)]
    points += [Point("Z²-Sampling", T, _plain(Z2Sampling(warmup=T // 5), steps=T)) for T in (5, 10, 20, 50)]
    return Study(
        "Cost",
        "Z-Sampling, Figure 10; Z², Figure 7b",
        "model rows a sample",
        points,
        _table(points, lambda point: []),
        by_cost=True,
    )


def warmup() -> Study:
    """Plain steps of Z² before its first shift; 0 is the path of 1, as nothing is cached before the first step."""
    points = [Point("Z²-Sampling", n, _plain(Z2Sampling(warmup=n))) for n in (0, 2, 3, 5, 7)]
    return Study("Warm-up", "Z², Table 5", "warm-up steps", points, _table(points))


def inversion_error() -> Study:
    """End to end against step by step, with and without a gap; x is the refinements."""
    points = []
    for weak, gap in ((0.0, "gap"), (STRONG, "no gap")):
        points += [Point(f"Z-Sampling, {gap}", k, _plain(ZSampling(refine=k), weak=weak)) for k in (0, 2)]
        points += [Point(f"End-to-End, {gap}", k, _plain(EndToEnd(refine=k), weak=weak)) for k in (0, 2)]

    def rivals(point: Point) -> list[Sampler]:
        return [_plain(), _plain(ZSampling(), weak=point.sampler.weak)]

    return Study(
        "End to end, step by step", "Z-Sampling, Tables 16 and 17", "refinements of the inversion", points,
        _table(points, rivals), errors=True, exact=True,
    )  # fmt: skip


def gaussian_error() -> Study:
    """A Gaussian error of relative size s in the inversion: with no gap, as the paper has it, and with one."""
    points = [
        Point(f"Z-Sampling, {gap}", s, Sampler(ZSampling(), STEPS, STRONG, weak, error=s))
        for weak, gap in ((STRONG, "no gap"), (0.0, "gap"))
        for s in (0.0, 0.1, 0.25, 0.5, 1.0)
    ]
    return Study(
        "A Gaussian error", "Z-Sampling, Table 18", "relative size s of the error", points,
        _table(points, lambda point: [_plain(), replace(point.sampler, error=0.0)]), errors=True,
    )  # fmt: skip


def released() -> Study:
    """The exact inverse against the one of the authors' code; x is 1 for the latter."""
    points = [
        Point("Z-Sampling", 0, _plain(ZSampling()), "Z-Sampling, exact inverse"),
        Point("Z-Sampling", 1, _plain(ZSampling(released=True)), "Z-Sampling, released inverse"),
    ]
    return Study(
        "Exact and released inverse", "docs/mathematics.md", "0 the exact inverse, 1 the released code's", points,
        _table(points, lambda point: [_plain(), _plain(ZSampling())]), errors=True,
    )  # fmt: skip


def headline(strong: float = STRONG) -> Study:
    """Every method against standard sampling, plain CFG at the matched scale and plain CFG with the same rows."""
    every = lines(HEADLINE, STEPS, strong)
    return Study("Every method", "both papers", "", [], every)


STUDIES: dict[str, Callable[..., Study]] = {
    "headline": headline,
    "gap": guidance_gap,
    "lambda": zigzag_steps,
    "span": span,
    "scale": strong_scale,
    "cost": cost,
    "warmup": warmup,
    "inversion": inversion_error,
    "error": gaussian_error,
    "ancestral": ancestral,
    "released": released,
    "solvers": solvers,
    "solvers-20": functools.partial(solvers, steps=20),
    "methods": methods,
    "methods-20": functools.partial(methods, steps=20),
    "matched": matched,
    "matched-20": functools.partial(matched, steps=20),
    "budget": budget,
    "strengths": strengths,
    "partial": partial,
    "weak-scales": weak_scales,
    "weak-scales-implicit": functools.partial(
        weak_scales, methods=(ImplicitZ(),), title="The weak scale of Implicit Z"
    ),
    "weak-scales-solvers": functools.partial(
        weak_scales,
        methods=(ZSampling(), ImplicitZ(), Z2Sampling(warmup=WARMUP)),
        solvers=("ddim:eta=1", "2m"),
        title="The weak scale on two more solvers",
    ),
    "weak-scales-end-to-end": functools.partial(
        weak_scales, methods=(EndToEnd(),), title="The weak scale of End-to-End"
    ),
    "weak-scales-end-to-end-solvers": functools.partial(
        weak_scales,
        methods=(EndToEnd(),),
        solvers=("ddim:eta=1", "2m"),
        title="The weak scale of End-to-End on two more solvers",
    ),
    "w2sd": lora_roles,
}
