"""Methods that are steered by their walk, in a pipeline's loop: as `zigzag.sample` leads them, and as planned paths."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_paths import check_same, picture
from torch import Tensor

from support.steered import Led, UntilItTurns
from zigzag import Denoise, Invert, Resampling, Shift, Tol, Trace, Visit, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

from real_schedulers import REAL, noise, runs, seeded  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*without its corrector"),
]

Tiny = Callable[..., Any]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_the_pipeline_is_led_as_sample_leads_its_network(family: str, batch: int, tiny: Tiny) -> None:
    """The same moves, chosen by the same visits; rows are those that ran; and the method stops here and goes on there.

    Doubled batches (sd, sdxl, sd3) and two calls (flux).
    """
    case, traces = tiny(family, batch), (Trace(), Trace())
    never = UntilItTurns(2.0)
    case.run()
    case.sampled(never)
    ours, theirs = UntilItTurns(never.between()), UntilItTurns(never.between())
    with attach(case.pipe, ours, trace=traces[0]) as run, case.counted() as rows:
        x = case.run()
    check_same(x, case.sampled(theirs, trace=traces[1]))
    assert run.rows == traces[0].rows == sum(rows) / batch == ours.seen[-1].rows
    for mine, wanted in zip(ours.seen, theirs.seen, strict=True):
        assert (mine.move, mine.knot) == (wanted.move, wanted.knot)
        torch.testing.assert_close(mine.state, wanted.state, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(mine.gap, wanted.gap, rtol=1e-3, atol=1e-3)
    for one, two in zip(*(trace.records for trace in traces), strict=True):
        assert (one.move, one.knot, one.beta) == (two.move, two.knot, None)
        assert (one.tau2 is None) == (two.tau2 is None)
    turns = [isinstance(visit.move, Invert) for visit in ours.seen]
    assert 5 < sum(turns) < 15  # at some steps once, at others as often as may be


HELD = ["ddim eta", "euler ancestral", "dpm 2m", "sde dpm 3m", "unipc", "pndm", "lcm", "heun", "kdpm2 ancestral"]
METHODS = [
    ZSampling(),
    ZSampling(steps=2, span=2, rounds=2, refine=1, strength=0.5),
    ZSampling(steps=2, refine=Tol(0.05, most=3)),
    Z2Sampling(warmup=1, steps=2),
    Resampling(steps=2),
]


@pytest.mark.filterwarnings("ignore:.*did not converge")
@pytest.mark.parametrize("name", HELD)
def test_moves_handed_out_one_by_one_are_the_path_beforehand(name: str) -> None:
    """Bit for bit, with the memory, the noise and the second calls of the scheduler."""
    for n, method in enumerate(METHODS):
        x = noise(1 + n % 2)
        given = {"renoise": seeded(9)}
        planned = runs(REAL[name], x, method, **given)
        given = {"renoise": seeded(9)}
        assert torch.equal(runs(REAL[name], x, Led(method), **given), planned), method


def test_the_check_fails_on_a_move_more() -> None:
    path = ZSampling(steps=2).path(5)
    more = (*path[:3], Invert(1, 0), Denoise(0, 1), *path[3:])
    assert not torch.equal(
        runs(REAL["dpm 2m"], noise(1), Led(more)), runs(REAL["dpm 2m"], noise(1), ZSampling(steps=2))
    )


def test_a_part_of_the_grid_has_knots_of_its_own(tiny: Tiny) -> None:
    """Image to image: the method has as many steps as are left, and visits them from knot 0 on."""
    given = {"strength": 0.7, "generator": 0, "num_inference_steps": 10}
    case = tiny("sdxl", 2, kind="Img2Img", image=picture(2, 3, 16, 16), **given)
    outs, led, path = [], Led(ZSampling(steps=4)), ZSampling(steps=4).path(7)
    for method in (ZSampling(steps=4), led):
        with attach(case.pipe, method) as run:
            outs.append(case.run(generator=seeded()))
        assert run.knot == 10
    assert torch.equal(*outs)
    assert [(visit.move, visit.knot) for visit in led.seen] == [(move, move.end) for move in path]


def test_roles_are_asked_in_passes_of_their_own(tiny: Tiny) -> None:
    """Every Denoise of such a path has to fill the gap, so that it takes both; a Shift from the cache takes none."""
    case = tiny("flux", true_cfg_scale=1.0)
    method = Z2Sampling(warmup=1)
    outs, rows = [], []
    for each in (method, Led(method)):
        with attach(case.pipe, each, weak=Role(guidance=1.5)) as run, case.counted() as counted:
            outs.append(case.run())
        assert run.rows == sum(counted)
        rows.append(run.rows)
    assert torch.equal(*outs)
    assert rows == [2 * 6 - 1, 2 * 6]  # beforehand it is known that no shift follows the last one


def test_the_method_sees_the_state_before_the_pipelines_callback_changes_it(tiny: Tiny) -> None:
    """It has decided by then, as the time for the next call depends on it; what the callback returns goes on."""
    case, changed, path = tiny("sdxl"), list[Tensor](), ZSampling(steps=2)
    led = Led(path)

    def callback(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        changed.append(given["latents"])
        return {"latents": given["latents"] * 0.9}

    with attach(case.pipe, led):
        x = case.run(callback_on_step_end=callback)
    check_same(x, case.sampled(path, callback=lambda visit: visit.state * 0.9))
    assert all(torch.equal(visit.state, y) for visit, y in zip(led.seen, changed, strict=True))


@pytest.mark.parametrize("family", ["sd3", "sdxl"])
def test_a_callback_finds_what_it_finds_on_the_path_beforehand(family: str, tiny: Tiny, schedulers: Tiny) -> None:
    """The knot and its levels; of the scheduler its own count, and the σ of the call and the one before."""
    case = tiny(family) if family == "sd3" else tiny(family, scheduler=schedulers("euler"))

    def found(method: Any) -> list[tuple[Any, ...]]:
        seen = []

        def look(pipe: Any, i: int, t: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
            at = pipe.scheduler.step_index
            sigmas = [float(pipe.scheduler.sigmas[k]) for k in (at, i, max(i - 1, 0))]
            seen.append((i, float(t), run.knot, run.alpha, run.sigma, at, *sigmas))
            return given

        with attach(case.pipe, method) as run:
            case.run(callback_on_step_end=look)
        return seen

    assert found(Led(ZSampling(steps=3))) == found(ZSampling(steps=3))


def test_an_image_that_is_noised_for_all_calls_at_once_is_refused(tiny: Tiny) -> None:
    case = tiny("sd")
    x, scheduler = torch.ones(1, 4, 8, 8), case.pipe.scheduler
    with attach(case.pipe, UntilItTurns()), pytest.raises(ValueError, match="for all calls of its loop"):
        scheduler.set_timesteps(6)
        scheduler.add_noise(x, x, scheduler.timesteps)


def test_the_progress_bar_ticks_once_a_call_toward_no_total(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    case, bars = tiny("sd"), []
    make = type(case.pipe).progress_bar
    monkeypatch.setattr(
        type(case.pipe), "progress_bar", lambda *args, **kwargs: bars.append(make(*args, **kwargs)) or bars[-1]
    )
    case.pipe.set_progress_bar_config(file=io.StringIO())
    with attach(case.pipe, UntilItTurns()) as run:
        case.run()
    assert len(bars) == 1 and bars[0].total is None and bars[0].n == run.rows / 2


def state_of(pipe: Any) -> dict[str, Any]:
    hooks = len(pipe.unet._forward_hooks) + len(pipe.unet._forward_pre_hooks)
    return {"pipe": sorted(vars(pipe)), "scheduler": sorted(vars(pipe.scheduler)), "hooks": hooks}


def broken(at: int) -> Any:
    def look(visit: Visit) -> None:
        if visit.knot == at:
            raise ZeroDivisionError("of the method's own")

    return Led(ZSampling(), look)


@pytest.mark.parametrize(
    ("method", "error", "match", "calls"),
    [
        (Led((Denoise(1, 2),)), ValueError, "begins at knot 0, but the first move .*i=1", 0),
        (Led(()), ValueError, "run from nowhere to nowhere", 0),
        (Led((3,)), TypeError, "move 0 of the path must be Denoise", 0),
        (Led((Shift(0, False),)), ValueError, "needs a cached gap", 0),
        (Led((Denoise(0, 1), Denoise(1, 2))), ValueError, "ends at knot 6, but the moves run from 0 to 2", 2),
        (Led((Denoise(0, 1), None)), TypeError, "move 1 of the path must be", 1),
        (Led((Denoise(0, 1), Denoise(2, 3))), ValueError, "does not connect: move 1", 1),
        (Led((Denoise(0, 1), Invert(1, 0, refine=-1))), ValueError, "refine must be", 1),
        (broken(2), ZeroDivisionError, "of the method's own", 4),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_come_where_the_move_does_and_leave_the_pipeline_as_it_was(
    method: Any, error: type[Exception], match: str, calls: int, tiny: Tiny
) -> None:
    """In the words of `sample`, and of a path that is known beforehand; the first move before the first model call."""
    case = tiny("sd")
    plain, before = case.run(), state_of(case.pipe)
    with case.counted() as rows, pytest.raises(error, match=match), attach(case.pipe, method):
        case.run()
    assert len(rows) == calls and state_of(case.pipe) == before
    assert torch.equal(case.run(), plain)


def test_a_pipeline_of_one_branch_is_refused_at_its_first_call(tiny: Tiny) -> None:
    case = tiny("sd", guidance_scale=1.0)
    refused = pytest.raises(ValueError, match="no unconditional branch at knot 0")
    with case.counted() as rows, refused, attach(case.pipe, UntilItTurns()):
        case.run()
    assert len(rows) == 1


def test_what_draws_anew_where_it_leaves_for_good_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `sample`: it has to know beforehand."""
    loop = pytest.importorskip("zigzag.adapters.diffusers.plans")
    make = loop._plan_of

    def fresh(*args: Any) -> Any:
        plan = make(*args)
        plan.solver.fresh_noise = True
        return plan

    monkeypatch.setattr(loop, "_plan_of", fresh)
    case = tiny("sd")
    refused = pytest.raises(ValueError, match="fresh_noise=True has to know beforehand")
    with case.counted() as rows, refused, attach(case.pipe, UntilItTurns()):
        case.run()
    assert not rows


def test_a_strength_that_leaves_no_step(tiny: Tiny) -> None:
    given = {"strength": 0.05, "generator": 0, "num_inference_steps": 10}
    case = tiny("sdxl", kind="Img2Img", image=picture(1, 3, 16, 16), **given)
    with pytest.raises(ValueError, match="no step left"), attach(case.pipe, UntilItTurns()):
        case.run(generator=seeded())


def test_inversions_that_did_not_converge_are_told_of(tiny: Tiny) -> None:
    case, method = tiny("sd"), ZSampling(steps=3, refine=Tol(1e-14, most=2))
    with pytest.warns(UserWarning, match="of 3 inversions did not converge"), attach(case.pipe, Led(method)):
        case.run()


def test_extra_arguments_of_the_scheduler_begin_the_method_anew() -> None:
    """`eta` is known at the first step only: the noise is that of the path beforehand."""
    real = dataclasses.replace(REAL["ddim eta"], extra={"eta": 0.7})
    method = ZSampling(steps=2)
    assert torch.equal(runs(real, noise(2), Led(method)), runs(real, noise(2), method))
