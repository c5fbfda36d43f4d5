"""The loop on tables is the loop of `sample`; it can be traced and captured, and waits for nothing on the host."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from support import loops
from support.tables import COND, UNCOND, NoSync, X, check_same, eps_fn, generator, other_fn
from zigzag import (
    CFG,
    CFGPlusPlus,
    Denoise,
    Interval,
    RescaledCFG,
    Spherical,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    sample,
)
from zigzag.capture.graphs import CapturedLoop, TableLoop, capture

T = loops.T
SOLVERS = {"ddim": loops.GRID, "flow": loops.FLOW, "spherical": Spherical.cosine(T)}
METHODS: dict[str, Any] = loops.METHODS | {
    "z, released": ZSampling(released=True),
    "parts of z": ZSampling(span=2, rounds=2, strength=0.3),
    "a path": (*loops.METHODS["a path"][:-1], Denoise(1, 3)),  # over a knot, which steps that hold nothing do too
}
SCALES: dict[str, dict[str, Any]] = {
    "5.5 and 0": {},
    "conditional": {"strong": 1.0},
    "3 and 2": {"strong": 3.0, "weak": 2.0},
    "rules": {"strong": Interval(CFGPlusPlus(0.6), 1, 4), "weak": CFG(lambda step: 0.1 * step.i)},
}


def loop(name: str, method: str, **given: Any) -> TableLoop:
    return TableLoop(eps_fn, X, SOLVERS[name], METHODS[method], cond=COND, uncond=UNCOND, **given)


def sampled(name: str, method: str, x: Tensor = X, cond: Tensor = COND, **given: Any) -> Tensor:
    out = sample(eps_fn, x, SOLVERS[name], METHODS[method], cond=cond, uncond=UNCOND, generator=generator(), **given)
    return out


@pytest.mark.parametrize("scales", list(SCALES))
@pytest.mark.parametrize("weak_fn", [None, other_fn], ids=["one model", "weak_fn"])
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("name", list(SOLVERS))
def test_the_loop_on_tables_is_sample(name: str, method: str, weak_fn: Any, scales: str) -> None:
    """Same results, same rows; and the same bits when it is run again."""
    given = SCALES[scales] | {"weak_fn": weak_fn}
    trace = Trace()
    expected = sampled(name, method, trace=trace, **given)
    run = loop(name, method, **given)
    first, second = run(X, generator=generator()), run(X, generator=generator())
    check_same(first, expected)
    assert torch.equal(first, second)
    assert run.rows == trace.rows


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.parametrize("method", ["z2", "z", "resampling"])
def test_the_compiled_loop_is_sample(method: str) -> None:
    run = loop("ddim", method, compiled=True)
    check_same(run(X, generator=generator()), sampled("ddim", method))


def test_the_comparison_fails_on_another_path() -> None:
    with pytest.raises(AssertionError):
        check_same(loop("ddim", "z2")(X), sampled("ddim", "implicit"))


@pytest.mark.parametrize(
    ("method", "kinds"),
    [("standard", 1), ("z2", 1), ("z", 2), ("implicit", 1), ("z, released", 2), ("resampling", 2)],
)
def test_a_kind_of_move_is_one_graph_for_all_its_steps(method: str, kinds: int) -> None:
    """Z² needs a single one: in the warm-up, and at the end, its shift coefficient is 0."""
    assert len(loop("ddim", method).steps) == kinds


def test_new_states_conditions_and_scales_are_fed_into_the_same_loop() -> None:
    run = loop("flow", "z2")
    x, cond = X.flip(0) * 0.7, COND + 0.3
    check_same(run(x), sampled("flow", "z2", x))
    check_same(run(x, cond=cond), sampled("flow", "z2", x, cond))
    check_same(run(x), sampled("flow", "z2", x, cond))  # what is not passed stays
    check_same(run(x, strong=3.0, weak=0.5), sampled("flow", "z2", x, cond, strong=3.0, weak=0.5))
    check_same(run(X, cond=COND, strong=5.5, weak=0.0), sampled("flow", "z2"))


def test_the_callers_tensors_are_neither_kept_nor_written() -> None:
    cond, x = COND.clone(), X.clone()
    run = TableLoop(eps_fn, x, SOLVERS["ddim"], Standard(), cond=cond, uncond=UNCOND)
    out = run(x)
    kept = out.clone()
    run(x * 0, cond=COND * 2)
    assert torch.equal(out, kept) and torch.equal(x, X) and torch.equal(cond, COND)
    del cond
    torch.testing.assert_close(run(x, cond=COND), kept)


def test_half_precision_comes_and_goes_and_float32_is_carried() -> None:
    x = X.to(torch.bfloat16)
    run = TableLoop(eps_fn, x, SOLVERS["ddim"], Z2Sampling(2), cond=COND.bfloat16(), uncond=UNCOND.bfloat16())
    assert run(x).dtype == torch.bfloat16 and run.carry.x.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"x": X[:1]}, ValueError, "make a new loop"),
        ({"x": X.float()}, ValueError, "float32"),
        ({"x": X, "cond": COND[:1]}, ValueError, "leaf 0 of cond"),
        ({"x": X, "cond": {"c": COND}}, ValueError, "structure"),
        ({"x": X, "strong": 1.0}, ValueError, "other branches"),
        ({"x": X, "weak": RescaledCFG(2.0)}, TypeError, "linear"),
    ],
)
def test_what_would_need_another_graph_is_refused(given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        loop("ddim", "z2")(**given)


def test_guidance_without_a_scale_is_refused() -> None:
    with pytest.raises(TypeError, match=r"strong=RescaledCFG.*sample"):
        loop("ddim", "z2", strong=RescaledCFG(5.5))


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_capture_without_cuda_says_so_and_what_to_use() -> None:
    with pytest.raises(RuntimeError, match=r"CUDA.*use zigzag.sample"):
        capture(eps_fn, X, SOLVERS["ddim"], Standard(), cond=COND, uncond=UNCOND)


@pytest.mark.parametrize("method", list(METHODS))
def test_each_kind_of_step_traces_without_a_break_and_once_for_all_steps(method: str) -> None:
    torch._dynamo.reset()
    run = loop("ddim", method)
    counters = {kind: CompileCounterWithBackend("aot_eager") for kind in run.steps}
    expected = run(X, generator=generator())
    run.steps = {kind: torch.compile(step, fullgraph=True, backend=counters[kind]) for kind, step in run.steps.items()}
    torch.testing.assert_close(run(X, generator=generator()), expected, rtol=1e-12, atol=1e-12)
    assert {counter.frame_count for counter in counters.values()} == {1}


def test_a_list_of_generators_is_one_a_sample_as_of_sample() -> None:
    run = loop("ddim", "resampling")

    def each() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(k) for k in range(len(X))]

    expected = sample(eps_fn, X, SOLVERS["ddim"], METHODS["resampling"], cond=COND, uncond=UNCOND, generator=each())
    check_same(run(X, generator=each()), expected)
    with pytest.raises(ValueError, match=rf"a list of one for each of the {len(X)} samples, got 1"):
        run(X, generator=each()[:1])


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("run", [sampled, lambda name, method: loop(name, method)(X, generator=generator())])
def test_a_whole_sample_reads_no_value_on_the_host(method: str, run: Callable[..., Tensor]) -> None:
    with NoSync():
        run("ddim", method)


def test_the_watch_for_syncs_sees_one() -> None:
    with NoSync(), pytest.raises(AssertionError, match="local_scalar_dense"):
        X.sum().item()
    with NoSync(), pytest.raises(AssertionError, match="nonzero"):
        X[X > 0]


@pytest.mark.gpu
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_captured_is_uncaptured_bit_for_bit_and_never_syncs(method: str, dtype: torch.dtype) -> None:
    x, cond, uncond = (k.to("cuda", dtype) for k in (X, COND, UNCOND))
    made = [
        kind(eps_fn, x, SOLVERS["ddim"], METHODS[method], cond=cond, uncond=uncond)
        for kind in (TableLoop, CapturedLoop)
    ]
    noise = torch.Generator("cuda")
    for given in ({}, {"cond": cond * 2}, {"strong": 3.0}):
        results = []
        for run in made:
            noise.manual_seed(3)
            run(x, generator=noise, **given)  # scales are copied from the host: that may wait, a replay may not
            noise.manual_seed(3)
            torch.cuda.set_sync_debug_mode("error")
            try:
                results.append(run(x, generator=noise))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(*results)
