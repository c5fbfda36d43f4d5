"""Methods that choose their moves by where the walk stands: as the same path beforehand, and what is sent to them."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import make
from support.predictors import untouched
from support.refusals import refused
from support.steered import Led
from support.tensors import noise
from zigzag import (
    CFG,
    CFGPlusPlus,
    CosineStrength,
    Denoise,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Invert,
    Move,
    Renoise,
    Resampling,
    Shift,
    Standard,
    Steered,
    Tol,
    Trace,
    Visit,
    Z2Sampling,
    ZSampling,
    capture,
    count_rows,
    matched_cfg,
    sample,
    walk,
)

C, U, X = noise(1, 3), noise(2, 3), noise(0, 3, 4)


def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return 0.4 * torch.tanh(x + cond[:, None]) + 0.1 * torch.cos(t.to(x.dtype))[:, None]


def run(method: Any, solver: Any, **more: Any) -> Tensor:
    given = {"strong": 2.5, "weak": 0.5, "generator": torch.Generator().manual_seed(3)} | more
    return sample(model, X, solver, method, cond=C, uncond=U, **given)


class InTurns:
    """Shifts of fresh and of cached gaps in turns, by a rule that reads the gap before."""

    def path(self, T: int) -> tuple[Move, ...]:
        rule = CosineStrength(2.0)
        shifts = [Shift(i, fresh=i % 3 != 2, strength=rule) for i in range(T - 1)]
        return (*(move for i, shift in enumerate(shifts) for move in (shift, Denoise(i, i + 1))), Denoise(T - 1, T))

    def __repr__(self) -> str:
        return "InTurns()"


METHODS = [
    Standard(),
    Resampling(),
    EndToEnd(),
    ZSampling(rounds=2, span=2),
    ZSampling(refine=1),
    ZSampling(strength=0.5),
    ZSampling(plain=True),
    ZSampling(released=True),
    ImplicitZ(),
    Z2Sampling(warmup=1),
    Z2Sampling(warmup=1, strength=CosineStrength()),
    ImplicitZ(strength=CosineStrength(2.0)),
    InTurns(),
]
SOLVERS = {
    "flow": FlowEuler.uniform(5),
    "eta": make("eta 1"),
    "2M": make("2M"),
    "sde": make("SDE-3M"),
    "heun": make("Heun"),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_path_handed_out_move_by_move_is_walked_as_the_same_beforehand(method: Any, name: str) -> None:
    """To the bit, with all that steps hold; and the trace has the same errors (but β, which looks ahead)."""
    solver, traces = SOLVERS[name], (Trace(), Trace())
    if getattr(method, "released", False) and name != "flow":
        pytest.skip("coefficients of another interval hold nothing")
    x, y = (run(m, solver, trace=trace) for m, trace in zip((method, Led(method)), traces, strict=True))
    assert torch.equal(x, y)
    for one, two in zip(*(trace.records for trace in traces), strict=True):
        assert (one.move, one.knot, one.time) == (two.move, two.knot, two.time)
        for key in ("delta", "tau1", "tau2"):
            a, b = getattr(one, key), getattr(two, key)
            assert a is None if b is None else a is None or torch.equal(a, b)
        assert two.beta is None
    assert traces[1].beta is None and traces[0].rows <= traces[1].rows
    assert isinstance(Led(method), Steered)


def test_the_method_is_sent_each_visit_with_the_gap_and_the_state_of_the_callback() -> None:
    solver, led = FlowEuler.uniform(4), Led(ZSampling(steps=2))
    kept = []

    def halve(visit: Visit) -> Tensor:
        kept.append(visit)
        return visit.state / 2

    run(led, solver, callback=halve)
    assert [v.move for v in led.seen] == [v.move for v in kept] == list(ZSampling(steps=2).path(4))
    for sent, before in zip(led.seen, kept, strict=True):
        assert torch.equal(sent.state, before.state / 2) and sent.rows == before.rows
    x = X
    for sent in led.seen:
        if isinstance(sent.move, Denoise):
            t = solver.times[sent.move.i].expand(3)
            gap = 2.0 * (model(x, t, C) - model(x, t, U))  # strong 2.5, weak 0.5
            assert sent.gap is not None
            torch.testing.assert_close(sent.gap, gap, rtol=1e-12, atol=1e-12)
        x = sent.state


def test_a_visit_of_a_path_beforehand_has_the_gap_that_the_next_shift_reads() -> None:
    visits = list(walk(model, X, FlowEuler.uniform(3), Z2Sampling(warmup=1), cond=C, uncond=U, strong=2.5))
    has = [(type(v.move).__name__, v.gap is not None) for v in visits]
    assert has == [("Denoise", True), ("Shift", True), ("Denoise", True), ("Shift", True), ("Denoise", False)]


class UntilSettled:
    """Zigzags at a knot until the gap changes by less than a share, at most so often: a stopping rule."""

    def __init__(self, share: float, most: int = 4) -> None:
        self.share, self.most = share, most

    def __repr__(self) -> str:
        return f"UntilSettled({self.share})"

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        for i in range(T):
            visit = yield Denoise(i, i + 1)
            for _ in range(self.most if i < T - 1 else 0):
                before = visit.gap
                assert before is not None
                yield Invert(i + 1, i)
                visit = yield Denoise(i, i + 1)
                assert visit.gap is not None
                if float((visit.gap - before).norm() / before.norm()) < self.share:
                    break


def test_a_method_may_stop_when_it_sees_that_it_has_settled() -> None:
    solver = FlowEuler.uniform(5)

    def rounds(share: float) -> tuple[int, Tensor]:
        trace = Trace()
        out = run(UntilSettled(share), solver, trace=trace)
        return sum(isinstance(record.move, Invert) for record in trace.records), out

    never, always = rounds(0.0), rounds(1e9)
    assert never[0] == 4 * 4 and always[0] == 4
    assert any(always[0] < rounds(share)[0] < never[0] for share in (0.05, 0.04, 0.035))
    assert torch.equal(always[1], run(ZSampling(), solver))
    assert torch.equal(never[1], run(ZSampling(rounds=4), solver))


def test_a_method_may_make_steps_of_any_length_that_it_finds() -> None:
    """Also where a rule needs other branches over them: they are then evaluated in calls of their own."""

    class Long:
        def steer(self, T: int) -> Generator[Move, Visit, None]:
            yield Denoise(0, 1)
            yield Denoise(1, T)

    class ByLength:
        def branches(self, step: Any) -> tuple[bool, bool]:
            return step.j == step.i + 1, True

        def __call__(self, e_c: Any, e_u: Tensor, step: Any) -> Tensor:
            return e_u if e_c is None else e_c

    solver = FlowEuler.uniform(4)
    for strong in (CFG(3.0), CFGPlusPlus(0.5), ByLength()):
        ours = run(Long(), solver, strong=strong, weak=0.0)
        theirs = run((Denoise(0, 1), Denoise(1, 4)), solver, strong=strong, weak=0.0)
        assert torch.equal(ours, theirs)

    class Late(ByLength):
        def branches(self, step: Any) -> tuple[bool, bool]:
            return True, step.j != step.i + 1

    with pytest.raises(ValueError, match="uncond is missing"):  # found when the step is asked for
        sample(model, X, solver, Long(), cond=C, strong=Late(), weak=CFG(1.0))


def test_gradients_are_recorded_along_a_steered_path() -> None:
    x = X.clone().requires_grad_()

    def gradient(method: Any) -> Tensor:
        out = sample(model, x, FlowEuler.uniform(3), method, cond=C, uncond=U, strong=2.0, weak=0.0, grad=True)
        return torch.autograd.grad(out.sum(), x)[0]

    torch.testing.assert_close(gradient(Led(ZSampling())), gradient(ZSampling()))
    refused("grad=2 needs a path that is known", method=Led(Standard()), grad=2)


def test_what_needs_the_path_beforehand_refuses_a_steered_method_with_the_reason() -> None:
    led, solver = Led(ZSampling()), FlowEuler.uniform(4)
    with pytest.raises(TypeError, match=r"steered by its walk.*use sample"):
        capture(model, X, solver, led, cond=C, uncond=U)
    for ask in (lambda: matched_cfg(led, solver), lambda: count_rows(led, 4)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not known beforehand"):
            ask()


BEFORE: list[tuple[str, Any]] = [
    ("no moves", ()),
    ("must be Denoise", (3,)),
    ("needs a cached gap", (Shift(0, False), Denoise(0, 1))),
    ("no step from knot", (Denoise(3, 9),)),
    ("refine must be", (Invert(1, 0, refine=-1),)),
]
LATER: list[tuple[str, Any]] = [
    ("does not connect: move 1", (Denoise(0, 1), Denoise(2, 3))),
    ("move 1 of the path.*no step", (Denoise(0, 1), Denoise(1, 9))),
    ("move 1 of the path.*strength", (Denoise(0, 1), Invert(1, 0, strength=float("nan")))),
    ("move 2 of the path must be", (Denoise(0, 1), Renoise(1, 0), None)),
]


@pytest.mark.parametrize(("match", "path"), BEFORE)
def test_the_first_move_is_checked_before_a_model_call(match: str, path: Any) -> None:
    refused(match, (TypeError, ValueError), method=Led(path))


@pytest.mark.parametrize(("match", "path"), LATER)
def test_later_moves_are_checked_when_they_come(match: str, path: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        run(Led(path), FlowEuler.uniform(4))


def test_branches_are_asked_for_beforehand_and_fresh_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="uncond is missing"):
        sample(untouched, X, FlowEuler.uniform(4), Led(Standard()), cond=C, strong=2.0)
    solver = make("eta 1")
    solver.fresh_noise = True
    refused("fresh_noise", solver=solver, method=Led(ZSampling()))

    class Plain:
        def steer(self, T: int) -> Any:
            return [Denoise(0, 1)]

    refused("must be a generator", TypeError, method=Plain())


def test_inversions_that_did_not_converge_are_told_of_at_the_end() -> None:
    with pytest.warns(UserWarning, match="of 3 inversions did not converge"):
        run(Led(ZSampling(refine=Tol(1e-14, most=2))), FlowEuler.uniform(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Led(ZSampling(refine=Tol(1e-6))), FlowEuler.uniform(4))


def test_nothing_of_a_visit_is_held_through_the_next_model_call() -> None:
    """The prediction of a move is let go of, unless the method keeps it."""
    import weakref

    refs: list[Any] = []

    def watched(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        assert all(ref() is None for ref in refs[:-1]), "an earlier prediction is alive"
        e = model(x, t, cond)
        refs.append(weakref.ref(e))
        return e

    class Quiet:
        def steer(self, T: int) -> Generator[Move, Visit, None]:
            for i in range(T):
                yield Denoise(i, i + 1)

    sample(watched, X, FlowEuler.uniform(6), Quiet(), cond=C, strong=1.0, weak=1.0)
    assert len(refs) == 6
