"""How well data come back from the noise that each inversion scheme finds, and what that takes.

    python benchmarks/inversion.py [--images N] [--most N] [--quick] [--json FILE]

One table for each model and number of steps, under plain conditional predictions (w = 1) and under guidance at the
scale that suits the model. The error is `‖x̂ − x‖/‖x‖` of the data that came back, the worst of the samples; with a
star where a fixed point did not converge for all of them. Rows are those of the way up and the way down, per sample,
as the model was called; noise is the root mean square of what came out over `σ₀`, the mean of the samples; growth is
the factor by which a scheme multiplies rounding, from the grid. Refused: growth times the rounding of the dtype is more
than one percent. The grids are those on which diffusers' schedulers go up and down the same levels, and end at training
time 0, which Rex asks the model at; flows end at clean data. float64 is that of the states: the networks of the learned
models are float32 in both, and see states rounded to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final, NamedTuple

import diffusers
import torch
from common import arguments, write
from torch import Tensor

from zigzag import DDIM, FlowEuler, Invert, Standard, sample
from zigzag.inversion import EDICT, OBELM, FixedPoint, Recorded, Rex, Scheme, invert, telling_last
from zigzag.inversion.inverted import deviation
from zigzag.sampling import Predictor
from zigzag.solvers import DPMSolver, Solver
from zigzag.solvers.affine import norms
from zigzag.zoo import Digits
from zigzag.zoo.learned import MODELS, best_scale, load
from zigzag.zoo.shapes import draw_caption, draw_scene, render

ACCURACY: Final = 1e-2
DTYPES: Final = (torch.float64, torch.float32)
SCHEDULERS: Final[Any] = diffusers  # they are not annotated
SCHEDULE: Final[dict[str, Any]] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Case(NamedTuple):
    """A model with data of it; `scale` is a guidance scale that suits it, `grid` its solver of a number of steps."""

    name: str
    eps_fn: Predictor
    x: Tensor
    cond: Tensor
    uncond: Tensor
    scale: float
    grid: Callable[[int], Solver]


class Counted:
    """A predictor that counts its rows, per sample of a batch of `size`."""

    def __init__(self, eps_fn: Predictor, size: int) -> None:
        self.eps_fn, self.size, self.rows = eps_fn, size, 0.0
        self.made_for = getattr(eps_fn, "made_for", None)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The prediction."""
        self.rows += len(x) / self.size
        return self.eps_fn(x, t, cond)


class Task(NamedTuple):
    """What a line of the table is run on."""

    eps_fn: Counted
    x: Tensor
    cond: Tensor
    uncond: Tensor
    solver: Solver
    scale: float

    @property
    def conditions(self) -> dict[str, Any]:
        """As the samplers take them."""
        return {"cond": self.cond, "uncond": self.uncond}


@dataclass(frozen=True)
class Figures:
    """What is measured of a line at one scale and in one dtype; `error` is None where it was refused."""

    error: float | None = None
    rows: float | None = None
    noise: float | None = None
    growth: float | None = None
    converged: bool = True


class Line(NamedTuple):
    """A way up and down: its name, and what runs it; `flows` says whether it is there for flows."""

    name: str
    run: Callable[[Task], Figures]
    flows: bool = True


def by_scheme(name: str, scheme: Scheme, solver: Callable[[Solver], Solver] = lambda grid: grid) -> Line:
    """A scheme of `zigzag.inversion`, on a solver made of the grid."""

    def run(task: Task) -> Figures:
        made = solver(task.solver)
        growth = scheme.growth(made)
        if growth is not None and growth * torch.finfo(task.x.dtype).eps > ACCURACY:
            return Figures(growth=growth)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the star says it
            generator = torch.Generator().manual_seed(0)
            found = invert(
                task.eps_fn, task.x, made, scheme, guidance=task.scale, accuracy=ACCURACY, round_trip=True,
                generator=generator, **task.conditions,
            ).report  # fmt: skip
        assert found is not None and found.round_trip is not None
        converged = found.converged is None or bool(found.converged.all())
        return _figures(task, found.round_trip, found.deviation, growth, converged)

    return Line(name, run)


def naively(task: Task) -> Figures:
    """Up by `Invert`, which takes the prediction at the state that each step begins from."""
    up = [Invert(i + 1, i) for i in reversed(range(len(task.solver)))]
    noise = sample(task.eps_fn, task.x, task.solver, up, weak=task.scale, **task.conditions)
    back = sample(task.eps_fn, noise, task.solver, Standard(), strong=task.scale, **task.conditions)
    return _figures(task, norms(back - task.x) / norms(task.x), deviation(noise, task.solver.knots[1][0]))


def by_diffusers(name: str, up: Any, down: Any) -> Line:
    """An inverse scheduler of diffusers and the scheduler that it is the inverse of."""

    def run(task: Task) -> Figures:
        noise = _stepped(up, task, task.x)
        back = _stepped(down, task, noise)
        return _figures(task, norms(back - task.x) / norms(task.x), deviation(noise, task.solver.knots[1][0]))

    return Line(name, run, flows=False)


def _stepped(scheduler: Any, task: Task, x: Tensor) -> Tensor:
    """The loop of a pipeline."""
    scheduler.set_timesteps(len(task.solver))
    for t in scheduler.timesteps:
        told = t.expand(len(x))
        e = task.eps_fn(x, told, task.cond)
        if task.scale != 1:
            e_u = task.eps_fn(x, told, task.uncond)
            e = e_u + task.scale * (e - e_u)
        x = scheduler.step(e, t, x, return_dict=False)[0].to(x.dtype)
    return x


