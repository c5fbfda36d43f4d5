"""What callers write into their conditions between two runs, the next run follows, in every mode."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from support.emulated import Emulator
from support.loops import GRID
from support.tables import COND, UNCOND, NoSync, X, check_same, eps_fn, other_fn
from zigzag import Standard, Z2Sampling, ZSampling, sample
from zigzag.capture import followed, graphs
from zigzag.capture.followed import Followed
from zigzag.capture.graphs import CapturedLoop, TableLoop

KINDS = [TableLoop, CapturedLoop]
MODES: list[Any] = [False, "auto", True]


@pytest.fixture(autouse=True)
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    return Emulator().install(monkeypatch)


def fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    return eps_fn(x, t, pytree.tree_leaves(cond)[0])


def half_fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    return other_fn(x, t, pytree.tree_leaves(cond)[0])


def plainly() -> dict[str, Any]:
    return {"cond": COND.clone(), "uncond": UNCOND.clone()}


def in_trees() -> dict[str, Any]:
    return {"cond": {"c": [COND.clone(), COND.clone()]}, "uncond": {"c": [UNCOND.clone(), UNCOND.clone()]}}


def in_inference_mode() -> dict[str, Any]:
    with torch.inference_mode():
        return in_trees()


WAYS: dict[str, Callable[[], dict[str, Any]]] = {
    "tensors": plainly, "trees": in_trees, "inference mode": in_inference_mode,
}  # fmt: skip
ROLES: dict[str, dict[str, Any]] = {
    "one role": {},
    "weak_cond": {"weak_cond": COND * 0.5, "weak": 1.0},
    "weak_fn": {"weak_fn": half_fn},
}


def write(given: dict[str, Any], k: int) -> None:
    """Other numbers into every tensor of the caller's."""
    for m, leaf in enumerate(pytree.tree_leaves(given)):
        if isinstance(leaf, Tensor):
            with torch.inference_mode(leaf.is_inference()):
                leaf.mul_(0.5).add_(0.1 * k + 0.05 * m)


def followed_through(kind: Any, way: str, method: Any, batched: Any, **roles: Any) -> None:
    given = WAYS[way]() | {name: v.clone() if isinstance(v, Tensor) else v for name, v in roles.items()}
    run = kind(fn, X, GRID, method, batched=batched, **given)
    before = run(X)
    for k in range(3):
        write(given, k)
        expected = sample(fn, X, GRID, method, batched=batched, **given)
        assert not torch.allclose(before, expected)
        before = run(X)
        check_same(before, expected)
        check_same(run(X), expected)


@pytest.mark.parametrize("roles", list(ROLES))
@pytest.mark.parametrize("batched", MODES)
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_between_two_runs_is_followed_as_sample_follows_it(
    kind: Any, way: str, batched: Any, roles: str
) -> None:
    for method in (Standard(), Z2Sampling(warmup=1)) if roles == "one role" else (ZSampling(),):
        followed_through(kind, way, method, batched, **ROLES[roles])


class CopiesOnce(Followed):
    """Only what is passed is copied."""

    def copy(self, new: Any) -> None:
        for buffer, value in (pair for found in new.values() for pair in found):
            buffer.copy_(value)


@pytest.mark.parametrize("batched", MODES)
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_copies_once_is_found(kind: Any, way: str, batched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "Followed", CopiesOnce)
    with pytest.raises(AssertionError):
        followed_through(kind, way, Standard(), batched)


