"""The six methods are paths: written out by hand, counted in rows, with no branch that nobody needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zigzag import (
    CFG,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Resampling,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    sample,
    walk,
)
from zigzag.moves import Denoise, Invert, Renoise, Shift


def moves(text: str, refine: int = 0) -> tuple[object, ...]:
    """D01 I10 R10 S1 s1: Denoise, Invert, Renoise, a fresh and a cached Shift; I10+ is released."""
    made: dict[str, Callable[[list[int], bool], object]] = {
        "D": lambda k, _: Denoise(k[0], k[1]),
        "I": lambda k, plus: Invert(k[0], k[1], refine, (k[1] + 1, k[0] + 1) if plus else None),
        "R": lambda k, _: Renoise(k[0], k[1]),
        "S": lambda k, _: Shift(k[0], True),
        "s": lambda k, _: Shift(k[0], False),
    }
    return tuple(made[w[0]]([int(c) for c in w[1:].rstrip("+")], w.endswith("+")) for w in text.split())


PATHS = [
    (Standard(), 1, "D01"),
    (Standard(), 3, "D01 D12 D23"),
    (Resampling(), 3, "D01 R10 D01 D12 R21 D12 D23"),
    (Resampling(steps=1, rounds=2), 3, "D01 R10 D01 R10 D01 D12 D23"),
    (Resampling(steps=0), 2, "D01 D12"),
    (Resampling(steps=2), 2, "D01 R10 D01 D12 R21 D12"),
    (EndToEnd(), 2, "D01 D12 I21 I10 D01 D12"),
    (EndToEnd(), 3, "D01 D12 D23 I32 I21 I10 D01 D12 D23"),
    (ZSampling(), 1, "D01"),
    (ZSampling(), 3, "D01 I10 D01 D12 I21 D12 D23"),
    (ZSampling(steps=0), 2, "D01 D12"),
    (ZSampling(steps=1), 3, "D01 I10 D01 D12 D23"),
    (ZSampling(steps=3), 3, "D01 I10 D01 D12 I21 D12 D23 I32 D23"),
    (ZSampling(steps=1, rounds=2), 2, "D01 I10 D01 I10 D01 D12"),
    (ZSampling(span=2), 3, "D01 D12 I21 I10 D01 D12 D23 I32 I21 D12 D23"),
    (ZSampling(steps=1, span=2, rounds=2), 2, "D01 D12 I21 I10 D01 D12 I21 I10 D01 D12"),
    (ZSampling(steps=3, span=2), 3, "D01 D12 I21 I10 D01 D12 D23 I32 I21 D12 D23 I32 D23"),
    (ZSampling(steps=1, span=9), 2, "D01 D12 I21 I10 D01 D12"),
    (ZSampling(released=True), 3, "D01 I10+ D01 D12 I21+ D12 D23"),
    (ZSampling(steps=1, rounds=2, released=True), 3, "D01 I10+ D01 I10+ D01 D12 D23"),
    (ImplicitZ(), 3, "S0 D01 S1 D12 S2 D23"),
    (ImplicitZ(start=1), 3, "D01 S1 D12 S2 D23"),
    (ImplicitZ(start=1, steps=2), 3, "D01 S1 D12 D23"),
    (ImplicitZ(steps=0), 2, "D01 D12"),
    (Z2Sampling(warmup=0), 3, "D01 s1 D12 s2 D23"),
    (Z2Sampling(warmup=1), 3, "D01 s1 D12 s2 D23"),
    (Z2Sampling(warmup=2), 3, "D01 D12 s2 D23"),
    (Z2Sampling(warmup=1, steps=2), 3, "D01 s1 D12 D23"),
    (Z2Sampling(), 7, "D01 D12 D23 D34 D45 s5 D56 s6 D67"),
    (Z2Sampling(warmup=0), 1, "D01"),
]


@pytest.mark.parametrize(("method", "n", "want"), PATHS, ids=lambda v: str(v))
def test_the_path_is_the_one_written_out(method: object, n: int, want: str) -> None:
    path = method.path(n)
    assert isinstance(path, tuple) and path == moves(want)
    assert path != moves(want)[:-1] and path != (*moves(want), Shift(0, True))


def test_refine_goes_to_every_inversion() -> None:
    assert ZSampling(refine=3, span=2, steps=1).path(2) == moves("D01 D12 I21 I10 D01 D12", refine=3)
    assert EndToEnd(refine=2).path(2) == moves("D01 D12 I21 I10 D01 D12", refine=2)


def test_an_end_to_end_zigzag_is_one_step_that_spans_the_grid() -> None:
    """EndToEnd is ZSampling(steps=1, span=T)."""
    for n in range(1, 6):
        assert EndToEnd(refine=1).path(n) == ZSampling(steps=1, span=n, refine=1).path(n)
        assert n == 1 or EndToEnd().path(n) != ZSampling(steps=1, span=n - 1).path(n)


@st.composite
def methods(draw: Callable[..., object]) -> tuple[object, int]:
    n = draw(st.integers(2, 7))
    steps, rounds = draw(st.integers(0, n - 1)), draw(st.integers(1, 3))
    any_method = [
        Standard(),
        Resampling(steps, rounds),
        EndToEnd(draw(st.integers(0, 2))),
        ZSampling(steps, rounds, draw(st.integers(1, 9)), draw(st.integers(0, 2))),
        ZSampling(steps, rounds, released=True),
        ImplicitZ(draw(st.integers(0, max(steps - 1, 0))), steps),
        Z2Sampling(draw(st.integers(0, n - 1)), None),
    ]
    return draw(st.sampled_from(any_method)), n


def check_path(path: tuple[object, ...], n: int) -> None:
    """A path goes from 0 to T, connects, stays on the grid, and inverts only what it has denoised."""
    assert path[0].start == 0 and path[-1].end == n
    for one, two in itertools.pairwise(path):
        assert one.end == two.start
    down: list[tuple[int, int]] = []
    for move in path:
        assert min(move.start, move.end) >= 0 and max(move.start, move.end) <= n
        if isinstance(move, Denoise):
            assert move.j == move.i + 1
            down.append((move.i, move.j))
        elif isinstance(move, Invert | Renoise):
            assert down.pop() == (move.i, move.j)


@given(case=methods())
def test_every_path_connects_noise_to_data(case: tuple[object, int]) -> None:
    method, n = case
    check_path(method.path(n), n)


def test_the_path_check_fails_on_mutants() -> None:
    for mutant in ["D01 D23", "D12 D23", "D01 D12", "D01 I10 D01 I10 D01 D12 I10 D12 D23", "D01 D12 D23 D34"]:
        with pytest.raises((AssertionError, IndexError)):
            check_path(moves(mutant), 3)


# Rows ---------------------------------------------------------------------------------------------

B = 2
X = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(B, 3)
COND, UNCOND = torch.tensor([0.5, -0.5]).double(), torch.tensor([0.1, 0.2]).double()


class Counted:
    """A predictor that counts the rows it is asked for, branch by branch (the condition tells which)."""

    def __init__(self) -> None:
        self.cond, self.uncond, self.calls = 0, 0, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        known = torch.cat([COND, UNCOND])
        assert all(bool((known == c).any()) for c in cond) and len(cond) == len(x) == len(t)
        self.cond += sum(int((c == COND).any()) for c in cond)
        self.uncond += sum(int((c == UNCOND).any()) for c in cond)
        return 0.2 * torch.sin(x + cond[:, None])

    @property
    def rows(self) -> float:
        return (self.cond + self.uncond) / B


def needs(scale: float) -> frozenset[str]:
    """w = 0 is unconditional, w = 1 conditional, all else needs both."""
    return frozenset({0.0: "u", 1.0: "c"}.get(scale, "cu"))


def expected(path: tuple[object, ...], strong: float, weak: float) -> tuple[int, int]:
    """(conditional, unconditional) evaluations of a path, from DESIGN 2 "Rows" and 3 "The gap cache"."""
    cond = uncond = 0
    for k, move in enumerate(path):
        after = path[k + 1] if k + 1 < len(path) else None
        branches: frozenset[str] = frozenset()
        if isinstance(move, Denoise):
            cached = isinstance(after, Shift) and not after.fresh
            branches = needs(strong) | (needs(weak) if cached else frozenset())
        elif isinstance(move, Shift) and move.fresh:
            branches = needs(strong) | needs(weak)
        elif isinstance(move, Invert):
            branches = needs(weak)
        times = 1 + move.refine if isinstance(move, Invert) else 1
        cond, uncond = cond + times * ("c" in branches), uncond + times * ("u" in branches)
    return cond, uncond


T = 6
ALL = [
    Standard(),
    Resampling(rounds=2),
    EndToEnd(refine=1),
    ZSampling(),
    ZSampling(steps=4, rounds=2, span=3, refine=1),
    ZSampling(released=True),
    ImplicitZ(),
    Z2Sampling(warmup=1),
]
each_method = pytest.mark.parametrize("method", ALL, ids=lambda m: str(m))


def check_rows(method: object, strong: object, weak: object, batched: bool, scales: tuple[float, float]) -> None:
    """Counted evaluations, Visit.rows, Trace.rows and the path's own arithmetic are one number."""
    fn, trace = Counted(), Trace()
    visits = list(
        walk(
            fn, X, FlowEuler.uniform(T), method, cond=COND, uncond=UNCOND, strong=strong, weak=weak,
            batched=batched, trace=trace, generator=torch.Generator().manual_seed(0),
        )
    )  # fmt: skip
    cond, uncond = expected(method.path(T), *scales)
    assert (fn.cond / B, fn.uncond / B) == (cond, uncond)
    assert fn.rows == visits[-1].rows == trace.rows == cond + uncond
    assert trace.rows == sum(record.rows for record in trace.records)


