"""A zigzag of which a part is kept: `x + λ·(x̃ − x)`, against loops written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.mixtures import COND, MIXTURE, NOISE, UNCOND
from zigzag import DDIM, Denoise, FlowEuler, Invert, Standard, Trace, ZSampling, matched_cfg, sample, walk
from zigzag.capture.graphs import TableLoop

SOLVERS = {"ddim": DDIM.stable_diffusion(6), "flow": FlowEuler.uniform(6)}
S, W = 4.0, 0.5


def given(solver: Any, **more: Any) -> dict[str, Any]:
    return {"cond": COND, "uncond": UNCOND, "strong": S, "weak": W, **more}


def by_hand(solver: Any, span: int, rounds: int, strength: float) -> Tensor:
    predict, T = MIXTURE.predictor(solver), len(solver)

    def e(w: float, x: Tensor, i: int) -> Tensor:
        t = solver.times[i].expand(2)
        e_c, e_u = predict(x, t, COND), predict(x, t, UNCOND)
        return e_u + w * (e_c - e_u)

    x = NOISE
    for i in range(T):
        for _ in range(rounds if i < T - 1 else 0):
            y, end = x, min(i + span, T)
            for m in range(i, end):
                step = solver.step(m)
                y = float(step.a) * y + float(step.b) * e(S, y, m)
            for m in reversed(range(i, end)):
                step = solver.step(m)
                y = (y - float(step.b) * e(W, y, m)) / float(step.a)
            x = x + strength * (y - x)
        x = float(solver.step(i).a) * x + float(solver.step(i).b) * e(S, x, i)
    return x


@pytest.mark.parametrize("strength", [0.5, -0.3, 1.7])
@pytest.mark.parametrize(("span", "rounds"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("name", SOLVERS)
def test_a_part_of_each_zigzag_is_kept(name: str, span: int, rounds: int, strength: float) -> None:
    solver, method = SOLVERS[name], ZSampling(span=span, rounds=rounds, strength=strength)
    x = sample(MIXTURE.predictor(solver), NOISE, solver, method, **given(solver))
    torch.testing.assert_close(x, by_hand(solver, span, rounds, strength), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SOLVERS)
def test_nothing_of_it_is_standard_sampling_and_all_of_it_the_zigzag(name: str) -> None:
    solver = SOLVERS[name]

    def drawn(method: Any) -> Tensor:
        return sample(MIXTURE.predictor(solver), NOISE, solver, method, **given(solver))

    assert torch.equal(drawn(ZSampling(strength=0)), drawn(Standard()))
    assert ZSampling(strength=1.0).path(6) == ZSampling().path(6)
    assert torch.equal(drawn(ZSampling(strength=1)), drawn(ZSampling()))


def test_a_state_that_a_callback_put_there_is_the_one_that_leaves() -> None:
    """What is kept is of the zigzag from the state that the Denoise began with."""
    solver = SOLVERS["flow"]
    path = (Denoise(0, 1), Invert(1, 0, strength=0.0), *Standard().path(6))
    states = [v.state for v in walk(MIXTURE.predictor(solver), NOISE, solver, path, **given(solver))]
    assert torch.equal(states[1], NOISE)
    longer = (Denoise(0, 1), Denoise(1, 2), Invert(2, 1, strength=0.0), *Standard().path(6)[1:])
    walked = [v.state for v in walk(MIXTURE.predictor(solver), NOISE, solver, longer, **given(solver))]
    assert torch.equal(walked[2], walked[0])


@pytest.mark.parametrize("strength", [0.5, -0.3])
@pytest.mark.parametrize(("span", "rounds"), [(1, 1), (2, 1), (1, 2)])
def test_the_matched_scale_is_reached_on_a_constant_field(span: int, rounds: int, strength: float) -> None:
    solver = SOLVERS["ddim"]
    method = ZSampling(span=span, rounds=rounds, strength=strength)
    e = {id(COND): torch.ones(2, 2).double(), id(UNCOND): -torch.ones(2, 2).double() / 3}

    def constant(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return e[id(cond)]

    x = sample(constant, NOISE, solver, method, **given(solver, batched=False))
    scale = matched_cfg(method, solver, S, W)
    y = sample(constant, NOISE, solver, Standard(), **given(solver, batched=False, strong=scale))
    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)
    if (span, rounds) == (1, 1):
        assert scale.at(solver.info(0)) == pytest.approx(S + strength * (S - W))


def test_the_trace_has_what_came_back_and_no_terms_of_all_of_it() -> None:
    """The terms of the error are an identity of the whole zigzag; half of it moves the state half as far."""
    solver, predict = SOLVERS["ddim"], MIXTURE.predictor(SOLVERS["ddim"])
    whole, half = Trace(), Trace()
    sample(predict, NOISE, solver, ZSampling(steps=1), **given(solver), trace=whole)
    sample(predict, NOISE, solver, ZSampling(steps=1, strength=0.5), **given(solver), trace=half)
    assert whole.records[1].tau1 is not None and half.records[1].tau1 is None
    assert whole.records[1].delta is not None and half.records[1].delta is not None
    torch.testing.assert_close(half.records[1].delta, whole.records[1].delta / 4)
    assert half.rows == whole.rows


def test_what_is_no_strength_of_a_zigzag_is_refused() -> None:
    solver, predict = SOLVERS["flow"], MIXTURE.predictor(SOLVERS["flow"])
    for strength, error in (("half", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match="ZSampling: strength must be"):
            ZSampling(strength=strength)  # type: ignore[arg-type]
        path = (Denoise(0, 1), Invert(1, 0, strength=strength), *Standard().path(6))  # type: ignore[arg-type]
        with pytest.raises(error, match=r"move 1 of the path.*strength must be"):
            sample(predict, NOISE, solver, path, **given(solver))
    for path in (
        (Invert(1, 0, strength=0.5), *Standard().path(6)),
        (Denoise(0, 1), Invert(1, 0), Denoise(0, 2), Invert(2, 1, strength=0.5), *Standard().path(6)[1:]),
    ):
        with pytest.raises(ValueError, match=r"no Denoise from knot . begins one"):
            sample(predict, NOISE, solver, path, **given(solver))
    within = (Denoise(0, 1), Denoise(1, 2), Invert(2, 1, strength=0.5), Invert(1, 0, strength=0.5))
    for method, match in (
        (ZSampling(strength=0.5, refine=1), "cannot be captured together with refine"),
        ((*within, *Standard().path(6)), "keeps a part of a zigzag within another"),
    ):
        with pytest.raises(ValueError, match=match):
            TableLoop(predict, NOISE, solver, method, **given(solver))
        sample(predict, NOISE, solver, method, **given(solver))
