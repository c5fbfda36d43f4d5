"""What the one loop promises a consumer of `walk`."""

from __future__ import annotations

import itertools

import pytest
import torch

from support.predictors import field
from support.sampling import COND, EPS, FLOAT, UNCOND, B, T, X, each_method, each_solver, seed
from zigzag import Resampling, Standard, Visit, sample, walk
from zigzag.moves import Denoise, Invert


def check_untouched(visits: list[Visit], copies: list[torch.Tensor]) -> None:
    for visit, copy in zip(visits, copies, strict=True):
        assert torch.equal(visit.state, copy)


@each_method
def test_a_walk_yields_a_visit_after_each_move_and_never_writes_over_one(method: object) -> None:
    """(move, knot where it ends, state, prediction, rows so far); the last state is what sample returns."""
    visits, copies, x = [], [], X.clone()
    for visit in walk(field, x, FLOAT, method, cond=COND, uncond=UNCOND, generator=seed()):
        visits.append(visit)
        copies.append(visit.state.clone())
    assert isinstance(visits[0], Visit) and tuple(v.move for v in visits) == method.path(T)
    assert [v.knot for v in visits] == [v.move.end for v in visits] and visits[-1].knot == T
    assert all(one.rows <= two.rows for one, two in itertools.pairwise(visits))
    check_untouched(visits, copies)
    assert torch.equal(x, X)
    assert len({visit.state.data_ptr() for visit in visits} | {x.data_ptr()}) == len(visits) + 1
    y = sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, generator=seed())
    assert torch.equal(y, visits[-1].state)
    visits[0].state.add_(1)
    with pytest.raises(AssertionError):
        check_untouched(visits, copies)


@each_solver
def test_the_prediction_of_a_visit_is_the_guided_one_that_the_move_used(solver: object) -> None:
    """Denoise: e_s at the state before it. Invert: e_w at the state the last inversion started from."""

    def guided(x: torch.Tensor, i: int, w: float) -> torch.Tensor:
        t = torch.full((B,), float(solver.times[i]), dtype=x.dtype)
        return field(x, t, UNCOND) + w * (field(x, t, COND) - field(x, t, UNCOND))

    def check(path: tuple[object, ...], scales: dict[type, float]) -> None:
        before = X
        for visit in walk(field, X, solver, path, cond=COND, uncond=UNCOND, strong=3.0, weak=0.5):
            want = guided(before, visit.move.i, scales[type(visit.move)])
            torch.testing.assert_close(visit.prediction, want, rtol=0, atol=16 * EPS)
            before = visit.state

    path = (Denoise(0, 1), Invert(1, 0), Denoise(0, 1), Denoise(1, 2))
    check(path, {Denoise: 3.0, Invert: 0.5})
    for mutant in ({Denoise: 4.0, Invert: 0.5}, {Denoise: 3.0, Invert: 3.0}):
        with pytest.raises(AssertionError):
            check(path, mutant)


def test_a_renoising_has_no_prediction() -> None:
    visits = walk(field, X, FLOAT, Resampling(), cond=COND, uncond=UNCOND, generator=seed())
    assert [v.prediction is None for v in visits] == [type(m).__name__ == "Renoise" for m in Resampling().path(T)]


def test_a_walk_does_one_move_at_a_time() -> None:
    calls = []

    def fn(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        calls.append(float(t[0]))
        return field(x, t, c)

    steps = walk(fn, X, FLOAT, Standard(), cond=COND, uncond=UNCOND, batched=True)
    assert calls == []
    for k, _ in enumerate(steps):
        assert len(calls) == k + 1