@each_method
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scales", [(5.5, 0.0), (5.5, 1.0), (5.5, 0.5), (1.0, 0.0), (0.0, 1.0), (1.0, 0.5)], ids=str)
def test_rows_equal_counted_calls_and_no_unneeded_branch_runs(
    method: object, batched: bool, scales: tuple[float, float]
) -> None:
    check_rows(method, scales[0], scales[1], batched, scales)


class Greedy(CFG):
    """The mutant: asks for both branches whatever the scale."""

    def branches(self, step: object) -> tuple[bool, bool]:
        return True, True

    def __call__(self, e_c: torch.Tensor, e_u: torch.Tensor, step: object) -> torch.Tensor:
        return e_u + self.at(step) * (e_c - e_u)


@pytest.mark.parametrize("batched", [True, False])
def test_the_row_check_fails_on_a_guidance_that_asks_for_what_it_does_not_need(batched: bool) -> None:
    for method in (ZSampling(), EndToEnd()):
        check_rows(method, CFG(5.5), CFG(0.0), batched, (5.5, 0.0))
        with pytest.raises(AssertionError):
            check_rows(method, CFG(5.5), Greedy(0.0), batched, (5.5, 0.0))
    check_rows(Standard(), CFG(1.0), CFG(0.0), batched, (1.0, 0.0))
    with pytest.raises(AssertionError):
        check_rows(Standard(), Greedy(1.0), CFG(0.0), batched, (1.0, 0.0))


