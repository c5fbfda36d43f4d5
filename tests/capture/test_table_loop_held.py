"""The loop on tables for solvers with memory, noise and second evaluations is the loop of `sample`."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from support.loops import FLOW, GRID, METHODS, SCALES, SOLVERS
from support.tables import COND, UNCOND, NoSync, X, check_same, eps_fn, generator
from zigzag import Standard, Trace, Z2Sampling, ZSampling, sample
from zigzag.capture import kernels
from zigzag.capture.graphs import CapturedLoop, TableLoop
from zigzag.solvers import AdamsBashforth, AffineStep, DPMSolver, Heun, Solver


def loop(name: str, method: str, kind: type[TableLoop] = TableLoop, **given: Any) -> TableLoop:
    return kind(eps_fn, X, SOLVERS[name], METHODS[method], cond=COND, uncond=UNCOND, **given)


def sampled(name: str, method: str, x: Tensor = X, cond: Tensor = COND, **given: Any) -> Tensor:
    given = {"generator": generator(), **given}
    return sample(eps_fn, x, SOLVERS[name], METHODS[method], cond=cond, uncond=UNCOND, **given)


@pytest.mark.parametrize("scales", list(SCALES))
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", list(SOLVERS))
def test_the_loop_on_tables_is_sample(name: str, method: str, scales: str) -> None:
    """Same results, same rows, as much noise of the generator; and the same bits when it is run again."""
    given, trace, theirs, ours = SCALES[scales], Trace(), generator(), generator()
    expected = sampled(name, method, trace=trace, generator=theirs, **given)
    run = loop(name, method, **given)
    first, second = run(X, generator=ours), run(X, generator=generator())
    check_same(first, expected)
    assert torch.equal(first, second)
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert run.rows == trace.rows


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if solver.inner(0, 1) is None])
def test_parts_of_zigzags_are_those_of_sample(name: str) -> None:
    """What a step holds is kept in part with the rest; on steps of two evaluations it is refused."""
    method, solver, ours, theirs = ZSampling(span=2, strength=0.3), SOLVERS[name], generator(), generator()
    run = TableLoop(eps_fn, X, solver, method, cond=COND, uncond=UNCOND)
    expected = sample(eps_fn, X, solver, method, cond=COND, uncond=UNCOND, generator=theirs)
    check_same(run(X, generator=ours), expected)
    with pytest.raises(ValueError, match="on steps of two evaluations"):
        TableLoop(eps_fn, X, SOLVERS["heun"], method, cond=COND, uncond=UNCOND)


@pytest.mark.parametrize("name", ["eta", "sde 2", "lcm"])
def test_another_generator_is_another_sample(name: str) -> None:
    """And one that goes on from run to run gives what it gives `sample`."""
    run, ours, theirs = loop(name, "z"), generator(2), generator(2)
    for _ in range(2):
        check_same(run(X, generator=ours), sampled(name, "z", generator=theirs))
    with pytest.raises(AssertionError):
        check_same(run(X, generator=generator(3)), sampled(name, "z"))


@pytest.mark.parametrize("method", ["z", "z2", "end-to-end", "implicit"])
@pytest.mark.parametrize("name", ["3M", "sde 2", "heun", "everything"])
def test_nothing_of_a_run_is_left_for_the_next(name: str, method: str) -> None:
    """What is not read is multiplied by 0, which a state that is not a number would get through."""
    run = loop(name, method)
    expected = run(X, generator=generator())
    assert not run(X * torch.nan, generator=generator()).isfinite().any()
    assert torch.equal(run(X, generator=generator()), expected)


@pytest.mark.parametrize("method", ["z", "z2"])
@pytest.mark.parametrize("name", ["3M", "sde 2", "adams 3", "heun", "everything"])
def test_new_states_conditions_and_scales_are_fed_into_the_same_loop(name: str, method: str) -> None:
    """The scale is in what is remembered too."""
    run, x, cond = loop(name, method), X.flip(0) * 0.7, COND + 0.3
    check_same(run(x, cond=cond, generator=generator()), sampled(name, method, x, cond))
    given = {"strong": 3.0, "weak": 0.0}
    check_same(run(x, generator=generator(), **given), sampled(name, method, x, cond, **given))
    check_same(run(X, generator=generator(), cond=COND, strong=5.5), sampled(name, method))


@pytest.mark.parametrize("name", ["3M", "sde 2", "heun"])
def test_float32_loses_no_more_than_sample_does(name: str) -> None:
    """That holds of a first prediction too that is read off the state of the second."""
    run = TableLoop(eps_fn, X.float(), SOLVERS[name], Z2Sampling(2), cond=COND.float(), uncond=UNCOND.float())
    given = {"generator": generator(), "cond": COND.float(), "uncond": UNCOND.float()}
    theirs = sample(eps_fn, X.float(), SOLVERS[name], Z2Sampling(2), **given)
    size = 1 + theirs.abs().max()
    assert (run(X.float(), generator=generator()) - theirs).abs().max() <= 64 * torch.finfo(torch.float32).eps * size


# How many graphs `capture` makes for a method: on solvers of one evaluation a step, and of two.
KINDS = {
    "standard": (1, 2),
    "z2": (1, 2),
    "z2, no warmup": (1, 2),
    "implicit": (1, 2),
    "z": (2, 3),
    "z, span 3, to the end": (2, 3),
    "resampling": (2, 3),
    "z, span, rounds, refine": (3, 4),
    "end-to-end": (3, 4),
}


@pytest.mark.parametrize("method", list(KINDS))
@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_kind_of_move_is_one_graph_whatever_the_order_and_the_noise(name: str, method: str) -> None:
    """As many as on DDIM, and one more where a step has two evaluations; Z² on 2M and 3M needs a single one."""
    run = loop(name, method)
    assert len(run.steps) == KINDS[method][bool(SOLVERS[name].inner(0, 1))]
    plain = TableLoop(eps_fn, X, GRID, METHODS[method], cond=COND, uncond=UNCOND)
    assert len(plain.steps) == KINDS[method][0]


@pytest.mark.parametrize(
    ("name", "method", "slots"),
    [("2M", "z2", 1), ("3M", "z2", 2), ("2M", "z", 2), ("3M", "z", 3), ("3M", "resampling", 1), ("adams 3", "z2", 2)],
)
def test_the_memory_has_as_many_slots_as_are_read_at_once(name: str, method: str, slots: int) -> None:
    """And one more, for what nobody reads, where a zigzag fills them all. Nothing is gathered."""
    plan = loop(name, method).plan
    assert (plan.depth, plan.slots.shape[1]) == (slots, 0)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("solver", [GRID, FLOW, DPMSolver.on(GRID, order=1), AdamsBashforth.on(GRID, order=1)])
def test_a_first_order_deterministic_solver_pays_nothing(solver: Solver, method: str) -> None:
    run = TableLoop(eps_fn, X, solver, METHODS[method], cond=COND, uncond=UNCOND)
    assert run.carry.memory.numel() == run.plan.reads == 0
    for kind in run.steps:
        assert not (kind.recalls or kind.leaves or kind.adds_anchor or (kind.adds_noise and kind.rows))
    assert all((noise is not None) == kind.adds_noise for kind, noise in zip(*run.plan[:2], strict=True))


def test_a_second_state_that_does_not_tell_the_first_prediction_is_refused() -> None:
    class Blind(Heun):
        def inner(self, i: int, j: int) -> Any:
            inner = super().inner(i, j)
            return inner and inner._replace(first=AffineStep(1.0, 0.0))

    with pytest.raises(ValueError, match=r"Denoise\(i=0, j=1, plain=False\) cannot be captured.*B = 0.*use sample"):
        TableLoop(eps_fn, X, Blind.on(GRID), Standard(), cond=COND, uncond=UNCOND)


@pytest.mark.parametrize(
    ("name", "method"), [("3M", "z2"), ("sde 2", "z"), ("everything", "z, span 3, to the end"), ("heun", "end-to-end")]
)
def test_each_kind_of_step_traces_without_a_break_and_once_for_all_steps(name: str, method: str) -> None:
    torch._dynamo.reset()
    run = loop(name, method)
    counters = {kind: CompileCounterWithBackend("aot_eager") for kind in run.steps}
    expected = run(X, generator=generator())
    run.steps = {kind: torch.compile(step, fullgraph=True, backend=counters[kind]) for kind, step in run.steps.items()}
    torch.testing.assert_close(run(X, generator=generator()), expected, rtol=1e-12, atol=1e-12)
    assert {counter.frame_count for counter in counters.values()} == {1}


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["3M", "sde 2", "everything"])
def test_a_whole_sample_reads_no_value_on_the_host(name: str, method: str) -> None:
    run = loop(name, method)
    with NoSync():
        run(X, generator=generator())


class Passes(TorchDispatchMode):
    """Counts the operations that write as many numbers as a latent has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.shape[-X.ndim :] == X.shape and not func.is_view:
            self.seen[func.overloadpacket.__name__] += 1
        return out


