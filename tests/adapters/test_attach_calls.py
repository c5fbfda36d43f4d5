"""What surrounds a model call, done for every call of a path: compilers, hooks, callbacks, caches."""

from __future__ import annotations

import copy
import io
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from zigzag import Resampling, Standard, Tol, Trace, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
WANTED = 1e-5
METHODS = [ZSampling(steps=3), Z2Sampling(warmup=1)]


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.dtype == y.dtype and x.shape == y.shape and float((x - y).norm() / y.norm()) <= WANTED


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_models(how: str, tiny: Tiny) -> None:
    case, method = tiny("sd3"), ZSampling(steps=2)
    with attach(case.pipe, method):
        wanted = case.run()
    if how == "wrapped":
        case.pipe.transformer = torch.compile(case.pipe.transformer, backend="eager")
    else:
        case.pipe.transformer.compile(backend="eager")
    plain = case.run()
    with attach(case.pipe, Standard()) as run:
        assert torch.equal(case.run(), plain) and run.rows == 12
    with attach(case.pipe, method) as run:
        check_same(case.run(), wanted)
    assert run.rows == 2 * 10
    assert torch.equal(case.run(), plain)
    torch.compiler.reset()


def test_hooks_that_replace_forward(tiny: Tiny) -> None:
    """Offloading replaces `forward` on the instance, as accelerate does; calls are still seen."""
    case, method = tiny("sd3"), ZSampling(steps=3)
    wanted, moves, forward = case.sampled(method) if case.run() is not None else None, [], case.model.forward

    def onload(self: Any, *args: Any, **kwargs: Any) -> Any:
        moves.append("on")
        return forward(*args, **kwargs)

    case.model.forward = types.MethodType(onload, case.model)
    with attach(case.pipe, method) as run:
        check_same(case.run(), wanted)
    assert run.rows == 2 * len(moves)


@pytest.mark.parametrize("family", ["sd", "sdxl", "wan"])
def test_several_images_a_prompt(family: str, tiny: Tiny) -> None:
    case, wide, method = tiny(family, 1), tiny(family, 2), ZSampling(steps=3)
    wide.run()
    repeat = {"num_videos_per_prompt" if family == "wan" else "num_images_per_prompt": 2}
    case.latents = wide.latents
    with attach(case.pipe, method) as run:
        x = case.run(**repeat)
    assert run.rows == 2 * len(method.path(len(case.pipe.scheduler.timesteps)))
    case.cond, case.uncond = tree_map(lambda e: torch.cat([e, e]), (case.cond, case.uncond))
    check_same(x, case.sampled(method))


