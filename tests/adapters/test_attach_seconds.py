"""Pipelines of two states, as of video and sound, each stepped by a scheduler of its own: both go along the path."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, seeded
from torch import Tensor, nn

from support.steered import Led
from zigzag import Resampling, Standard, Tol, Z2Sampling, ZSampling, count_rows, sample
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
    """A loop over both, the second on a copy of the scheduler or on one of the pipeline's own."""

    def __init__(self, scheduler: Any, own: bool) -> None:
        self.scheduler, self.transformer = scheduler, Net()
        if own:
            self.sound_scheduler = copy.deepcopy(scheduler)

    def __call__(self, x: Tensor, y: Tensor, *, still: bool = False, swapped: bool = False) -> tuple[Tensor, Tensor]:
        self.scheduler.set_timesteps(6)
        second = getattr(self, "sound_scheduler", None) or copy.deepcopy(self.scheduler)
        second.set_timesteps(6)
        c = torch.tensor([[-0.5]] * len(x) + [[1.0]] * len(x))
        for i, t in enumerate(self.scheduler.timesteps):
            assert float(second.timesteps[i]) == float(t)  # as some look it up, by the loop's counter
            (e_u, e_c), (f_u, f_c) = (
                e.chunk(2) for e in self.transformer(torch.cat([x, x]), torch.cat([y, y]), t.expand(2 * len(x)), c)
            )
            e, f = e_u + SCALES[0] * (e_c - e_u), f_u + SCALES[1] * (f_c - f_u)
            if not swapped:
                x = self.scheduler.step(e, t, x, return_dict=False)[0]
            y = second.step(0 * f if still else f, t, y, return_dict=False)[0]
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


@pytest.fixture(scope="module")
def video() -> tuple[Any, dict[str, Any]]:
    import tiny_sound

    return tiny_sound.ltx2()


def test_video_and_sound(video: tuple[Any, dict[str, Any]]) -> None:
    """LTX-2 as it is, against the core with its transformer called by hand; the sound is heard in the video."""
    pipe, call = video
    shown: list[dict[str, Any]] = []
    last: dict[str, Tensor] = {}

    def run() -> tuple[Tensor, Tensor]:
        hook = pipe.transformer.register_forward_pre_hook(lambda m, a, k: shown.append(k), with_kwargs=True)
        shown.clear()
        out = pipe(**call, generator=seeded(5), callback_on_step_end=lambda p, i, t, g: last.update(g) or {})
        hook.remove()
        return out

    plain = run()
    with attach(pipe, Standard()) as counted:
        assert all(torch.equal(x, y) for x, y in zip(run(), plain, strict=True))
    assert counted.rows == 2 * 6
    first = dict(shown[0])
    x, y = first["hidden_states"][:1], first["audio_hidden_states"][:1]
    sizes = [x[0].numel(), y[0].numel()]

    def predict(z: Tensor, t: Tensor, row: int) -> Tensor:
        parts = [p.reshape(1, *s.shape[1:]) for p, s in zip(z.split(sizes, 1), (x, y), strict=True)]
        one = {k: v[row : row + 1] if isinstance(v, Tensor) and len(v) == 2 else v for k, v in first.items()}
        one |= {"hidden_states": parts[0], "audio_hidden_states": parts[1], "timestep": t, "sigma": t}
        return torch.cat([e.flatten(1) for e in pipe.transformer(**one)], 1)

    class Both(Scales):
        def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
            assert e_c is not None and e_u is not None
            w = torch.tensor([4.0, 3.0]).repeat_interleave(torch.tensor(sizes))
            return e_u + w * (e_c - e_u)

    for method in METHODS[:2]:
        with attach(pipe, method) as counted:
            run()
        assert counted.rows == 2 * calls_of(method.path(6))
        solver = adapters.solver_from_scheduler(pipe.scheduler)
        given: dict[str, Any] = {"cond": 1, "uncond": 0, "strong": Both(sizes[0]), "batched": False}
        led = sample(predict, torch.cat([x.flatten(1), y.flatten(1)], 1), solver, method, **given)
        check_same(last["latents"].flatten(1), led[:, : sizes[0]])


def test_video_and_sound_of_one_branch(video: tuple[Any, dict[str, Any]]) -> None:
    """Distilled, under a role of another prompt: both states' gaps are those of their own parts."""
    pipe, call = video
    shown: list[dict[str, Any]] = []
    last: dict[str, Tensor] = {}
    one = call | {"guidance_scale": 1.0, "audio_guidance_scale": 1.0}
    hook = pipe.transformer.register_forward_pre_hook(lambda m, a, k: shown.append(k), with_kwargs=True)
    pipe(**one, generator=seeded(5))
    hook.remove()
    first = dict(shown[0])
    x, y = first["hidden_states"], first["audio_hidden_states"]
    sizes, own = [x[0].numel(), y[0].numel()], first["encoder_hidden_states"]
    other = torch.randn(own.shape, generator=seeded(8))

    def predict(z: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        parts = [p.reshape(s.shape) for p, s in zip(z.split(sizes, 1), (x, y), strict=True)]
        given = {"hidden_states": parts[0], "audio_hidden_states": parts[1], "timestep": t, "sigma": t}
        return torch.cat(
            [e.flatten(1) for e in pipe.transformer(**{**first, **given, "encoder_hidden_states": cond})], 1
        )

    for method in METHODS[:2]:
        with attach(pipe, method, weak=adapters.Role(edit={"encoder_hidden_states": other})) as run:
            pipe(**one, generator=seeded(5), callback_on_step_end=lambda p, i, t, g: last.update(g) or {})
        solver = adapters.solver_from_scheduler(pipe.scheduler)
        given: dict[str, Any] = {"cond": own, "weak_cond": other, "strong": 1.0, "weak": 1.0, "batched": False}
        led = sample(predict, torch.cat([x.flatten(1), y.flatten(1)], 1), solver, method, **given)
        check_same(last["latents"].flatten(1), led[:, : sizes[0]])
        assert run.rows == count_rows(method, 6, strong=1.0, weak=1.0, own_weak=("cond",))
