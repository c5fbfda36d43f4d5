"""Tensors whose numbers are not there yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag.parallel.waiting import Waiting

X = torch.arange(6.0).reshape(2, 3)


class Filler:
    """Fills a tensor, once somebody looks at it, and counts how often it was asked."""

    def __init__(self) -> None:
        self.waiting: list[Waiting] = []
        self.memory, self.asked = torch.full_like(X, torch.nan), 0

    def make(self) -> None:
        self.asked += 1
        self.memory.copy_(X)
        for waiting in self.waiting:
            waiting.filled()


@pytest.fixture
def filler() -> Filler:
    return Filler()


def test_what_it_is_like_is_known_before(filler: Filler) -> None:
    x = Waiting.on(filler.memory, filler)
    assert (x.shape, x.dtype, x.device, x.ndim, len(x), x.numel()) == (X.shape, X.dtype, X.device, 2, 2, 6)
    assert isinstance(x, Tensor) and filler.asked == 0


LOOKS: dict[str, Callable[[Any], Any]] = {
    "operator": lambda x: x + 0,
    "reversed operator": lambda x: 0 + x,
    "function": lambda x: torch.cat([x, x])[:2],
    "method": lambda x: x.clone(),
    "in place": lambda x: x.mul_(1),
    "out": lambda x: torch.add(x, 0, out=torch.empty(2, 3)),
    "keyword": lambda x: torch.mul(input=x, other=1),
    "nested": lambda x: torch.stack([*x]),
    "indices": lambda x: x[torch.tensor([0, 1])],
    "numpy": lambda x: torch.from_numpy(x.numpy()),
    "list": lambda x: torch.tensor(x.tolist()),
    "view": lambda x: x.view(3, 2).reshape(2, 3),
    "chunks": lambda x: torch.cat(x.chunk(2)),
}


@pytest.mark.parametrize("look", LOOKS)
def test_whatever_looks_at_it_has_it_filled_first(look: str, filler: Filler) -> None:
    x = Waiting.on(filler.memory, filler)
    assert torch.equal(LOOKS[look](x), X)
    assert filler.asked == 1 and type(x) is Tensor and x.data_ptr() == filler.memory.data_ptr()


@pytest.mark.parametrize("cut", [slice(1), 1, (slice(None), slice(1, None)), (..., 0), (None, 0)])
def test_a_slice_waits_too_and_is_filled_with_it(cut: Any, filler: Filler) -> None:
    x = Waiting.on(filler.memory, filler)
    part = x[cut]
    again = part[..., :1]
    assert filler.asked == 0 and part.shape == X[cut].shape
    assert torch.equal(again + 0, X[cut][..., :1]) and filler.asked == 1
    assert torch.equal(part, X[cut]) and torch.equal(x, X) and type(part) is type(x) is type(again) is Tensor


def test_a_slice_that_is_written_to_is_filled_before(filler: Filler) -> None:
    x = Waiting.on(filler.memory, filler)
    x[0] = 7.0
    assert torch.equal(x, torch.cat([torch.full((1, 3), 7.0), X[1:]]))


def test_what_cannot_be_filled_stays_as_it_was(filler: Filler) -> None:
    def fails() -> None:
        raise LookupError("no luck here")

    filler.make = fails  # type: ignore[method-assign]
    x = Waiting.on(filler.memory, filler)
    for _ in range(2):
        with pytest.raises(LookupError, match="no luck here"):
            x.sum()


def test_compiled_code_says_what_it_was_given(filler: Filler) -> None:
    compiled = torch.compile(lambda x: x + 1, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"handed to compiled code before it was there.*batched=True"):
        compiled(Waiting.on(filler.memory, filler))
