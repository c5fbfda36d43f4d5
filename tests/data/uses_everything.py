"""What a user may write with every public name of zigzag, typed. `make types` checks it, and nothing runs it."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

import zigzag
from zigzag import (
    APG,
    CFG,
    DDIM,
    MISSING,
    AffineStep,
    CFGPlusPlus,
    CFGZeroStar,
    CosineStrength,
    Denoise,
    EndToEnd,
    FlowEuler,
    Guidance,
    ImplicitZ,
    Interval,
    Invert,
    Method,
    Move,
    NormStrength,
    Polaris,
    Predictor,
    Record,
    Renoise,
    Resampling,
    RescaledCFG,
    ShareStrength,
    Shift,
    Solver,
    Spherical,
    Standard,
    State,
    Steered,
    StepInfo,
    Tol,
    Trace,
    Visit,
    Z2Sampling,
    ZSampling,
    adapt_prediction,
    capture,
    cite,
    convert,
    count_rows,
    matched_cfg,
    sample,
    walk,
)
from zigzag.evaluation.prompts import Prompt, read_prompts
from zigzag.evaluation.scorers import Scorer, checked, scorer
from zigzag.inversion import EDICT, Inverted, invert, reconstruct
from zigzag.parallel import Ranks, rows_over
from zigzag.solvers import DPMSolver, ddim_step


class Mine(Solver):
    """A solver of a user's."""

    prediction = "flow"

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """Euler's."""
        return AffineStep(1.0, float(self.sigmas[j] - self.sigmas[i]))


@dataclass(frozen=True)
class Twice:
    """A method of a user's."""

    def path(self, T: int) -> tuple[Move, ...]:
        """A zigzag at the first step."""
        down: Iterable[Move] = (Denoise(i, i + 1) for i in range(T))
        return (Denoise(0, 1), Invert(1, 0, refine=Tol(1e-4)), *down)


class UntilSmall:
    """A steered method of a user's."""

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        """A zigzag at each step whose gap is large."""
        for i in range(T):
            visit = yield Denoise(i, i + 1)
            if i < T - 1 and visit.gap is not None and bool(visit.gap.abs().mean() > 0.1):
                yield Invert(i + 1, i)
                yield Denoise(i, i + 1)


class Halved:
    """A guidance of a user's."""

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """Both."""
        return True, True

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """Their mean."""
        assert e_c is not None and e_u is not None
        return (e_c + e_u) / 2


def model(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    """A predictor of a user's."""
    return x * 0.1


def every_method() -> list[Method]:
    """All methods, and one of a user's."""
    return [
        Standard(), Resampling(rounds=2), EndToEnd(), ZSampling(steps=3), ImplicitZ(strength=CosineStrength()),
        Z2Sampling(warmup=2, strength=NormStrength(0.1)), Z2Sampling(warmup=2, strength=ShareStrength(0.5)), Twice(),
    ]  # fmt: skip


def every_guidance() -> list[Guidance]:
    """All rules that make one prediction of two, and one of a user's."""
    inside: Guidance = CFG(lambda step: step.sigma_i)
    return [CFG.from_gamma(4.5), CFGPlusPlus(0.6), RescaledCFG(5.0), Interval(inside, 1, 4), Polaris(), Halved()]


def samples(x: Tensor, cond: Tensor, uncond: Tensor) -> Tensor:
    """What is done with them."""
    predictor: Predictor = adapt_prediction(model, DDIM.stable_diffusion(20), "v")
    solvers: list[Solver] = [
        DDIM.karras(20, eta=1.0), FlowEuler.uniform(20, shift=3.0), Spherical.cosine(20),
        DPMSolver.on(DDIM.stable_diffusion(20), order=2), Mine([0.0, 1.0], [1.0, 0.0], [1.0]),
    ]  # fmt: skip
    trace = Trace()
    generator = torch.Generator().manual_seed(0)

    def seen(visit: Visit) -> Tensor | None:
        return None if visit.prediction is None else visit.state.clamp(-1, 1)

    for solver in solvers:
        for method in every_method():
            rows: int = count_rows(method, len(solver))
            print(rows, matched_cfg(method, solver, strong=5.5, weak=0.0), cite(method, solver, 5.5))
            for strong in every_guidance():
                x = sample(
                    predictor, x, solver, method, cond=cond, uncond=uncond, strong=strong, weak=0.0, trace=trace,
                    generator=[generator], callback=seen, grad=2, checkpoint=True,
                )  # fmt: skip
    records: list[Record] = trace.records
    print(trace.rows, [record.delta for record in records], trace.beta)
    path: list[Move] = [Shift(0, fresh=True), Denoise(0, 1), Renoise(1, 0)]
    for visit in walk(model, x, solvers[0], path, cond=cond, uncond=MISSING):
        x = visit.state
    steered: Steered = UntilSmall()
    x = sample(model, x, solvers[0], steered, cond=cond, uncond=uncond)
    run = capture(model, x, solvers[0], Z2Sampling(warmup=5), cond=cond, uncond=uncond)
    x = run(x, strong=3.0)
    inverted: Inverted = invert(model, x, solvers[1], EDICT(), cond=cond, guidance=1.0)
    x = reconstruct(model, inverted, solvers[1], cond=uncond, guidance=1.0)
    x = ddim_step(x, x, 0.5, 0.8, 0.7, 0.7)
    return convert(x, x, 0.6, 0.8, "epsilon", "v")


def with_state(x: Tensor) -> tuple[APG, CFGZeroStar, State]:
    """Rules that read the state, and what they are called with."""
    return APG(5.0), CFGZeroStar(5.0), State(x, 0.6, 0.8, "epsilon")


@dataclass(frozen=True)
class Brightness:
    """A score of one's own."""

    name: str = "brightness"

    def weights(self) -> str:
        return "none"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        return checked(prompts, images).flatten(1).mean(1)


def scored(images: Tensor) -> list[Tensor]:
    """Images by a score of one's own, and by one of the box."""
    prompts: list[Prompt] = read_prompts("prompts.txt")
    scores: list[Scorer] = [Brightness(), scorer("clip", "cpu", prompts)]
    return [score([prompt.text for prompt in prompts], images) for score in scores]


def over(ranks: ProcessGroup, x: Tensor, solver: Solver) -> Tensor:
    """A sample whose rows are shared out over ranks, with a time limit."""
    return sample(rows_over(model, Ranks(ranks, timeout=60.0)), x, solver, Z2Sampling(), cond=x, uncond=x)


def wrong() -> None:
    """What the checkers have to see: an ignore that is not needed is an error too."""
    Z2Sampling(warm_up=5)  # type: ignore[call-arg]
    State("x", 0.6, 0.8, "epsilon")  # type: ignore[arg-type]


print(zigzag.__version__)
