"""`attach` on every family of pipelines: as it was under Standard, and the core's own loop under everything else."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from zigzag import CFG, EndToEnd, ImplicitZ, Resampling, Standard, StepInfo, Tol, Trace, Z2Sampling, ZSampling
from zigzag.moves import Denoise, Invert, Renoise, Shift

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach
Names = pytest.importorskip("zigzag.adapters.diffusers.branches").Names


# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]

IMAGE = ["sd", "sdxl", "sd3", "hunyuan", "pixart", "sana", "lumina2", "z_image", "flux", "flux2_klein", "qwen"]
VIDEO = ["animatediff", "modelscope", "cogvideox", "wan"]
MORE = ["auraflow", "chroma", "cogview4", "ltx"]
FAMILIES = IMAGE + VIDEO + MORE

# Two implementations of one algorithm in float32; what they differ by is measured at 1e-6 and below.
WANTED = 1e-5


def distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.dtype == y.dtype and x.shape == y.shape and distance(x, y) <= WANTED


def state_of(pipe: Any) -> dict[str, Any]:
    """Everything of a pipeline, its scheduler and its models that attaching could leave traces in."""
    models = [m for m in (getattr(pipe, n, None) for n in ("unet", "transformer")) if m is not None]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in models]
    return {"pipe": sorted(vars(pipe)), "hooks": hooks, "scheduler": dict(vars(pipe.scheduler))}


def check_state(now: dict[str, Any], then: dict[str, Any]) -> None:
    assert now["pipe"] == then["pipe"] and now["hooks"] == then["hooks"]
    assert now["scheduler"].keys() == then["scheduler"].keys()
    for name, value in then["scheduler"].items():
        new = now["scheduler"][name]
        assert type(new) is type(value), name
        assert torch.equal(new, value) if isinstance(value, Tensor) else new == value, name


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_standard_is_the_pipeline_itself_bit_by_bit(family: str, batch: int, tiny: Tiny) -> None:
    """Same latents, same state of pipeline and scheduler after it; and two rows a step are counted."""
    case = tiny(family, batch)
    plain, before = case.run(), state_of(case.pipe)
    with attach(case.pipe, Standard()) as run, case.counted() as rows:
        x = case.run()
    assert torch.equal(x, plain)
    assert run.rows == sum(rows) / batch == 2 * len(case.pipe.scheduler.timesteps)
    check_state(state_of(case.pipe), before)
    assert torch.equal(case.run(), plain)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", [ZSampling(steps=3), Z2Sampling(warmup=2)], ids=["z", "z2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_zigzags_are_those_of_the_core(family: str, method: Any, batch: int, tiny: Tiny) -> None:
    """`attach` equals `zigzag.sample` with predictor and solver written out in the tests; rows are those that ran."""
    case = tiny(family, batch)
    plain, before = case.run(), state_of(case.pipe)
    with attach(case.pipe, method, weak=0.0) as run, case.counted() as rows:
        x = case.run()
    check_same(x, case.sampled(method))
    check_state(state_of(case.pipe), before)
    assert run.rows == sum(rows) / batch
    calls = [move for move in method.path(len(case.pipe.scheduler.timesteps)) if not isinstance(move, Shift)]
    assert run.rows == 2 * len(calls)  # the pipeline always runs both branches
    with pytest.raises(AssertionError):  # the mutant that does nothing
        check_same(plain, x)


@pytest.mark.parametrize("family", ["sdxl", "z_image", "flux", "qwen"])
def test_the_check_fails_where_branches_are_exchanged(family: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mutants: conditional for unconditional, and the sign that the pipeline gives them dropped."""
    case, method = tiny(family), ZSampling(steps=3)
    named = Names.of
    mutants = [lambda self, *given: named(Names(1 - self.cond, self.sign), *given)]
    mutants.append(lambda self, *given: named(Names(self.cond, -self.sign), *given))
    for mutant in mutants:
        monkeypatch.setattr(Names, "of", mutant)
        with attach(case.pipe, method):
            x = case.run()
        with pytest.raises(AssertionError):
            check_same(x, case.sampled(method))


METHODS = [
    ZSampling(steps=2, rounds=2, span=2, refine=1, strength=0.5),
    ZSampling(steps=4, released=True),
    ZSampling(steps=2, refine=Tol(0.03, most=4)),
    EndToEnd(),
    ImplicitZ(),
    Z2Sampling(warmup=0, steps=3),
    Resampling(steps=2, rounds=2),
    (Denoise(0, 2), Invert(2, 1), Denoise(1, 2), Shift(2, False), Denoise(2, 6)),
    (Denoise(0, 1), Renoise(1, 0), Shift(0, True), Denoise(0, 6)),
]


