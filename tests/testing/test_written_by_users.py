"""A solver, a guidance with state and a steered method as a user writes them, by public names; and their mutants."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import (
    CFG,
    AffineStep,
    Denoise,
    Invert,
    Move,
    Solver,
    State,
    StepInfo,
    Visit,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
)
from zigzag.testing import check_guidance, check_method, check_solver


class FlowAB2(Solver):
    """Adams–Bashforth of order 2 on a flow, of docs/extending.md."""

    prediction = "flow"
    memory = 1
    sign = -1.0

    def __init__(self, sigmas: Sequence[float]) -> None:
        super().__init__([1 - s for s in sigmas], sigmas, sigmas[:-1])

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        _, sigmas, _ = self.knots
        h = sigmas[j] - sigmas[i]
        if not remembered:
            return AffineStep(1.0, h)
        r = h / (sigmas[i] - sigmas[remembered[0]]) / 2
        return AffineStep(1.0, h * (1 + r), memory=(self.sign * h * r,))


def even(T: int, top: float = 1.0, kind: Any = FlowAB2) -> Solver:
    solver: Solver = kind([top - top * k / T for k in range(T + 1)])
    return solver


class Backward(FlowAB2):
    """The mutant that adds the last prediction in place of taking it off."""

    sign = 1.0


class Halved(FlowAB2):
    """The mutant that keeps the marginals, and has the first order: half of the correction."""

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        whole, first = super().coefficients(i, j, remembered), super().coefficients(i, j, ())
        b = (float(whole.b) + float(first.b)) / 2
        return AffineStep(1.0, b, memory=tuple(float(m) / 2 for m in whole.memory))


def test_a_solver_with_memory_is_held_and_its_mutants_are_caught() -> None:
    check_solver(even(6), order=2, refined=lambda T: even(T, top=0.95))
    with pytest.raises(AssertionError, match="another share"):
        check_solver(even(6, kind=Backward))
    check_solver(even(6, kind=Halved))
    with pytest.raises(AssertionError, match="has the order"):
        check_solver(even(6, kind=Halved), order=2, refined=lambda T: even(T, top=0.95, kind=Halved))


class Clamped:
    """Guidance whose data stay within the range of those of the condition, of docs/extending.md."""

    needs_state = True

    def __init__(self, scale: float) -> None:
        self.cfg = CFG(scale)

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return True, self.cfg.branches(step)[1]

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, state: State | None = None) -> Tensor:
        assert state is not None and e_c is not None
        p, q = state.form("x0")
        m_c, m = (p * state.x + q * e for e in (e_c, self.cfg(e_c, e_u, step)))
        return (self.clamp(m, m_c) - p * state.x) / q

    def clamp(self, m: Tensor, m_c: Tensor) -> Tensor:
        dims = tuple(range(1, m.ndim))
        return m.clamp(m_c.amin(dims, keepdim=True), m_c.amax(dims, keepdim=True))


class OfBatch(Clamped):
    """The mutant that takes the range of the whole batch."""

    def clamp(self, m: Tensor, m_c: Tensor) -> Tensor:
        return m.clamp(float(m_c.min()), float(m_c.max()))


class Shown(Clamped):
    """The mutant that forgets to say the data as a prediction again."""

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, state: State | None = None) -> Tensor:
        assert state is not None
        p, q = state.form("x0")
        return p * state.x + q * super().__call__(e_c, e_u, step, state)


def test_a_guidance_that_reads_the_state_is_held_and_its_mutants_are_caught() -> None:
    check_guidance(Clamped(4.0))
    with pytest.raises(AssertionError, match="depends on its batch"):
        check_guidance(OfBatch(4.0))
    with pytest.raises(AssertionError, match="two equal branches"):
        check_guidance(Shown(4.0))


class WhileItTurns:
    """Zigzags at a step until the direction of the gap has settled, of docs/extending.md."""

    def __init__(self, cosine: float) -> None:
        self.cosine = cosine

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        for i in range(T - 1):
            visit = yield Denoise(i, i + 1)
            for _ in range(3):
                assert visit.gap is not None
                before = visit.gap.flatten()
                yield Invert(i + 1, i)
                visit = yield Denoise(i, i + 1)
                assert visit.gap is not None
                if float(torch.cosine_similarity(before, visit.gap.flatten(), dim=0)) > self.cosine:
                    break
        yield from self.last(T)

    def last(self, T: int) -> Generator[Move, Visit, None]:
        yield Denoise(T - 1, T)


class Short(WhileItTurns):
    """The mutant that leaves out the last step."""

    def last(self, T: int) -> Generator[Move, Visit, None]:
        yield from ()


class Apart(WhileItTurns):
    """The mutant whose last step begins elsewhere."""

    def last(self, T: int) -> Generator[Move, Visit, None]:
        yield Denoise(T - 2, T)


def test_a_steered_method_is_held_and_its_mutants_are_caught() -> None:
    check_method(WhileItTurns(0.99))
    with pytest.raises(AssertionError, match="ends at knot 7"):
        check_method(Short(0.99))
    with pytest.raises(ValueError, match="does not connect"):
        check_method(Apart(0.99))


def test_the_three_go_together() -> None:
    """On one walk; and the solver's zigzag is plain guidance at its matched scale where predictions are constant."""
    c, u = torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return 0.5 * torch.tanh(x + cond)

    solver = even(8, top=0.99)
    x = solver.noise((3, 2, 2, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = sample(model, x, solver, WhileItTurns(0.9), cond=c, uncond=u, strong=Clamped(3.0), weak=0.5)
    assert bool(torch.isfinite(out).all()) and not torch.equal(
        out, sample(model, x, solver, Z2Sampling(warmup=1), cond=c, uncond=u, strong=Clamped(3.0), weak=0.5)
    )
    scale = matched_cfg(ZSampling(), solver, 3.0, 0.5)
    assert scale.at(solver.info(0)) == pytest.approx(5.5)