def formula(method: object, n: int) -> int:
    """The design's table: rows a step for s not in {0, 1} and w = 0, summed over the steps."""
    if isinstance(method, EndToEnd):
        return (5 + method.refine) * n
    if isinstance(method, Resampling):
        return 2 * n + 2 * method.rounds * (n - 1 if method.steps is None else method.steps)
    if isinstance(method, ZSampling):
        return 2 * n + (3 + method.refine) * method.rounds * (n - 1 if method.steps is None else method.steps)
    return (4 if isinstance(method, ImplicitZ) else 2) * n


TABLE = [
    Standard(), Resampling(), Resampling(3, 2), EndToEnd(), EndToEnd(2), ZSampling(),
    ZSampling(3, 2, refine=2), ZSampling(released=True), ImplicitZ(), Z2Sampling(), Z2Sampling(warmup=0),
]  # fmt: skip


@pytest.mark.parametrize("method", TABLE, ids=lambda m: str(m))
@pytest.mark.parametrize("batched", [True, False])
def test_rows_are_those_of_the_table(method: object, batched: bool) -> None:
    fn = Counted()
    x = sample(fn, X, FlowEuler.uniform(T), method, cond=COND, uncond=UNCOND, batched=batched)
    assert fn.rows == formula(method, T) and x.shape == X.shape
    assert fn.calls < fn.rows if batched else fn.calls == fn.rows


def rows_with_weak_fn(method: object, weak: float, batched: bool) -> tuple[float, float]:
    strong_fn, weak_fn, trace = Counted(), Counted(), Trace()
    sample(
        strong_fn, X, FlowEuler.uniform(T), method, cond=COND, uncond=UNCOND, strong=5.5, weak=weak,
        weak_fn=weak_fn, batched=batched, trace=trace,
    )  # fmt: skip
    assert trace.rows == strong_fn.rows + weak_fn.rows
    return strong_fn.rows, weak_fn.rows


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("weak", "n"), [(0.0, 1), (1.0, 1), (0.5, 2)])
def test_a_second_predictor_is_counted_and_never_batched_with_the_first(batched: bool, weak: float, n: int) -> None:
    """weak_fn gives the weak predictions and nothing else; a gap needs its rows too: Z2 costs 3 a step."""
    assert rows_with_weak_fn(Standard(), weak, batched) == (2 * T, 0)
    assert rows_with_weak_fn(ZSampling(refine=1), weak, batched) == (2 * T + 2 * (T - 1), 2 * n * (T - 1))
    assert rows_with_weak_fn(EndToEnd(), weak, batched) == (4 * T, n * T)
    assert rows_with_weak_fn(ImplicitZ(), weak, batched) == (4 * T, n * T)
    assert rows_with_weak_fn(Z2Sampling(warmup=1), weak, batched) == (2 * T, n * (T - 1))


def test_a_second_predictor_is_the_one_whose_prediction_is_used() -> None:
    """With weak_fn = 0, gap = e_s: a Shift from x on FlowEuler is x + (sigma_j - sigma_i) e_s."""
    solver = FlowEuler.uniform(T)

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return cond[:, None].expand_as(x)

    def zero(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)

    def shifted(**weak: object) -> torch.Tensor:
        return sample(fn, X, solver, (Shift(0, True),), cond=COND, uncond=UNCOND, strong=1.0, weak=0.0, **weak)

    b = float(solver.sigmas[1] - solver.sigmas[0])
    eps = torch.finfo(torch.float64).eps
    torch.testing.assert_close(shifted(weak_fn=zero), X + b * COND[:, None], rtol=0, atol=4 * eps)
    torch.testing.assert_close(shifted(), X + b * (COND - UNCOND)[:, None], rtol=0, atol=4 * eps)
    assert not torch.allclose(shifted(weak_fn=zero), shifted())
