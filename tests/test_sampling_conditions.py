"""What condition a predictor sees, in one doubled call or in two."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support.predictors import field
from support.sampling import COND, FLOAT, UNCOND, B, T, X, both, each_method, each_solver, seed
from zigzag import Standard, ZSampling, sample


def tree(k: float) -> dict[str, object]:
    leaf = torch.arange(B * 3, dtype=torch.float64).reshape(B, 3) * k
    return {"a": leaf, "b": {"c": leaf[:, 0], "d": [leaf + 1, (leaf - 1, leaf[:, :2])]}}


def leaves(cond: object) -> Iterator[torch.Tensor]:
    if isinstance(cond, torch.Tensor):
        yield cond
    else:
        for part in cond.values() if isinstance(cond, dict) else cond:
            yield from leaves(part)


def shape_of(cond: object) -> object:
    if isinstance(cond, torch.Tensor):
        return "leaf"
    if isinstance(cond, dict):
        return {key: shape_of(value) for key, value in cond.items()}
    return type(cond)(shape_of(value) for value in cond)


def check_doubled(x: torch.Tensor, cond: object, c: object, u: object) -> None:
    """[unconditional; conditional]: x is the state twice, every leaf cat(u, c), the structure unchanged."""
    assert x.shape[0] == 2 * B and torch.equal(x[:B], x[B:])
    assert shape_of(cond) == shape_of(c)
    for got, one, two in zip(leaves(cond), leaves(u), leaves(c), strict=True):
        assert torch.equal(got, torch.cat([one, two]))


TREES = {
    "tensor": (tree(1.0)["a"], tree(2.0)["a"]),
    "dict": (tree(1.0), tree(2.0)),
    "tuple": (tuple(tree(1.0).values()), tuple(tree(2.0).values())),
}


@pytest.mark.parametrize("case", list(TREES))
@pytest.mark.parametrize("batched", [True, "auto"])
def test_a_doubled_batch_is_unconditional_first(case: str, batched: object) -> None:
    c, u = TREES[case]
    calls = 0

    def fn(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        check_doubled(x, cond, c, u)
        with pytest.raises(AssertionError):
            check_doubled(x, cond, u, c)
        return x * next(leaves(cond))[:, :1]

    y = sample(fn, X, FLOAT, Standard(), cond=c, uncond=u, strong=3.0, batched=batched)
    assert calls == T

    def one(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        assert shape_of(cond) == shape_of(c) and any(cond is k for k in (c, u))
        return x * next(leaves(cond))[:, :1]

    two = sample(one, X, FLOAT, Standard(), cond=c, uncond=u, strong=3.0, batched=False)
    swapped = sample(one, X, FLOAT, Standard(), cond=u, uncond=c, strong=3.0, batched=False)
    assert torch.equal(y, two) and not torch.allclose(y, swapped)


@both
def test_a_single_branch_sees_its_own_condition_on_b_rows(batched: bool) -> None:
    for strong, want in [(1.0, COND), (0.0, UNCOND)]:
        seen = []

        def fn(x: torch.Tensor, t: torch.Tensor, cond: object, seen: list[object] = seen) -> torch.Tensor:
            assert x.shape[0] == t.shape[0] == B
            seen.append(cond)
            return x

        sample(fn, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, strong=strong, batched=batched)
        assert len(seen) == T and all(torch.equal(cond, want) for cond in seen)


LONG, SHORT = torch.zeros(B, 5, 3), torch.zeros(B, 4, 3)
AUTO = [
    (LONG, LONG + 1, True),
    ({"a": LONG, "b": [SHORT]}, {"a": LONG, "b": [SHORT]}, True),
    (torch.tensor([1, 2]), torch.tensor([-1, -1]), True),
    (LONG, SHORT, False),
    (LONG, None, False),
    (None, LONG, False),
    ("a cat", "", False),
    (3, -1, False),
    ({"a": LONG}, {"b": LONG}, False),
    ({"a": LONG}, [LONG], False),
    ([LONG], [LONG, LONG], False),
    ({"a": LONG, "b": 1}, {"a": LONG, "b": 1}, False),
    (LONG[:1], LONG[:1], False),
    (torch.tensor(1), torch.tensor(0), False),
    ({"a": LONG, "b": LONG[:1]}, {"a": LONG, "b": LONG[:1]}, False),
]


def batch_sizes(cond: object, uncond: object, batched: object) -> set[int]:
    sizes = set()

    def fn(x: torch.Tensor, t: torch.Tensor, c: object) -> torch.Tensor:
        sizes.add(x.shape[0])
        return x

    sample(fn, X, FLOAT, Standard(), cond=cond, uncond=uncond, strong=2.0, batched=batched)
    return sizes


@pytest.mark.parametrize(("cond", "uncond", "want"), AUTO, ids=range(len(AUTO)))
def test_what_auto_decides(cond: object, uncond: object, want: bool) -> None:
    """Pytrees of one structure whose every leaf is a tensor, the batch first, of equal shapes."""
    assert batch_sizes(cond, uncond, "auto") == ({2 * B} if want else {B})
    assert batch_sizes(cond, uncond, False) == {B}


ROW = LONG[:1]
ROWS = "leaf 0 of uncond and cond has shapes "
SAID = [
    (LONG, ROW, rf"{ROWS}\(1, 5, 3\) and \({B}, 5, 3\), .* pass uncond\.expand\({B}, -1, -1\), or pass batched=False"),
    (ROW, LONG, rf"pass cond\.expand\({B}, -1, -1\), or"),
    (torch.zeros(B, 5), torch.zeros(1, 5), rf"pass uncond\.expand\({B}, -1\), or"),
    (torch.arange(B), torch.tensor([-1]), rf"{ROWS}\(1,\) and \({B},\), .* pass uncond\.expand\({B}\), or"),
    (
        {"a": LONG, "b": [LONG]}, {"a": LONG, "b": [ROW]},
        rf"leaf 1 of .* pass leaf\.expand\({B}, -1, -1\) as leaf 1 of uncond",
    ),
    (ROW, ROW, rf"leaf 0 of uncond and cond has shape \(1, 5, 3\), .* not the batch of {B}; expand it, or pass"),
]  # fmt: skip


def told(cond: object, uncond: object, batched: Any = "auto", **roles: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sample(lambda x, t, c: x, X, FLOAT, ZSampling(), cond=cond, uncond=uncond, strong=2.0, batched=batched, **roles)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize(("cond", "uncond", "says"), SAID, ids=range(len(SAID)))
def test_a_batch_that_does_not_fit_is_said_once_with_what_to_pass(cond: object, uncond: object, says: str) -> None:
    with pytest.warns(UserWarning, match=f"the branches run as two calls: .*{says}"):
        assert batch_sizes(cond, uncond, "auto") == {B}
    assert len(told(cond, uncond)) == 1 and told(cond, uncond, False) == []


def test_what_is_said_to_pass_is_one_call() -> None:
    assert told(LONG, ROW.expand(B, -1, -1)) == [] and batch_sizes(LONG, ROW.expand(B, -1, -1), "auto") == {2 * B}


def test_of_several_roles_it_is_said_once() -> None:
    (says,) = told(LONG, ROW, weak=0.5, weak_cond=LONG + 1, weak_uncond=ROW + 1)
    assert "uncond.expand" in says
    (says,) = told(LONG, ROW, weak=0.5, weak_cond=SHORT, weak_uncond=SHORT[:1])
    assert "uncond.expand" in says and "two calls" in says


APART: list[Any] = [
    (LONG, SHORT),
    (LONG, SHORT[:1]),
    (LONG, None),
    (LONG, torch.zeros(5, 3)),
    (torch.zeros(7, 3), torch.zeros(4, 3)),
    (torch.zeros(B + 1, 3), torch.zeros(1, 3)),
    (torch.zeros(B, 3), torch.zeros(B + 1, 3)),
    (torch.zeros(B, 3), torch.zeros(1, 3, dtype=torch.float64)),
    (torch.tensor(1), torch.tensor(0)),
    (LONG, {"a": ROW}),
    ([LONG], [ROW, ROW]),
    ({"a": LONG, "b": 1}, {"a": ROW, "b": 1}),
    ({"pooled": LONG, "text": LONG}, {"pooled": ROW, "text": SHORT[:1]}),
    ({"pooled": ROW, "text": LONG}, {"pooled": ROW, "text": SHORT}),
]


@pytest.mark.parametrize(("cond", "uncond"), APART, ids=range(len(APART)))
def test_conditions_that_are_meant_to_be_apart_are_so_without_a_word(cond: object, uncond: object) -> None:
    """Of other structures, lengths, dtypes or numbers: no expansion would join them."""
    assert told(cond, uncond) == [] and batch_sizes(cond, uncond, "auto") == {B}


def test_none_is_a_condition_and_not_a_missing_one() -> None:
    """e(x, None) is a prediction as any other."""
    seen = []

    def fn(x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
        seen.append(cond)
        return field(x, t, UNCOND if cond is None else cond)

    y = sample(fn, X, FLOAT, Standard(), cond=COND, uncond=None, strong=3.0)
    want = sample(field, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, strong=3.0, batched=False)
    assert torch.equal(y, want) and seen.count(None) == T and len(seen) == 2 * T
    sample(lambda x, t, c: x if c is None else pytest.fail("c"), X, FLOAT, Standard(), cond=None, strong=1.0)


@each_method
@each_solver
def test_batched_is_unbatched(method: object, solver: object) -> None:
    """An elementwise predictor rounds alike in one doubled call and in two: the same bits come out."""
    one, two = (
        sample(field, X, solver, method, cond=COND, uncond=UNCOND, batched=batched, generator=seed())
        for batched in (True, False)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, sample(field, X, solver, method, cond=UNCOND, uncond=COND, generator=seed()))