@pytest.mark.parametrize(
    ("solver", "passes"),
    [
        (GRID, {"mul": 1, "addcmul": 2, "copy_": 1}),
        (SOLVERS["eta"], {"mul": 1, "addcmul": 3, "copy_": 1}),
        (SOLVERS["2M"], {"mul": 2, "addcmul": 5, "copy_": 1, "index_copy_": 1}),
        (SOLVERS["3M"], {"mul": 2, "addcmul": 6, "copy_": 1, "index_copy_": 1}),
    ],
)
def test_a_step_of_z2_makes_no_pass_over_the_latents_but_these(solver: Solver, passes: dict[str, int]) -> None:
    """A step that holds nothing: the state, two predictions, the new state. Each thing held is one more."""
    run = TableLoop(lambda x, t, cond: X, X, solver, Z2Sampling(2), cond=COND, uncond=UNCOND, batched=False)
    with Passes() as counted:
        run._advance(run.plan.kinds[2])
    assert counted.seen == passes


def test_a_step_with_the_kernel_is_five_launches_beside_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cast and the concatenation of the state, its time, the kernel, which writes the state in place, the count."""
    launched: list[str] = []

    class Launches(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not func.is_view:
                launched.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    def fused(numbers: kernels.Numbers, y: Tensor, p: int, terms: Any, out: Tensor) -> Tensor:
        launched.append("kernel")
        with _disable_current_modes():
            return out.copy_(kernels._plain(*kernels._operands(numbers, y, p, terms)))

    x = X.bfloat16()
    predicted = torch.cat([x, x])
    run = TableLoop(lambda x, t, cond: predicted, x, GRID, Z2Sampling(2), cond=x, uncond=x)
    expected = run(x)
    monkeypatch.setattr(kernels, "_fusable", lambda *given: True)
    monkeypatch.setattr(kernels, "_fused", fused)
    assert torch.equal(run(x), expected)
    run.k.zero_()
    launched.clear()
    with Launches():
        run._advance(run.plan.kinds[2])
    assert sorted(launched) == ["_to_copy", "add_", "cat", "index_select", "kernel"]


def test_a_model_that_evaluates_nothing_is_not_prepared_for() -> None:
    """The state is cast for the predictor that is asked, and for no other."""
    x = X.bfloat16()
    given = {"cond": x[:, 0, 0], "uncond": x[:, 0, 0], "batched": False}
    run = TableLoop(lambda x, t, cond: x, x, GRID, ZSampling(), weak_fn=lambda x, t, cond: x, **given)
    for kind in run.steps:
        with Passes() as counted:
            run._advance(kind)
        assert counted.seen["_to_copy"] == 1 + len(kind.branches)  # the state, and predictions to float32
        run.k.zero_()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_the_compiled_loop_is_sample() -> None:
    check_same(loop("everything", "z2", compiled=True)(X, generator=generator()), sampled("everything", "z2"))


@pytest.mark.gpu
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", ["eta", "2M", "3M", "sde 2, fresh", "heun, flow", "everything"])
def test_captured_is_uncaptured_bit_for_bit_and_never_syncs(name: str, method: str) -> None:
    x, cond, uncond = (k.to("cuda", torch.float32) for k in (X, COND, UNCOND))
    loops = [
        kind(eps_fn, x, SOLVERS[name], METHODS[method], cond=cond, uncond=uncond) for kind in (TableLoop, CapturedLoop)
    ]
    noise = torch.Generator("cuda")
    for given in ({}, {"cond": cond * 2}, {"strong": 3.0}):
        results = []
        for run in loops:
            run(x, generator=noise.manual_seed(3), **given)  # scales are copied from the host: that may wait
            torch.cuda.set_sync_debug_mode("error")
            try:
                results.append(run(x, generator=noise.manual_seed(3)))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(*results)