def _figures(task: Task, error: Tensor, noise: Tensor, growth: float | None = None, converged: bool = True) -> Figures:
    return Figures(float(error.max()), task.eps_fn.rows, float(noise.mean()), growth, converged)


def lines(most: int) -> list[Line]:
    """Those of the table; `most` iterations of a fixed point at most, half as many of a whole trajectory."""
    fixed = FixedPoint(most=most, sweeps=most // 2)
    # Their "linspace" goes up and down the same levels, their "trailing" of DPM-Solver does not.
    trailing = {**SCHEDULE, "timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False}
    even = {**SCHEDULE, "timestep_spacing": "linspace"}
    return [
        Line("Invert", naively),
        by_scheme("FixedPoint", fixed),
        by_scheme("FixedPoint, on 2M", fixed, lambda grid: DPMSolver.on(grid, order=2)),
        by_scheme("EDICT", EDICT()),
        by_scheme("OBELM", OBELM()),
        by_scheme("Rex", Rex(), lambda grid: telling_last(grid, 0)),
        by_scheme("Recorded, naive", Recorded()),
        by_scheme("Recorded, independent", Recorded("independent")),
        by_diffusers(
            "DDIMInverseScheduler", SCHEDULERS.DDIMInverseScheduler(**trailing), SCHEDULERS.DDIMScheduler(**trailing)
        ),
        *(
            by_diffusers(
                f"DPMSolverMultistepInverse, {order}",
                SCHEDULERS.DPMSolverMultistepInverseScheduler(**even, solver_order=order),
                SCHEDULERS.DPMSolverMultistepScheduler(**even, solver_order=order, final_sigmas_type="sigma_min"),
            )
            for order in (1, 2)
        ),
    ]


def digits(count: int) -> Case:
    """Real digits, of each class in turn, with their exact predictor at every training time."""
    mixture = Digits()
    labels = torch.arange(count) % 10
    first = torch.stack([(mixture.labels == k).nonzero()[n // 10, 0] for n, k in enumerate(labels.tolist())])
    every = DDIM.stable_diffusion(1000, spacing="trailing")
    return Case(
        f"digits ({count})", mixture.predictor(every), mixture.images[first], labels,
        torch.full_like(labels, -1), 5.5, lambda steps: DDIM.stable_diffusion(steps, spacing="trailing"),
    )  # fmt: skip


def scenes(name: str, count: int) -> Case:
    """Drawn scenes, with a learned model."""
    model, rng = load(name), Random(0)
    captions = [draw_caption("attribution", rng) for _ in range(count)]
    x = model.image_to_state(render([draw_scene(caption, rng) for caption in captions]))
    cond, uncond = model.encode([*map(str, captions)]), model.encode([""] * count)

    def grid(steps: int) -> Solver:
        if name == "shapes-dit":
            return FlowEuler.uniform(steps, time_scale=1000.0)
        return DDIM.stable_diffusion(steps, spacing="trailing")

    return Case(f"{name} ({count})", model.eps_fn, x, cond, uncond, best_scale(name), grid)


def measure(case: Case, steps: int, every: Sequence[Line]) -> list[dict[str, Any]]:
    """The figures of every line, at both scales and in both dtypes."""
    found = []
    solver = case.grid(steps)
    for line in every:
        if solver.prediction == "flow" and not line.flows:
            continue
        for scale in (1.0, case.scale):
            for dtype in DTYPES:
                eps_fn = Counted(case.eps_fn, len(case.x))
                figures = line.run(Task(eps_fn, case.x.to(dtype), case.cond, case.uncond, solver, scale))
                dtype_name = str(dtype).removeprefix("torch.")
                found.append({"line": line.name, "scale": scale, "dtype": dtype_name, **asdict(figures)})
    return found


def table(case: Case, steps: int, found: Sequence[dict[str, Any]]) -> str:
    """The figures as text."""
    scales = list(dict.fromkeys(f["scale"] for f in found))
    title = f"{case.name}, T = {steps}"
    head = [f"{title:<30}" + "".join(f"{f'w = {scale:g}':<37}" for scale in scales)]
    head.append(" " * 30 + f"{'float64':<10}{'float32':<10}{'rows':>6}{'noise':>8}   " * len(scales) + "growth")
    body = []
    for name in dict.fromkeys(f["line"] for f in found):
        own = [f for f in found if f["line"] == name]
        text = f"{name:<30}"
        for scale in scales:
            wide, narrow = (f for f in own if f["scale"] == scale)
            rest = " " * 14 if wide["rows"] is None else f"{wide['rows']:>6.0f}{wide['noise']:>8.2f}"
            text += f"{_error(wide):<10}{_error(narrow):<10}{rest}   "
        growth = own[0]["growth"]
        body.append((text + ("" if growth is None else f"{growth:.3g}")).rstrip())
    return "\n".join([*head, *body])


def _error(figures: dict[str, Any]) -> str:
    if figures["error"] is None:
        return "refused"
    return f"{figures['error']:.1e}" + ("" if figures["converged"] else "*")


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=2, help="scenes of each learned model (default: 2)")
    parser.add_argument("--most", type=int, default=20, help="iterations of a fixed point at most (default: 20)")
    args = parser.parse_args()
    counts, every = ((3,) if args.quick else (10, 50)), lines(4 if args.quick else args.most)
    cases = [digits(10), *([] if args.quick else [scenes(name, args.images) for name in MODELS])]
    results = []
    for case in cases:
        for steps in counts:
            found = measure(case, steps, every)
            results.append({"model": case.name, "steps": steps, "figures": found})
            print(table(case, steps, found), end="\n\n", flush=True)
    write(args.json, results, ("diffusers",), images=args.images, most=args.most)


if __name__ == "__main__":
    main()
