"""Pipelines of two states, as of video and sound, each stepped by a scheduler of its own: both go along the path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, seeded
from torch import Tensor, nn

from support.steered import Led
from zigzag import Resampling, Standard, Tol, Z2Sampling, ZSampling, sample
from zigzag.solvers import StepInfo

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach = adapters.attach

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers' own, of numpy

METHODS = [Z2Sampling(warmup=1), ZSampling(), ZSampling(steps=2, rounds=2, refine=1)]
SCALES = 4.0, 2.5


class Scales:
    """Plain guidance of the two states together, `n` entries of the first, each at its own scale."""

    def __init__(self, n: int) -> None:
        self.n = n

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return True, True

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        assert e_c is not None and e_u is not None
        w = torch.full((e_c.shape[1],), SCALES[1])
        w[: self.n] = SCALES[0]
        return e_u + w * (e_c - e_u)


class Net(nn.Module):
    """Two predictions, each of both states."""

    def forward(self, x: Tensor, y: Tensor, t: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        s = t.reshape(-1, 1) / 1000
        return torch.tanh(x + c * y.mean(1, keepdim=True) - s), torch.sin(y * c + x.mean(1, keepdim=True)) + s


class Pipe:
    """A loop over both, the second on a copy of the scheduler or on one of the pipeline's own.

    The second one's times are `taken` before the first has its own, or from a copy of that one, or as they are used.
    """

    def __init__(self, scheduler: Any, own: bool, taken: str = "late") -> None:
        self.scheduler, self.transformer, self.taken, self.called = scheduler, Net(), taken, 0
        if own:
            self.sound_scheduler = copy.deepcopy(scheduler)

    def second(self) -> tuple[Any, Any]:
        """Its scheduler, and the times that the loop looks up, None where they are the scheduler's."""
        second = getattr(self, "sound_scheduler", None) or copy.deepcopy(self.scheduler)
        if self.taken == "early":
            second.set_timesteps(6)
        self.scheduler.set_timesteps(6)
        if self.taken == "copied":
            second = copy.deepcopy(self.scheduler)
        elif self.taken == "late":
            second.set_timesteps(6)
        return second, None if self.taken == "late" else second.timesteps

    def __call__(self, x: Tensor, y: Tensor, *, still: bool = False, swapped: bool = False) -> tuple[Tensor, Tensor]:
        second, times = self.second()
        c = torch.tensor([[-0.5]] * len(x) + [[1.0]] * len(x))
        for i, t in enumerate(self.scheduler.timesteps):
            now = (second.timesteps if times is None else times)[i]  # as some look it up, by the loop's counter
            assert float(now) == float(t)
            self.called += 1
            (e_u, e_c), (f_u, f_c) = (
                e.chunk(2) for e in self.transformer(torch.cat([x, x]), torch.cat([y, y]), t.expand(2 * len(x)), c)
            )
            e, f = e_u + SCALES[0] * (e_c - e_u), f_u + SCALES[1] * (f_c - f_u)
            if not swapped:
                x = self.scheduler.step(e, t, x, return_dict=False)[0]
            y = second.step(0 * f if still else f, now, y, return_dict=False)[0]
            if swapped:
                x = self.scheduler.step(e, t, x, return_dict=False)[0]
        return x, y


def states(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 7, generator=seeded(1)), torch.randn(batch, 5, generator=seeded(2))


def joined(pipe: Pipe, method: Any, *, still: bool = False) -> list[Tensor]:
    """Both as one state, by the core alone."""
    net, x = pipe.transformer, torch.cat(states(), 1)

    def predict(x: Tensor, t: Tensor, c: float) -> Tensor:
        e, f = net(x[:, :7], x[:, 7:], t, torch.full((len(x), 1), c))
        return torch.cat([e, 0 * f if still else f], 1)

    solver = adapters.solver_from_scheduler(pipe.scheduler)
    given = {"cond": 1.0, "uncond": -0.5, "strong": Scales(7), "batched": False}
    return [*sample(predict, x, solver, method, **given).split([7, 5], 1)]


SCHEDULERS = {
    "flow": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "dpm": lambda: diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
}


