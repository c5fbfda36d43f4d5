"""What pipelines and callbacks read of the scheduler, and of the run, while a path leads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_paths import calls_of, check_same, picture
from torch import Tensor

from zigzag import DDIM, EndToEnd, ImplicitZ, Standard, Z2Sampling, ZSampling
from zigzag.moves import Denoise, Invert, Shift

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

import swept_nets as nets  # noqa: E402
from swept_more_videos import changed  # noqa: E402
from swept_parts import of_family, pil  # noqa: E402
from swept_unets import seen  # noqa: E402
from swept_videos import guided  # noqa: E402

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = [Standard(), Z2Sampling(warmup=1), ZSampling(steps=2), ImplicitZ(), EndToEnd()]


def levels_of(scheduler: Any) -> list[tuple[float, float]]:
    """`(α, σ)` of every knot, by the scheduler's own tables."""
    if hasattr(scheduler, "sigmas"):
        flow = isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler)
        return [(1 - s if flow else 1.0, s) for s in scheduler.sigmas.tolist()]
    abar = [scheduler.alphas_cumprod[t] for t in scheduler.timesteps.tolist()] + [scheduler.final_alpha_cumprod]
    return [(float(a) ** 0.5, float(1 - a) ** 0.5) for a in abar]


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("family", ["sd", "sdxl", "wan"])
def test_a_callback_finds_the_level_of_its_latents(family: str, method: Any, tiny: Tiny, schedulers: Tiny) -> None:
    """`step_index` is their knot, `sigmas[step_index]` and `run.sigma` their σ, also at the end, where it is 0."""
    case = tiny(family) if family != "sdxl" else tiny(family, scheduler=schedulers("euler"))
    case.run()
    levels, seen, told = levels_of(case.pipe.scheduler), [], []

    def look(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        scheduler = pipe.scheduler
        seen.append((run.knot, run.alpha, run.sigma))
        if hasattr(scheduler, "step_index"):
            told.append((scheduler.step_index, float(scheduler.sigmas[scheduler.step_index])))
        return {}

    with attach(case.pipe, method) as run:
        case.run(callback_on_step_end=look)
    assert seen[-1][0] == len(levels) - 1
    path = [move for move in method.path(len(levels) - 1) if not isinstance(move, Shift)]
    if all(isinstance(move, Denoise | Invert) for move in method.path(len(levels) - 1)):
        assert [knot for knot, *_ in seen] == [move.end for move in path]
    wanted = torch.tensor([levels[knot] for knot, *_ in seen])
    torch.testing.assert_close(torch.tensor([pair for _, *pair in seen]), wanted, rtol=1e-5, atol=2e-6)
    if family != "sd":
        assert told == [(knot, levels[knot][1]) for knot, *_ in seen]


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_an_image_noised_for_the_whole_loop(kind: str, method: Any, tiny: Tiny, schedulers: Tiny) -> None:
    """Differential diffusion: `add_noise(x, n, timesteps)[i]` fits the state at call i."""
    case = tiny("sd", scheduler=schedulers(kind))
    scheduler, x, n = case.pipe.scheduler, picture(1, 4, 8, 8), case.latents
    scheduler.set_timesteps(6)
    levels, knots = levels_of(scheduler), []
    for move in method.path(6):  # where the state stands that each call is made at
        knots += [] if isinstance(move, Shift) and not move.fresh else [move.start]
    with torch.no_grad(), attach(case.pipe, method):
        scheduler.set_timesteps(6)
        noised, count = scheduler.add_noise(x, n, scheduler.timesteps), len(scheduler.timesteps)
    assert len(noised) == count == len(knots)
    for row, knot in zip(noised, knots, strict=True):
        alpha, sigma = levels[knot] if knot < 6 else (1.0, 0.0)
        torch.testing.assert_close(row, (alpha * x + sigma * n)[0], rtol=1e-5, atol=1e-5)


def test_the_time_of_one_knot_is_that_of_every_sample(tiny: Tiny) -> None:
    """A slice that ends is no loop: image to image noises its batch to the first time."""
    case = tiny("sd")
    x, n = picture(2, 4, 8, 8), picture(2, 4, 8, 8)
    with attach(case.pipe, ZSampling()):
        case.pipe.scheduler.set_timesteps(6)
        seen = case.pipe.scheduler.add_noise(x, n, case.pipe.scheduler.timesteps[:1])
    case.pipe.scheduler.set_timesteps(6)
    torch.testing.assert_close(seen, case.pipe.scheduler.add_noise(x, n, case.pipe.scheduler.timesteps[:1]))


@pytest.mark.parametrize("end", [0.01, None])
def test_a_grid_that_the_pipeline_writes_into(
    end: float | None, tiny: Tiny, schedulers: Tiny, monkeypatch: Any
) -> None:
    """Cosmos 2 sets its last σ after `set_timesteps`: the path ends there, without a step that does nothing."""
    case = tiny("sd", scheduler=schedulers("euler"))
    scheduler, prepare = case.pipe.scheduler, case.pipe.prepare_extra_step_kwargs

    def write(*args: Any) -> Any:
        scheduler.sigmas[-1] = scheduler.sigmas[-2] if end is None else end
        return prepare(*args)

    monkeypatch.setattr(case.pipe, "prepare_extra_step_kwargs", write)
    steps = 6 if end else 5
    for method in (Z2Sampling(warmup=1), ZSampling(steps=steps)):
        with attach(case.pipe, method) as run:
            x = case.run()
        sigmas = scheduler.sigmas[: steps + 1]
        assert run.sigma == pytest.approx(float(sigmas[-1])) and run.rows == 2 * calls_of(method.path(steps))
        check_same(x, case.sampled(method, solver=DDIM(torch.ones(steps + 1), sigmas, scheduler.timesteps[:steps])))


@pytest.mark.parametrize("method", [Standard(), Z2Sampling(warmup=1), ZSampling(), ImplicitZ(), EndToEnd()], ids=repr)
def test_a_model_of_mean_velocities_is_told_where_its_step_ends(method: Any) -> None:
    """At every call, also of an inversion; the pipeline says the time of its next call for it."""
    family = changed(nets.hunyuan15, image_embed_dim=16, task_type="i2v", use_meanflow=True)
    given = {"image": pil(16)}
    case = of_family("HunyuanVideo15ImageToVideoPipeline", family, given, lambda: guided() | seen())
    told = list[tuple[float, float]]()
    model = case.pipe.transformer
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append((float(kwargs["timestep"]), float(kwargs["timestep_r"]))),
        with_kwargs=True,
    )
    plain = case.run()
    times = [*case.pipe.scheduler.timesteps.tolist(), 0.0]
    steps = dict(pairwise(times))
    assert told == [pair for pair in steps.items() for _ in range(2)]
    told.clear()
    with attach(case.pipe, method):
        led = case.run()
    hook.remove()
    assert len(told) == 2 * calls_of(method.path(3)) and all(steps[t] == end for t, end in told)
    assert torch.equal(led, plain) == isinstance(method, Standard)
    assert torch.equal(case.run(), plain)
