"""How graphs are recorded: on whose stream, in which order, and what is left where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.emulated import Emulator
from support.loops import GRID
from support.tables import COND, UNCOND, X, eps_fn
from zigzag import EndToEnd, Standard, ZSampling, capture
from zigzag.capture.cuda import Recording

DEVICE = torch.device("cpu")
TRIES = 3  # runs before the capture


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    return Emulator().install(monkeypatch)


def captured(fn: Any = eps_fn, method: Any = None, **given: Any) -> Any:
    given = {"cond": COND, "uncond": UNCOND, **given}
    return capture(fn, X, GRID, method or Standard(), **given)


def after(runs: int, change: Callable[[], object]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A model that does something else beside from a call on."""
    calls = [0]

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > runs:
            change()
        return eps_fn(x, t, cond)

    return fn


def raises(error: BaseException) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_a_loop_has_a_stream_a_pool_and_workspaces_of_its_own(emulator: Emulator) -> None:
    own, other = captured(method=EndToEnd(refine=1)), captured(method=ZSampling())
    first, second = emulator.captures[: len(own.steps)], emulator.captures[len(own.steps) :]
    assert [len(first), len(second)] == [3, 2]
    for captures in (first, second):
        assert len({id(c["stream"]) for c in captures}) == len({id(c["pool"]) for c in captures}) == 1
    assert own.recording.stream is first[0]["stream"] is not second[0]["stream"]
    assert first[0]["pool"] is not second[0]["pool"]
    assert emulator.events == ["clear", *["capture"] * 3, "clear", "clear", *["capture"] * 2, "clear"]
    assert {c["capture_error_mode"] for c in emulator.captures} == {"thread_local"}
    assert other.recording.stream.waited


def test_all_is_on_the_device_of_x(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []
    device = torch.cuda.device
    monkeypatch.setattr(torch.cuda, "device", lambda which: (entered.append(which), device(which))[1])
    captured()
    assert entered == [DEVICE]


def left_as_it_was(emulator: Emulator, before: Any) -> bool:
    return emulator.current is before and emulator.debug == 0 and not emulator.spoiled


@pytest.mark.parametrize("debug", [0, 1])
def test_a_wait_is_an_error_before_the_capture(emulator: Emulator, debug: int) -> None:
    """With its own traceback; the process goes on as if nothing had been."""
    before, emulator.debug = emulator.current, debug

    def waits(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return eps_fn(x, t, cond) * float(t[0] > 0)

    said = (
        r"could not be captured \(called a synchronizing CUDA operation\).*must not wait.*zigzag.sample, or TableLoop"
    )
    with pytest.raises(RuntimeError, match=said) as caught:
        captured(waits)
    entry = caught.value.__cause__.__traceback__
    names = []
    while entry is not None:
        names.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    assert "waits" in names
    assert emulator.current is before and emulator.debug == debug
    assert not emulator.captures and not emulator.spoiled
    captured()


def test_what_only_a_capture_forbids_is_said_by_its_first_error(emulator: Emulator) -> None:
    before = emulator.current
    error = RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with...")
    with pytest.raises(RuntimeError, match=r"could not be captured \(CUDA error: operation not permitted[^)]*\)") as e:
        captured(after(TRIES, raises(error)))
    assert "previous error" not in str(e.value)
    assert len(emulator.captures) == 1 and left_as_it_was(emulator, before)
    captured()


@pytest.mark.parametrize("runs", [0, TRIES - 1, TRIES], ids=["first run", "last try", "capture"])
@pytest.mark.parametrize(
    "error", [ValueError("my own"), torch.OutOfMemoryError("CUDA out of memory while capturing"), KeyError("k")]
)
def test_what_the_model_raises_goes_through_as_it_is(emulator: Emulator, error: Exception, runs: int) -> None:
    """Running out of memory too: it has nothing to do with waiting."""
    before = emulator.current
    with pytest.raises(type(error)) as caught:
        captured(after(runs, raises(error)))
    assert caught.value is error
    assert left_as_it_was(emulator, before)


def test_autocast_is_refused_while_it_keeps_casts(emulator: Emulator) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match=r"torch.autocast.*use zigzag.sample"):
            captured()
        assert not emulator.captures
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        captured()


@pytest.mark.parametrize("made", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("run", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_loop_runs_in_other_modes_than_it_was_made_in(emulator: Emulator, made: Any, run: Any) -> None:
    expected = captured()(X)
    with made():
        loop = captured(cond=COND * 1)
    with run():
        assert torch.equal(loop(X, cond=COND * 1, strong=5.5), expected)
    assert torch.equal(loop(X), expected)


def test_what_a_function_returned_is_what_its_replay_writes(emulator: Emulator) -> None:
    x = torch.zeros(2)
    recording = Recording({"twice": lambda: (x * 2, x)}, DEVICE)
    for value in (1.0, 3.0):
        x.fill_(value)
        twice, same = recording.replay("twice")
        assert torch.equal(twice, x * 2) and same is x


def test_functions_begin_from_the_same_state(emulator: Emulator) -> None:
    """A step counter that ran on would read past its table."""
    k, table = torch.zeros(1, dtype=torch.int64), torch.arange(2.0)

    def step() -> Tensor:
        read = table.index_select(0, k)
        k.add_(1)
        return read

    recording = Recording({0: step, 1: step}, DEVICE, reset=k.zero_)
    assert k == 0
    assert recording.replay(0) == 0 and recording.replay(1) == 1


def test_moved_weights_are_said_and_nothing_is_run(emulator: Emulator) -> None:
    network = nn.Linear(6, 6).double().requires_grad_(False)
    run = captured(lambda x, t, cond: network(x.flatten(1)).view_as(x))
    run(X)
    state = run.carry.x.clone()
    network.weight = nn.Parameter(network.weight.clone())
    with pytest.raises(RuntimeError, match=r"changed since the capture \(weight of Linear\).*capture again"):
        run(X * 2)
    assert torch.equal(run.carry.x, state)