def test_a_callback_sees_each_call_and_may_replace_the_state(tiny: Tiny) -> None:
    """It is called after every call, with the state of the next and its knot; what it returns goes on."""
    case, method, knots, counts = tiny("sdxl"), ZSampling(steps=2), [], []
    with attach(case.pipe, method) as run:

        def callback(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
            knots.append(run.knot)
            counts.append(i)
            return {"latents": given["latents"] * 0.9}

        x = case.run(callback_on_step_end=callback)
    path = method.path(6)
    assert knots == [move.end for move in path] and counts == list(range(len(path)))
    check_same(x, case.sampled(method, callback=lambda visit: visit.state * 0.9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callback_may_write_in_place(mode: Any, dtype: torch.dtype, tiny: Tiny) -> None:
    case, method = tiny("sdxl"), ZSampling(steps=2)
    case.run()
    wanted = case.sampled(method, callback=lambda visit: visit.state * 0.9)

    def callback(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        given["latents"].mul_(0.9)
        return {}

    case.pipe.to(dtype)
    case.latents = case.latents.to(dtype)
    halves = {name: e.to(dtype) for name, e in case.call.items() if isinstance(e, Tensor)}
    try:
        with mode(), attach(case.pipe, method):
            x = case.run(**halves, callback_on_step_end=callback)
    finally:
        case.pipe.to(torch.float32)
    if dtype == torch.float32:
        check_same(x, wanted)
    else:  # 2**-3 tells 0.9 at every call from 0.9 at none, which is another order of magnitude in the end
        assert float((x.float() - wanted).norm() / wanted.norm()) < 2**-3


@pytest.mark.parametrize("batch", [1, 2])
def test_two_transformers_one_after_the_other(batch: int, tiny: Tiny) -> None:
    """Wan 2.2 changes models at a time; each call goes to the one that the time of its knot asks for."""
    import tiny_unets

    case, method = tiny("wan", batch), ZSampling()
    second = tiny_unets.shake(diffusers.WanTransformer3DModel.from_config(case.pipe.transformer.config), 9)
    case.pipe.transformer_2 = second
    case.pipe.register_to_config(boundary_ratio=0.6)
    plain = case.run(guidance_scale_2=4.0)
    with attach(case.pipe, Standard()) as run:
        assert torch.equal(case.run(guidance_scale_2=4.0), plain)
    assert run.rows == 2 * 6
    with attach(case.pipe, method) as run:
        x = case.run(guidance_scale_2=4.0)
    first = case.predict
    case.predict = lambda x, t, cond: (
        first(x, t, cond) if t[0] >= 600 else second(hidden_states=x, timestep=t, **cond).sample
    )
    check_same(x, case.sampled(method))
    assert run.rows == 2 * len(method.path(6))


def test_resampling_draws_from_the_generator_of_the_pipeline(tiny: Tiny) -> None:
    """The noise of Renoise comes from the generator given to `attach`, else the one passed to the pipeline."""
    case, method = tiny("sd"), Resampling(steps=2)

    def run(seed: int) -> Tensor:
        with attach(case.pipe, method):
            return case.run(generator=torch.Generator().manual_seed(seed), latents=case.latents)

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))


def test_a_look_at_the_time_steps_does_not_disturb_the_loop(tiny: Tiny) -> None:
    case, method, seen = tiny("sd"), ZSampling(steps=3), []

    def look(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        times = pipe.scheduler.timesteps
        seen.append((list(times), repr(times), len(times), times[i], copy.deepcopy(pipe.scheduler).timesteps))
        assert times[i] == t
        return {}

    with attach(case.pipe, method):
        x = case.run(callback_on_step_end=look)
    check_same(x, case.sampled(method))
    grid = case.pipe.scheduler.timesteps
    for times, text, length, _, copied in seen:
        assert times == list(grid) and "tensor" in text and length == len(method.path(6))
        assert type(copied) is Tensor and torch.equal(copied, grid)


def test_a_copy_of_the_scheduler_is_on_its_own(tiny: Tiny) -> None:
    """Pipelines with sound step a deep copy for it; that one is not attached."""
    case = tiny("sd")
    case.run()
    x, e = torch.ones(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    wanted = case.pipe.scheduler.step(e, case.pipe.scheduler.timesteps[0], x).prev_sample
    with attach(case.pipe, ZSampling()) as run:
        new = copy.deepcopy(case.pipe.scheduler)
        new.set_timesteps(6)
        assert torch.equal(new.step(e, new.timesteps[0], x).prev_sample, wanted)
        assert new.timesteps is not case.pipe.scheduler.timesteps
    assert run.rows == 0


@pytest.mark.parametrize("how", ["enabled", "applied"])
def test_a_cache_across_calls_is_refused(how: str, tiny: Tiny) -> None:
    """It assumes that each time is visited once."""
    case, config = tiny("flux"), diffusers.FirstBlockCacheConfig(threshold=0.1)
    if how == "enabled":
        case.pipe.transformer.enable_cache(config)
    else:
        diffusers.hooks.apply_first_block_cache(case.pipe.transformer, config)
    plain = case.run()
    with pytest.raises(ValueError, match="disable_cache"), attach(case.pipe, ZSampling()):
        case.run()
    with attach(case.pipe, Standard()):
        assert torch.equal(case.run(), plain)
    if how == "applied":
        return
    case.pipe.transformer.disable_cache()
    with attach(case.pipe, ZSampling()):
        x = case.run()
    check_same(x, case.sampled(ZSampling()))


def test_free_init_runs_its_loop_several_times(tiny: Tiny) -> None:
    """Each of AnimateDiff's passes follows the path; rows are those of all of them, a trace that of the last."""
    case, method, trace = tiny("animatediff"), ZSampling(steps=2), Trace()
    case.pipe.enable_free_init(num_iters=2)
    plain = case.run(generator=torch.Generator().manual_seed(0))
    with attach(case.pipe, Standard()) as run:
        assert torch.equal(case.run(generator=torch.Generator().manual_seed(0)), plain)
    assert run.rows == 2 * 2 * 6
    with attach(case.pipe, method, trace=trace) as run:
        case.run(generator=torch.Generator().manual_seed(0))
    assert run.rows == 2 * trace.rows == 2 * 2 * len(method.path(6))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", ["sd", "wan", "sana", "pixart"])
def test_dpm_solver_at_order_one(family: str, batch: int, tiny: Tiny) -> None:
    """Wan and Sana come with multistep flow schedulers; at order 1 they step as FlowMatchEuler does."""
    flow = family in ("wan", "sana")
    config = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0} if flow else {}
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=1, timestep_spacing="leading", **config)
    case, method = tiny(family, batch, scheduler=scheduler), ZSampling()
    solver = pytest.importorskip("zigzag.adapters.diffusers").solver_from_scheduler
    plain = case.run()
    with attach(case.pipe, Standard()):
        assert torch.equal(case.run(), plain)
    with attach(case.pipe, method):
        x = case.run()
    check_same(x, case.sampled(method, solver=solver(case.pipe.scheduler)))


LOOSE = ZSampling(steps=2, refine=Tol(0.2, most=9))  # which ends before its time


@pytest.mark.parametrize("method", [Standard(), *METHODS, LOOSE])
@pytest.mark.parametrize("family", ["sd", "sd to nowhere", "flux", "wan"])
def test_the_progress_bar_ticks_once_a_call(family: str, method: Any, tiny: Tiny, monkeypatch: Any) -> None:
    """And is full at the end, also where fewer calls were needed, or a last one that does nothing was left out."""
    case, bars = tiny(family.split()[0]), []
    if family == "sd to nowhere":
        case.pipe.scheduler.register_to_config(steps_offset=0)
    make = type(case.pipe).progress_bar

    def keep(self: Any, *args: Any, **kwargs: Any) -> Any:
        bars.append(make(self, *args, **kwargs))
        return bars[-1]

    monkeypatch.setattr(type(case.pipe), "progress_bar", keep)
    case.pipe.set_progress_bar_config(file=io.StringIO())
    with attach(case.pipe, method) as run:
        case.run()
    assert len(bars) == 1 and bars[0].n == bars[0].total
    assert run.rows / 2 < bars[0].total if method is LOOSE else run.rows / 2 == bars[0].total
