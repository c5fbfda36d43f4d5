"""Captured loops on a device, beside everything else that runs there."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zigzag import DDIM, Standard, Z2Sampling, ZSampling, capture
from zigzag.capture import kernels
from zigzag.capture.graphs import CapturedLoop, TableLoop

pytestmark = pytest.mark.gpu

SOLVER = DDIM.stable_diffusion(6)


class Network(nn.Module):
    """A convolution, a GEMM and an attention, large enough for libraries to want workspaces."""

    def __init__(self, width: int = 512, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.last = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.first(x + cond) + torch.cos(t.float()).to(x.dtype)[:, None, None, None]
        tokens = h.flatten(2).mT
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(tokens).chunk(3, 2))
        tokens = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return torch.tanh(self.last(tokens.mT.reshape(h.shape)))


def network(device: str = "cuda", dtype: torch.dtype = torch.bfloat16) -> Network:
    torch.manual_seed(0)
    return Network().to(device, dtype).requires_grad_(False)


def inputs(device: str = "cuda", dtype: torch.dtype = torch.bfloat16, batch: int = 2) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    x, cond, uncond = torch.randn(3, batch, 4, 32, 32, generator=random).to(device, dtype)
    return {"x": x, "cond": cond, "uncond": uncond}


def captured(fn: Callable[..., Any], method: Any = None, **given: Any) -> CapturedLoop:
    return capture(fn, given.pop("x"), SOLVER, method or Standard(), **given)


def churn() -> None:
    """What was freed is given to others, and written."""
    torch.cuda.empty_cache()
    filled = [torch.full((2**20,), torch.nan, device="cuda") for _ in range(64)]
    torch.cuda.synchronize()
    del filled


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    yield
    gc.collect()
    torch.cuda.empty_cache()


@pytest.mark.parametrize("method", [Standard(), Z2Sampling(warmup=2), ZSampling()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_network_is_captured_bit_for_bit(method: Any, dtype: torch.dtype) -> None:
    model, given = network(dtype=dtype), inputs(dtype=dtype)
    x = given.pop("x")
    loops = [kind(model, x, SOLVER, method, **given) for kind in (TableLoop, CapturedLoop)]
    for again in ({}, {"cond": given["uncond"] * 2}, {"strong": 3.0}):
        plain, replayed = (run(x, **again) for run in loops)
        assert torch.equal(plain, replayed)
        churn()


def test_the_end_of_one_loop_leaves_another_as_it_is() -> None:
    """Workspaces of cuBLAS are kept by stream; on torch 2.13 the end of a graph frees those of its stream."""
    model, given, other = network(), inputs(), inputs(batch=4)
    x = other["x"]
    one, two = captured(model, **given), captured(model, **other)
    expected = two(x).clone()
    del one
    gc.collect()
    churn()
    assert torch.equal(two(x), expected)
    churn()
    assert torch.equal(two(x), expected)


def reads(e: Tensor, t: Tensor) -> Tensor:
    return e * float(t[0] > 0)


def synchronizes(e: Tensor, t: Tensor) -> Tensor:
    torch.cuda.synchronize()  # which the debug mode lets pass: the capture itself fails
    return e


@pytest.mark.parametrize("wait", [reads, synchronizes])
def test_a_capture_that_fails_leaves_the_process_as_it_was(wait: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, given = network(), inputs()
    before, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()

    def waits(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return wait(model(x, t, cond), t)

    with pytest.raises(RuntimeError, match="must not wait for the device"):
        captured(waits, **given)
    assert torch.cuda.current_stream() == before and torch.cuda.get_sync_debug_mode() == mode
    torch.cuda.empty_cache()
    assert captured(model, **given)(given["x"]).isfinite().all()


def test_running_out_of_memory_is_said_as_such() -> None:
    def greedy(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return x * torch.empty(2**44, device=x.device)[0]

    with pytest.raises(torch.OutOfMemoryError):
        captured(greedy, **inputs())
    test_a_capture_that_fails_leaves_the_process_as_it_was(reads)


def test_autocast_is_refused_but_for_one_without_a_cache() -> None:
    model, given = network(dtype=torch.float32).requires_grad_(True), inputs(dtype=torch.float32)
    x = given["x"]
    with torch.autocast("cuda", torch.bfloat16), pytest.raises(RuntimeError, match=r"torch\.autocast"):
        captured(model, **given)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        run = captured(model, **given)
    expected = run(x).clone()
    churn()
    assert torch.equal(run(x), expected)


def test_weights_that_moved_are_noticed_and_those_written_in_place_used() -> None:
    model, given = network(), inputs()
    x = given["x"]
    run = captured(model, **given)
    before = run(x).clone()
    model.out.weight.mul_(2)
    after = run(x)
    assert not torch.equal(after, before)
    assert torch.equal(after, TableLoop(model, x, SOLVER, Standard(), cond=given["cond"], uncond=given["uncond"])(x))
    model.cpu()
    churn()
    model.cuda()
    with pytest.raises(RuntimeError, match="changed since the capture"):
        run(x)


def test_a_condition_on_the_host_is_refused() -> None:
    given = inputs()
    with pytest.raises(ValueError, match="on cpu, and x on cuda"):
        captured(network(), **{**given, "cond": given["cond"].cpu()})


@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.device_count() < 2, reason="needs a second device")
def test_a_loop_on_another_device_than_the_current_one() -> None:
    model, given = network("cuda:1"), inputs("cuda:1")
    x = given.pop("x")
    loops = [kind(model, x, SOLVER, Z2Sampling(2), **given) for kind in (TableLoop, CapturedLoop)]
    assert torch.cuda.current_device() == 0
    assert torch.equal(*(run(x) for run in loops))


def test_a_compiled_network_is_captured() -> None:
    model, given = network(), inputs()
    x = given["x"]
    compiled = torch.compile(model, dynamic=False)
    expected = captured(model, **given)(x).float()
    run = captured(compiled, **given)
    first = run(x).clone()
    assert (first.float() - expected).norm() <= 0.05 * expected.norm()  # other kernels round elsewhere
    churn()
    assert torch.equal(run(x), first)


def test_a_network_with_graphs_of_its_own_is_refused() -> None:
    with pytest.raises(RuntimeError, match="graphs of its own"):
        captured(torch.compile(network(), mode="reduce-overhead"), **inputs())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_step_takes_the_kernel(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    """With predictions that are halves of larger ones, and in the layout of the state."""
    taken = []
    fused = kernels._fused
    monkeypatch.setattr(kernels, "_fused", lambda *given: (taken.append(1), fused(*given))[1])
    x = inputs()["x"].to(memory_format=layout)

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        whole = torch.cat([x, x], 1).contiguous(memory_format=layout)
        return whole.chunk(2, 1)[0] if layout == torch.contiguous_format else (x * 0.5).contiguous(memory_format=layout)

    run = TableLoop(fn, x, SOLVER, Z2Sampling(2), cond=x, uncond=x)
    run(x)
    assert len(taken) == len(run.plan.kinds)