@pytest.mark.parametrize("scheduler", ["ddim", "v", "euler", "flow"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_every_method_and_any_path_runs(method: Any, scheduler: str, tiny: Tiny, schedulers: Tiny) -> None:
    """All methods, and moves of one's own that skip knots, on every kind of prediction."""
    case = tiny("sd3") if scheduler == "flow" else tiny("sd", scheduler=schedulers(scheduler))
    trace, wanted = Trace(), Trace()
    with attach(case.pipe, method, weak=0.5, trace=trace, generator=torch.Generator().manual_seed(1)) as run:
        x = case.run()
    y = case.sampled(method, weak=0.5, trace=wanted, generator=torch.Generator().manual_seed(1))
    check_same(x, y)
    assert trace.rows == run.rows == wanted.rows
    assert [record.move for record in trace.records] == [record.move for record in wanted.records]
    for mine, theirs in zip(trace.records, wanted.records, strict=True):
        for name in ("delta", "tau1", "tau2"):
            a, b = getattr(mine, name), getattr(theirs, name)
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weak", [0.0, 0.5, 1.0, 2.0, -1.0])
def test_any_weak_scale(weak: float, tiny: Tiny) -> None:
    case, method = tiny("sdxl"), ZSampling(steps=3)
    with attach(case.pipe, method, weak=weak):
        x = case.run()
    check_same(x, case.sampled(method, weak=weak))


def test_the_trace_of_standard_sampling_counts_its_rows(tiny: Tiny) -> None:
    case, trace = tiny("sd"), Trace()
    with attach(case.pipe, Standard(), trace=trace) as run:
        case.run()
    assert [record.move for record in trace.records] == list(Standard().path(6))
    assert trace.rows == run.rows == 12


@pytest.mark.parametrize("family", ["sd", "sd3", "wan", "cogvideox", "modelscope"])
def test_a_state_that_nobody_changed_is_never_rounded(family: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back in bfloat16, reshaped or not, is known for what was handed out: no state is sent back."""
    loop = pytest.importorskip("zigzag.adapters.diffusers.loop")
    traverse, sent = loop.traverse, []

    def spied(*args: Any, **kwargs: Any) -> Any:
        moves, reply = traverse(*args, **kwargs), None
        while True:
            reply = yield moves.send(reply)
            if not isinstance(reply, loop.Answer):
                sent.append(reply)

    monkeypatch.setattr(loop, "traverse", spied)
    case = tiny(family)
    case.pipe.to(torch.bfloat16)
    case.latents = case.latents.bfloat16()
    halves = {name: e.bfloat16() for name, e in case.call.items() if isinstance(e, Tensor)}
    try:
        with attach(case.pipe, ZSampling(steps=3)):
            case.run(**halves)
    finally:
        case.pipe.to(torch.float32)
    assert sent and all(reply is None for reply in sent)


class HalfCFG(CFG):
    """Plain guidance in the arithmetic of the pipelines, which is that of the branches."""

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        assert e_c is not None and e_u is not None
        cond, uncond = e_c.bfloat16(), e_u.bfloat16()
        return (uncond + self.at(step) * (cond - uncond)).to(e_c.dtype)


def halves(tree: Any) -> Any:
    return tree_map(lambda e: e.bfloat16() if isinstance(e, Tensor) and e.is_floating_point() else e, tree)


@pytest.mark.parametrize("method", [ZSampling(steps=3), Z2Sampling(warmup=1)], ids=["z", "z2"])
@pytest.mark.parametrize("family", ["sd", "flux", "wan"])
def test_half_precision_keeps_its_state_in_float32(
    family: str, method: Any, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit `zigzag.sample` in float32, of a model and guidance in bfloat16; in and out are bfloat16."""
    adapters, case = pytest.importorskip("zigzag.adapters.diffusers"), tiny(family)
    case.pipe.to(torch.bfloat16)
    try:
        case.latents, case.call = case.latents.bfloat16(), halves(case.call)
        with attach(case.pipe, method):
            x = case.run()
        loop, predict = pytest.importorskip("zigzag.adapters.diffusers.loop"), case.predict
        monkeypatch.setattr(loop.Loop, "_changed", lambda self, sample: sample.float())
        with attach(case.pipe, method):
            rounded = case.run()
        case.cond, case.uncond = halves(case.cond), halves(case.uncond)
        case.predict = lambda x, t, cond: predict(x.bfloat16(), t, cond)
        solver = adapters.solver_from_scheduler(case.pipe.scheduler)
        one = family == "sd"  # of the calls: where it is one of both branches, it is here, for the same roundings
        given = {"solver": solver, "strong": HalfCFG(4.0), "batched": one}
        y = case.sampled(method, start=case.latents.float(), **given)
    finally:
        case.pipe.to(torch.float32)
    assert x.dtype == torch.bfloat16 and torch.equal(x, y.bfloat16())
    assert not torch.equal(rounded, y.bfloat16())  # the mutant that goes on from the rounded state


def test_any_number_of_calls_a_step_is_counted(tiny: Tiny) -> None:
    """Under Standard(), of a loop of one's own, rows are those that ran, however many; and no output is kept."""
    case, kept = tiny("sd"), []
    with torch.no_grad(), attach(case.pipe, Standard()) as run, case.counted() as rows:
        case.pipe.scheduler.set_timesteps(2)
        x = case.latents
        for t in case.pipe.scheduler.timesteps:
            for _ in range(20):
                e = case.pipe.unet(x, t, case.call["prompt_embeds"]).sample
                kept.append(weakref.ref(e))
            assert sum(ref() is not None for ref in kept) == 1
            x = case.pipe.scheduler.step(e, t, x).prev_sample
    assert run.rows == sum(rows) == 40


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_euler_on_v(family: str, batch: int, tiny: Tiny, schedulers: Tiny) -> None:
    """In the σ-space of Euler the prediction of `v` is a step of its own (`EulerV`)."""
    solver_of = pytest.importorskip("zigzag.adapters.diffusers").solver_from_scheduler
    case = tiny(family, batch, scheduler=schedulers("euler", prediction_type="v_prediction"))
    plain = case.run()
    with attach(case.pipe, Standard()) as run:
        assert torch.equal(case.run(), plain)
    assert run.rows == 12
    for method in (ZSampling(steps=3), Z2Sampling(warmup=1), ZSampling(steps=2, span=2, refine=1)):
        with attach(case.pipe, method):
            x = case.run()
        check_same(x, case.sampled(method, solver=solver_of(case.pipe.scheduler)))