def test_a_count_that_is_not_kept_for_tensors_of_inference_mode_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their identity alone would say that they are what they were."""
    monkeypatch.setattr(followed, "mark", id)
    with pytest.raises(AssertionError):
        followed_through(TableLoop, "inference mode", Standard(), "auto")


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_of_a_later_run_are_followed_in_place_of_the_first(kind: Any) -> None:
    first, later = COND.clone(), COND * 2
    run = kind(eps_fn, X, GRID, Standard(), cond=first, uncond=UNCOND)
    run(X, cond=later)
    first.fill_(9.0)
    check_same(run(X), sample(eps_fn, X, GRID, Standard(), cond=later, uncond=UNCOND))
    later.mul_(-0.5)
    check_same(run(X), sample(eps_fn, X, GRID, Standard(), cond=later, uncond=UNCOND))
    later.add_(1.0)
    other = COND * 0.3
    check_same(run(X, cond=other), sample(eps_fn, X, GRID, Standard(), cond=other, uncond=UNCOND))


@pytest.mark.parametrize("batched", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_views_that_nobody_holds_are_followed_through_what_they_are_views_of(kind: Any, batched: Any) -> None:
    """Both embeddings of one encoding, say, strided as it happens."""
    for both in (torch.stack([UNCOND, COND]), torch.stack([UNCOND, COND], 1).mT):
        assert both[0].is_contiguous() == both.is_contiguous()
        run = kind(eps_fn, X, GRID, Standard(), cond=both[1], uncond=both[0], batched=batched)
        gc.collect()
        both.add_(torch.tensor([[0.5], [-0.25]], dtype=both.dtype))
        check_same(run(X), sample(eps_fn, X, GRID, Standard(), cond=both[1], uncond=both[0]))


def test_a_view_of_another_dtype_is_followed_as_long_as_it_is_held() -> None:
    bits = UNCOND.clone().view(torch.int64)
    view = bits.view(torch.float64)
    run = TableLoop(eps_fn, X, GRID, Standard(), cond=COND, uncond=view)
    view.add_(1.0)
    check_same(run(X), sample(eps_fn, X, GRID, Standard(), cond=COND, uncond=view))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_caller_lets_go_of_is_freed_and_stays_in_the_buffers(kind: Any) -> None:
    both = torch.stack([UNCOND, COND])
    expected = sample(eps_fn, X, GRID, Standard(), cond=both[1], uncond=both[0])
    run, gone = kind(eps_fn, X, GRID, Standard(), cond=both[1], uncond=both[0]), weakref.ref(both)
    run(X)
    del both
    gc.collect()
    assert gone() is None
    check_same(run(X), expected)


def test_a_refused_run_loses_no_write() -> None:
    uncond = UNCOND.clone()
    run = TableLoop(eps_fn, X, GRID, Standard(), cond=COND, uncond=uncond)
    uncond.add_(1.0)
    with pytest.raises(ValueError, match="other branches"):
        run(X, strong=1.0)
    check_same(run(X), sample(eps_fn, X, GRID, Standard(), cond=COND, uncond=uncond))


@pytest.mark.parametrize("batched", MODES)
@pytest.mark.parametrize("way", list(WAYS))
def test_following_reads_no_value_on_the_host(way: str, batched: Any) -> None:
    given = WAYS[way]()
    run = TableLoop(fn, X, GRID, Standard(), batched=batched, **given)
    write(given, 1)
    with NoSync():
        run(X)


def test_where_nothing_is_written_nothing_is_copied() -> None:
    run = TableLoop(eps_fn, X, GRID, Standard(), cond=COND.clone(), uncond=UNCOND.clone())
    buffers = [leaf for its in run.conditions for leaf in pytree.tree_leaves([its.each, its.joined])]
    before = [leaf._version for leaf in buffers]
    assert len(buffers) == 3
    run(X)
    assert [leaf._version for leaf in buffers] == before


def test_what_is_written_during_a_run_is_of_the_next_one() -> None:
    """As the documentation says: a run begins with a copy."""
    uncond = UNCOND.clone()

    def writes(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        uncond.add_(1.0)
        return eps_fn(x, t, cond)

    run = TableLoop(writes, X, GRID, Standard(), cond=COND, uncond=uncond)
    first, second = (sample(eps_fn, X, GRID, Standard(), cond=COND, uncond=UNCOND + k * len(GRID)) for k in range(2))
    check_same(run(X), first)
    check_same(run(X), second)


def test_a_tensor_that_was_resized_is_refused() -> None:
    uncond = UNCOND.clone()
    run = TableLoop(eps_fn, X, GRID, Standard(), cond=COND, uncond=uncond)
    uncond.resize_(1)
    with pytest.raises(ValueError, match=r"a tensor of uncond was resized since .* from \(2,\) to \(1,\); make a new"):
        run(X)
