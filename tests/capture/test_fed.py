"""New conditions go into the buffers of a loop, or change nothing at all."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support.loops import GRID
from support.tables import COND, UNCOND, X, eps_fn
from zigzag import RescaledCFG, Standard, Z2Sampling
from zigzag.capture.fed import pairs
from zigzag.capture.graphs import TableLoop

NAN = float("nan")


def fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    return eps_fn(x, t, cond["c"])


def tree(scale: float = 1.0, size: Any = None) -> dict[str, Any]:
    return {"c": COND * scale, "size": np.array([64, 64]) if size is None else size}


def loop(model: Callable[..., Tensor] = fn, **given: Any) -> TableLoop:
    return TableLoop(model, X, GRID, Z2Sampling(2), **{"cond": tree(), "uncond": tree(0.0), "batched": False, **given})


REFUSED: dict[str, dict[str, Any]] = {
    "another shape": {"uncond": {"c": COND[:1], "size": np.array([64, 64])}},
    "another leaf": {"uncond": tree(3.0, np.array([64, 32]))},
    "no such branch": {"weak_cond": tree(2.0), "plain_cond": tree(2.0)},
    "scales of other branches": {"strong": 1.0},
    "a rule without a scale": {"weak": RescaledCFG(2.0)},
    "another state": {"x": X[:1]},
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_refused_call_changes_nothing(case: str) -> None:
    """Neither the condition before the one that does not fit, nor the scale beside it."""
    run, given = loop(), {"x": X, "cond": tree(2.0), "strong": 3.0, **REFUSED[case]}
    expected = run(X)
    with pytest.raises((ValueError, TypeError)):
        run(given.pop("x"), **given)
    assert torch.equal(run(X), expected)
    assert not torch.equal(run(X, cond=tree(2.0)), expected)


@pytest.mark.parametrize("strong", [None, 3.0])
def test_the_tensors_of_the_caller_are_let_go_of(strong: float | None) -> None:
    cond, x = tree(), X.clone()
    made = weakref.ref(cond["c"]), weakref.ref(x)
    run = TableLoop(fn, x, GRID, Standard(), cond=cond, uncond=tree(0.0), batched=False)
    del cond, x
    new = tree(2.0)
    fed = weakref.ref(new["c"])
    run(X, cond=new, strong=strong)
    del new
    gc.collect()
    assert [ref() for ref in (*made, fed)] == [None] * 3


def test_scales_change_without_joining_conditions_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TableLoop(eps_fn, X, GRID, Standard(), cond=COND, uncond=UNCOND)
    before = run(X)
    monkeypatch.setattr(torch, "cat", None)
    run._rescale(3.0, None, None)
    monkeypatch.undo()
    assert not torch.equal(run(X), before)


SAME: list[tuple[Any, Any]] = [
    (np.array([1, 2]), np.array([1, 2])),
    (np.array([1.0, NAN]), np.array([1.0, NAN])),
    (np.float32(3), np.float32(3)),
    (NAN, float("nan")),
    (np.float64(NAN), np.float64(NAN)),
    ("a", "a"),
    (1, 1.0),
    (None, None),
]
OTHER: list[tuple[Any, Any]] = [
    (np.array([1, 2]), np.array([1, 3])),
    (np.array([1, 2]), np.array([[1, 2]])),
    (np.array([1, 2]), np.array([1, 2, 3])),
    (np.array([1.0, NAN]), np.array([NAN, 1.0])),
    (NAN, 1.0),
    ("a", "b"),
    (None, 0),
    (torch.ones(1), 1.0),
]


@pytest.mark.parametrize(("old", "new"), SAME, ids=str)
def test_leaves_that_say_the_same_are_the_same(old: Any, new: Any) -> None:
    assert list(pairs("cond", [old], [new])) == []


@pytest.mark.parametrize(("old", "new"), OTHER, ids=str)
def test_leaves_that_say_something_else_are_refused(old: Any, new: Any) -> None:
    for a, b in ((old, new), (new, old)):
        with pytest.raises(ValueError, match=r"leaf 0 of cond is no tensor"):
            list(pairs("cond", [a], [b]))


def test_arrays_pass_through_a_joined_batch() -> None:
    """They are equal, and not the same objects."""
    apart, joined = loop(), loop(batched=True)
    assert torch.equal(apart(X), joined(X))
    assert torch.equal(apart(X, cond=tree(2.0)), joined(X, cond=tree(2.0)))


@pytest.mark.parametrize("branch", ["cond", "uncond"])
def test_a_condition_on_another_device_is_refused(branch: str) -> None:
    """Its value would be a constant of the graph."""
    scalar = {"c": COND, "g": torch.ones((), device="meta")}
    given = {"cond": {"c": COND, "g": torch.ones(())}, "uncond": {"c": COND, "g": torch.ones(())}, branch: scalar}
    with pytest.raises(ValueError, match=rf"leaf 1 of {branch} is on meta, and x on cpu.*move it to cpu"):
        loop(**given)