@pytest.mark.parametrize("own", [False, True], ids=["a copy", "its own"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_both_states_go_along_the_path(name: str, own: bool) -> None:
    pipe = Pipe(SCHEDULERS[name](), own)
    plain = pipe(*states())
    with attach(pipe, Standard()) as run:
        assert all(torch.equal(x, y) for x, y in zip(pipe(*states()), plain, strict=True))
    assert run.rows == 2 * 6
    for method in METHODS:
        with attach(pipe, method) as run:
            ours = pipe(*states())
        refined = sum(getattr(move, "refine", 0) for move in method.path(6))
        assert run.rows == 2 * (calls_of(method.path(6)) + refined)
        for x, y in zip(ours, joined(pipe, method), strict=True):
            check_same(x, y)
        with attach(pipe, Led(method)):
            assert all(torch.equal(x, y) for x, y in zip(pipe(*states()), ours, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(pipe(*states()), plain, strict=True))
    assert not own or ("step" not in vars(pipe.sound_scheduler) and len(pipe.sound_scheduler.timesteps) == 6)


@pytest.mark.parametrize(("own", "taken"), [(False, "early"), (True, "early"), (False, "copied")])
def test_times_that_are_taken_before_the_calls_are_known(own: bool, taken: str) -> None:
    """By a pipeline that sets its second scheduler first, or copies the first one when its grid is set."""
    pipe, late = Pipe(SCHEDULERS["flow"](), own, taken), Pipe(SCHEDULERS["flow"](), False)
    plain = pipe(*states())
    for method in [*METHODS, Led(METHODS[1])]:
        ours = []
        for each in (pipe, late):
            with attach(each, method):
                ours.append([*each(*states()), *each(*states())])
        assert all(torch.equal(x, y) for x, y in zip(*ours, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(pipe(*states()), plain, strict=True))
    assert not own or type(pipe.sound_scheduler.timesteps) is Tensor


def test_another_grid_is_refused_where_it_is_looked_up() -> None:
    """Before the first model call; for standard sampling it is nobody's."""
    pipe = Pipe(SCHEDULERS["flow"](), True, "early")
    pipe.sound_scheduler.set_shift(7.0)
    for method in METHODS:
        with pytest.raises(RuntimeError, match="or on another grid"), attach(pipe, method):
            pipe(*states())
    assert not pipe.called and type(pipe.sound_scheduler.timesteps) is Tensor


def test_a_state_that_is_kept_as_it_is() -> None:
    """Handed no prediction at all (a soundtrack that is given), it has no gap."""
    pipe = Pipe(SCHEDULERS["flow"](), False)
    for method in METHODS:
        with attach(pipe, method):
            ours = pipe(*states(), still=True)
        check_same(ours[0], joined(pipe, method, still=True)[0])
        assert torch.equal(ours[1], states()[1])


def test_each_draws_its_own_noise_where_the_path_comes_up() -> None:
    pipe = Pipe(SCHEDULERS["flow"](), False)
    with attach(pipe, Resampling(), generator=seeded(3)):
        one = pipe(*states())
    with attach(pipe, Resampling(), generator=seeded(3)):
        two = pipe(*states())
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True)) and all(x.isfinite().all() for x in one)


def test_what_is_not_in_step_is_refused() -> None:
    """A second state stepped before the first, or on another grid; an iteration that would end for each by itself."""

    def other(pipe: Pipe) -> Any:
        pipe.sound_scheduler.set_shift(7.0)
        return pipe(*states())

    for run in (lambda pipe: pipe(*states(), swapped=True), other):
        for method in METHODS:
            pipe = Pipe(SCHEDULERS["flow"](), True)
            with pytest.raises(RuntimeError, match="steps a copy of its scheduler, or another"), attach(pipe, method):
                run(pipe)
    pipe = Pipe(SCHEDULERS["flow"](), True)
    for method in (ZSampling(refine=Tol(0.1, most=3)), Led(ZSampling(refine=Tol(0.1, most=3)))):
        with pytest.raises(ValueError, match=r"two states.*refine=3"), attach(pipe, method):
            pipe(*states())
