"""Pipelines of video and sound (LTX-2, Kandinsky 6): both go along the path, and what is given of a video stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, seeded
from torch import Tensor

from zigzag import Standard, Z2Sampling, ZSampling, count_rows, sample
from zigzag.solvers import StepInfo

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach = adapters.attach

from swept_more_videos import heard, kandinsky6  # noqa: E402
from swept_parts import of_family  # noqa: E402
from tiny_sound import ltx2, ltx2_form  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers' own, of numpy

METHODS = [Z2Sampling(warmup=1), ZSampling()]


class Joined:
    """Plain guidance of the two states together, of so many entries, at the scales of the call, or the weak one.

    moves: 0 for what is kept, which has no prediction at any scale.
    """

    def __init__(self, video: int, sound: int, moves: Tensor | float = 1.0, *, weak: bool = False) -> None:
        scales = torch.tensor([0.0, 0.0] if weak else [4.0, 3.0])
        self.w, self.moves = scales.repeat_interleave(torch.tensor([video, sound])), moves

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return True, True

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        assert e_c is not None and e_u is not None
        return self.moves * (e_u + self.w * (e_c - e_u))


@pytest.fixture(scope="module")
def video() -> tuple[Any, dict[str, Any]]:
    return ltx2()


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

    for method in METHODS:
        with attach(pipe, method) as counted:
            run()
        assert counted.rows == 2 * calls_of(method.path(6))
        solver = adapters.solver_from_scheduler(pipe.scheduler)
        given: dict[str, Any] = {"cond": 1, "uncond": 0, "strong": Joined(*sizes), "batched": False}
        led = sample(predict, torch.cat([x.flatten(1), y.flatten(1)], 1), solver, method, **given)
        check_same(last["latents"].flatten(1), led[:, : sizes[0]])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("LTX2ConditionPipeline", False),
        ("LTX2ConditionPipeline", True),
        ("LTX2InContextPipeline", True),
        ("LTX2HDRPipeline", True),
    ],
)
def test_a_video_that_is_given_in_part(name: str, given: bool) -> None:
    """Against the core: what is kept stays as it is, at every call, and the rest goes along the path with the sound."""
    pipe, call = ltx2_form(name, given)
    shown: list[dict[str, Any]] = []
    seen: list[Tensor] = []

    def run() -> None:
        hook = pipe.transformer.register_forward_pre_hook(lambda m, a, k: shown.append(k), with_kwargs=True)
        shown.clear()
        pipe(**call, generator=seeded(5), callback_on_step_end=lambda p, i, t, g: seen.append(g["latents"]) or {})
        hook.remove()

    run()
    first = dict(shown[0])
    x, y = first["hidden_states"][:1], first["audio_hidden_states"][:1]
    sizes, noisy = [x[0].numel(), y[0].numel()], (first["timestep"][:1] != 0).float()
    assert given == bool((noisy == 0).any())
    tokens = noisy[..., None].expand_as(x).flatten(1)[0]
    moves = torch.cat([tokens, torch.full((sizes[1],), float("HDR" not in name))])

    def predict(z: Tensor, t: Tensor, row: int) -> Tensor:
        parts = [p.reshape(1, *s.shape[1:]) for p, s in zip(z.split(sizes, 1), (x, y), strict=True)]
        one = {k: v[row : row + 1] if isinstance(v, Tensor) and len(v) == 2 else v for k, v in first.items()}
        one |= {"hidden_states": parts[0], "audio_hidden_states": parts[1], "timestep": t[:, None] * noisy}
        one |= dict.fromkeys(("audio_timestep", "sigma", "audio_sigma"), t)
        return torch.cat([e.flatten(1) for e in pipe.transformer(**one)], 1)

    solver = adapters.solver_from_scheduler(pipe.scheduler)
    for method in METHODS:
        seen.clear()
        with attach(pipe, method) as counted:
            run()
        assert counted.rows == 2 * calls_of(method.path(6)) == 2 * len(seen)
        rule: dict[str, Any] = {"strong": Joined(*sizes, moves), "weak": Joined(*sizes, moves, weak=True)}
        together = torch.cat([x.flatten(1), y.flatten(1)], 1)
        led = sample(predict, together, solver, method, cond=1, uncond=0, batched=False, **rule)
        check_same(seen[-1].flatten(1), led[:, : sizes[0]])
        assert all(torch.equal((state - x)[noisy == 0], torch.zeros_like(x)[noisy == 0]) for state in seen)


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

    for method in METHODS:
        with attach(pipe, method, weak=adapters.Role(edit={"encoder_hidden_states": other})) as run:
            pipe(**one, generator=seeded(5), callback_on_step_end=lambda p, i, t, g: last.update(g) or {})
        solver = adapters.solver_from_scheduler(pipe.scheduler)
        given: dict[str, Any] = {"cond": own, "weak_cond": other, "strong": 1.0, "weak": 1.0, "batched": False}
        led = sample(predict, torch.cat([x.flatten(1), y.flatten(1)], 1), solver, method, **given)
        check_same(last["latents"].flatten(1), led[:, : sizes[0]])
        assert run.rows == count_rows(method, 6, strong=1.0, weak=1.0, own_weak=("cond",))


def test_video_and_sound_of_kandinsky_6() -> None:
    """Against the core with its transformer called by hand; its sound is stepped by a copy, at the scale of both."""
    case = of_family("Kandinsky6TI2VAPipeline", kandinsky6, {"sample_audio": True}, heard, scale=None)
    shown: list[dict[str, Any]] = []
    hook = case.pipe.transformer.register_forward_pre_hook(lambda m, a, k: shown.append(k), with_kwargs=True)
    case.run()
    hook.remove()
    x, y = shown[0]["hidden_states"][..., :4], shown[0]["audio_hidden_states"]
    sizes = [x[0].numel(), y[0].numel()]

    def predict(z: Tensor, t: Tensor, row: int) -> Tensor:
        video, sound = (p.reshape(s.shape) for p, s in zip(z.split(sizes, 1), (x, y), strict=True))
        seen = torch.cat([video, torch.zeros_like(shown[0]["hidden_states"][..., 4:])], -1)
        told = shown[row] | {"hidden_states": seen, "audio_hidden_states": sound, "timestep": t}
        return torch.cat([e.flatten(1) for e in case.pipe.transformer(**told)], 1)

    for method in METHODS:
        with attach(case.pipe, method), case.seen() as rows:
            led = case.run()
        assert len(rows) == 2 * calls_of(method.path(3))
        solver = adapters.solver_from_scheduler(case.pipe.scheduler)
        given: dict[str, Any] = {"cond": 0, "uncond": 1, "strong": 4.0, "batched": False}
        z = sample(predict, torch.cat([x.flatten(1), y.flatten(1)], 1), solver, method, **given)
        video, sound = (p.reshape(s.shape) for p, s in zip(z.split(sizes, 1), (x, y), strict=True))
        check_same(led, torch.cat([video.permute(0, 4, 1, 2, 3).flatten(), sound.mT.flatten()]))
