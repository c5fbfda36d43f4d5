"""The methods counted in rows, with no branch that nobody needs."""

from __future__ import annotations

import pytest
import torch

from zigzag import CFG, EndToEnd, FlowEuler, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling, sample, walk
from zigzag.moves import Denoise, Invert, Shift

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
    """(conditional, unconditional) evaluations of a path, from docs/mathematics.md "Rows" and 3 "The gap cache"."""
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
