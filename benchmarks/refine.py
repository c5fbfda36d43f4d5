"""What is left of the error of an inversion inside a zigzag, τ₂, and the rows that it takes to make it small.

    python benchmarks/refine.py [--samples N] [--steps T] [--quick] [--json FILE]

Z-Sampling (weak w = 0) with its inversions refined by a count, and to a tolerance, from the same noise: model rows per
sample of the whole walk, and `‖τ₂‖/‖ē‖` of its inversions, their median and the worst. Missed: inversions of which a
sample did not converge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple
from warnings import catch_warnings, simplefilter

import torch
from common import arguments, write
from torch import Tensor

from zigzag import DDIM, Invert, Tol, Trace, ZSampling, walk
from zigzag.sampling import Predictor
from zigzag.solvers import Solver
from zigzag.solvers.affine import norms
from zigzag.zoo import Digits
from zigzag.zoo.learned import MODELS, best_scale, load

REFINES: Final[tuple[int | Tol, ...]] = (0, 1, 3, 9, Tol(1e-2), Tol(1e-4), Tol(1e-6), Tol(1e-6, anderson=0))


class Case(NamedTuple):
    """A model, what it is asked for, and a guidance scale that suits it."""

    name: str
    eps_fn: Predictor
    solver: Solver
    shape: tuple[int, ...]
    cond: Tensor
    uncond: Tensor
    strong: float


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    refine: str
    rows: int
    median: float
    worst: float
    missed: int


def cases(samples: int, steps: int, learned: Sequence[str]) -> list[Case]:
    """The digits, and learned models."""
    digits, solver = Digits(), DDIM.stable_diffusion(steps, spacing="trailing", final_alpha_cumprod=1.0)
    labels = torch.arange(samples) % 10
    null = torch.full_like(labels, -1)
    found = [Case("digits", digits.predictor(solver), solver, (1, 8, 8), labels, null, 5.5)]
    for name in learned:
        model = load(name)
        cond, uncond = model.encode(["a red circle and a blue square"] * samples), model.encode([""] * samples)
        found.append(Case(name, model.eps_fn, model.solver(steps), model.shape, cond, uncond, best_scale(name)))
    return found


def measure(case: Case, refine: int | Tol) -> Figures:
    """One walk."""
    shape = (len(case.cond), *case.shape)
    x, trace = case.solver.noise(shape, generator=torch.Generator().manual_seed(0)), Trace()
    sizes: list[Tensor] = []
    with catch_warnings(record=True) as said:
        simplefilter("always")
        for visit in walk(
            case.eps_fn, x, case.solver, ZSampling(refine=refine), cond=case.cond, uncond=case.uncond,
            strong=case.strong, weak=0.0, trace=trace,
        ):  # fmt: skip
            if isinstance(visit.move, Invert) and visit.prediction is not None:
                sizes.append(norms(visit.prediction))
    taus = [r.tau2 for r in trace.records if r.tau2 is not None]
    left = torch.stack(taus) / torch.stack(sizes)
    missed = [found for w in said if (found := re.match(r"(\d+) of \d+ inversions did not", str(w.message)))]
    name = repr(refine).replace("damping=1.0", "").replace("most=50, ", "").replace(", )", ")")
    return Figures(name, trace.rows, float(left.median()), float(left.max()), int(missed[0][1]) if missed else 0)


def table(case: Case, figures: Sequence[Figures]) -> str:
    """The figures as text."""
    title = f"{case.name} ({len(case.cond)}), T = {len(case.solver)}, w = {case.strong:g}"
    lines = [f"{title:<36}{'rows':>6}{'median':>10}{'worst':>10}{'missed':>8}"]
    for f in figures:
        missed = f"{f.missed}" if f.refine.startswith("Tol") else ""
        lines.append(f"{f'refine={f.refine}':<36}{f.rows:>6}{f.median:>10.1e}{f.worst:>10.1e}{missed:>8}".rstrip())
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, default=4, help="of each model (default: 4)")
    parser.add_argument("--steps", type=int, default=10, help="steps of the grid, T (default: 10)")
    args = parser.parse_args()
    samples, steps = (2, 3) if args.quick else (args.samples, args.steps)
    results = []
    for case in cases(samples, steps, () if args.quick else MODELS):
        figures = [measure(case, refine) for refine in REFINES]
        results.append({"model": case.name, "steps": steps, "figures": [asdict(f) for f in figures]})
        print(table(case, figures), end="\n\n", flush=True)
    write(args.json, results, ("diffusers",), samples=samples)


if __name__ == "__main__":
    main()
