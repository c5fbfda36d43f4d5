"""Calls whose rows are shared out over ranks: here on one, which shares with nobody."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag.parallel import Ranks
from zigzag.parallel.pool import Pool, shares
from zigzag.parallel.waiting import Waiting


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("rows", [[1], [2], [7], [1, 1], [3, 3], [2, 5, 1]])
def test_each_row_is_made_once_and_in_order(rows: list[int], ranks: int) -> None:
    each = shares(rows, ranks)
    made = [(call, row) for own in each for call, at in enumerate(own) for row in range(at.start, at.stop)]
    assert made == [(call, row) for call, count in enumerate(rows) for row in range(count)]
    most = -(-sum(rows) // ranks)
    counts = [sum(at.stop - at.start for at in own) for own in each]
    assert max(counts) == most and counts == sorted(counts, reverse=True)


def test_two_calls_on_two_ranks_are_one_each() -> None:
    made = [[list(range(3))[at] for at in own] for own in shares([3, 3], 2)]
    assert made == [[[0, 1, 2], []], [[], [0, 1, 2]]]


class Net:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, c: Tensor) -> dict[str, Any]:
        self.calls += 1
        return {"sample": 2 * x + c, "rows": (x.flatten(1).sum(1).half(), "kind")}


@pytest.fixture
def pool(alone: Any) -> Pool:
    return Pool(Ranks(alone))


@torch.no_grad()
def test_all_that_wait_are_made_when_one_is_looked_at(pool: Pool) -> None:
    """Outputs of several tensors, dtypes and odd numbers of bytes; the first call of a form is made at once."""
    net, x = Net(), torch.rand(3, 1, 3)
    first = pool.call("net", net, (x,), {"c": x}, x)
    assert net.calls == 1 and type(first["sample"]) is Tensor
    outputs = [pool.call("net", net, (x + k,), {"c": x}, x) for k in range(3)]
    assert net.calls == 1 and all(type(output["sample"]) is Waiting for output in outputs)
    assert torch.equal(outputs[1]["sample"] + 0, 2 * (x + 1) + x) and net.calls == 4
    for k, output in enumerate(outputs):
        assert torch.equal(output["sample"], 2 * (x + k) + x) and output["rows"][1] == "kind"
        assert torch.equal(output["rows"][0], (x + k).flatten(1).sum(1).half())


@torch.no_grad()
def test_what_is_written_to_after_the_call_does_not_reach_it(pool: Pool) -> None:
    net, x, c = Net(), torch.rand(2, 3), torch.zeros(2, 3)
    pool.call("net", net, (x, c), {}, x)
    one, right = pool.call("net", net, (x, c), {}, x), 2 * x
    x.zero_()
    c.fill_(5)
    assert torch.equal(one["sample"], right)


@torch.no_grad()
def test_what_may_not_wait_is_made_at_once(pool: Pool) -> None:
    """Where a model is only for now what it is, and under autocast, whose dtypes are of the block."""
    net, x = Net(), torch.rand(2, 3)
    pool.call("net", net, (x, x), {}, x)
    assert type(pool.call("net", net, (x, x), {}, x, waits=False)["sample"]) is Tensor
    with torch.autocast("cpu"):
        assert type(pool.call("net", net, (x, x), {}, x)["sample"]) is Tensor
    assert net.calls == 3


@torch.no_grad()
def test_a_list_for_a_state(pool: Pool) -> None:
    def net(xs: list[Tensor], c: Tensor) -> tuple[list[Tensor]]:
        assert len(xs) == len(c)
        return ([2 * x + k for x, k in zip(xs, c, strict=True)],)

    xs, c = [torch.rand(2, 2) for _ in range(3)], torch.arange(3.0)
    for _ in range(2):
        (given,) = pool.call("net", net, (xs, c), {}, xs)
        assert isinstance(given, list)
    assert type(given[0]) is Waiting
    assert all(torch.equal(e, 2 * x + k) for e, x, k in zip(given, xs, c, strict=True))


@torch.no_grad()
def test_another_output_of_the_same_form_is_refused(pool: Pool) -> None:
    x, sizes = torch.rand(2, 3), itertools.count(1)
    pool.call("net", lambda x: x[:, : next(sizes)], (x,), {}, x)
    waiting = pool.call("net", lambda x: x[:, : next(sizes)], (x,), {}, x)
    with pytest.raises(ValueError, match="net gives another output than in an earlier call"):
        waiting.sum()
    with pytest.raises(RuntimeError, match="do not go together any more: rank 0 of 1 raised ValueError: net gives"):
        pool.call("net", lambda x: x, (x,), {}, x)


def test_gradients_and_captures_are_refused(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    from zigzag.parallel.pool import _check_mode

    x = torch.rand(2, 3)
    with pytest.raises(RuntimeError, match=r"net would record gradients.*grad=False"):
        pool.call("net", lambda x: x, (x,), {}, x)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with torch.no_grad(), pytest.raises(RuntimeError, match="eps_fn is split over ranks, which tell each other"):
        _check_mode("eps_fn", torch.device("cuda"))


@torch.no_grad()
def test_a_block_makes_what_still_waits(pool: Pool) -> None:
    net, x = Net(), torch.rand(2, 3)
    with pool.together("the block"):
        pool.call("net", net, (x, x), {}, x)
        last = pool.call("net", net, (x, x), {}, x)
    assert net.calls == 2 and type(last["sample"]) is Tensor


def test_a_block_raises_what_was_raised_in_it(pool: Pool) -> None:
    with pytest.raises(LookupError, match="no luck here"), pool.together("the block"):
        raise LookupError("no luck here")


@torch.no_grad()
def test_a_call_is_made_in_the_mode_that_it_was_called_in(pool: Pool) -> None:
    """Not in that of the place where its output is looked at."""
    layer, x = torch.nn.Linear(3, 3), torch.rand(2, 3)
    right = layer(x)
    pool.call("net", layer, (x,), {}, x)
    one = pool.call("net", layer, (x,), {}, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(one.clone(), right)
    with torch.inference_mode():
        two = pool.call("net", layer, (x,), {}, x)
    assert torch.equal(two, right) and two.is_inference()
    three = pool.call("net", layer, (x,), {}, x)
    with torch.inference_mode():
        three.sum()
    assert torch.equal(three, right) and not three.is_inference()
