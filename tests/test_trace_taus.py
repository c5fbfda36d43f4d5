"""tau_1 and tau_2, the identity that ties them to the zigzag, and where they are left out."""

from __future__ import annotations

import pytest
import torch

from support.mixtures import NOISE
from support.traces import EPS, Model, T, each_solver, norm, traced
from zigzag import EndToEnd, Record, Trace, Visit, Z2Sampling, ZSampling
from zigzag.moves import Denoise, Invert


def zigzags(visits: list[Visit], trace: Trace) -> list[tuple[int, torch.Tensor, torch.Tensor, Record, Visit]]:
    """(i, x_i, x~_i, record, visit) of every span-1 zigzag of a walk, from its states."""
    states = [NOISE, *(visit.state for visit in visits)]
    return [
        (visit.move.i, states[k - 1], states[k + 1], trace.records[k], visit)
        for k, visit in enumerate(visits)
        if isinstance(visit.move, Invert)
    ]


def check_taus(model: Model, visits: list[Visit], trace: Trace, strong: float, weak: float, released: bool) -> None:
    """x~_i - x_i = (b/a)(tau_1 + tau_2), tau_1 = e_s(x_i) - e_w(x~_i), tau_2 = e_w(x~_i) - e_bar.

    Bounds: cancellation costs units of the predictions and of the states; a norm of n numbers costs n units.
    """
    found = zigzags(visits, trace)
    assert found
    for i, x, back, record, visit in found:
        step = model.solver.step(i)
        e_s, e_w, bar = model.guided(x, i, strong), model.guided(back, i, weak), visit.prediction
        tau1, tau2, moved = e_s - e_w, e_w - bar, back - x
        largest = float(e_s.abs().max() + e_w.abs().max() + bar.abs().max()) * (1 + abs(strong))
        near = 64 * EPS * largest * (1 + float(x.abs().max()))
        on = 64 * EPS * (float(x.abs().max() + visit.state.abs().max()) * (1 + 1 / step.a) + largest * abs(step.b))
        ratio = step.b / step.a
        if released:
            assert record.tau1 is None and record.tau2 is None
        else:
            assert float((moved - ratio * (tau1 + tau2)).abs().max()) <= on
            assert float((record.tau1 - norm(tau1)).abs().max()) <= near
            assert float((record.tau2 - norm(tau2)).abs().max()) <= near
            assert bool((record.tau1 > 10 * near).all())
        far = float(norm(moved).max())
        assert float((record.delta - norm(moved).square()).abs().max()) <= on * (2 * far + on)


@each_solver
@pytest.mark.parametrize(("strong", "weak"), [(3.0, 0.0), (3.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("method", [ZSampling(), ZSampling(rounds=2), ZSampling(refine=3)], ids=lambda m: str(m))
def test_theorem_2_of_the_z_paper_holds_on_every_traced_zigzag(
    method: object, name: str, strong: float, weak: float
) -> None:
    model = Model(name)
    visits, trace = traced(model, method, strong, weak)
    check_taus(model, visits, trace, strong, weak, released=False)
    for mutant in [(strong + 1, weak), (strong, weak + 0.01)]:
        with pytest.raises(AssertionError):
            check_taus(model, visits, trace, *mutant, released=False)
    released, other = traced(model, ZSampling(released=True), strong, weak)
    with pytest.raises((AssertionError, TypeError)):
        check_taus(model, released, other, strong, weak, released=False)


@each_solver
def test_the_released_inverse_has_a_delta_and_no_taus(name: str) -> None:
    model = Model(name)
    visits, trace = traced(model, ZSampling(released=True))
    check_taus(model, visits, trace, 3.0, 0.0, released=True)


def taus(trace: Trace) -> list[bool]:
    return [r.tau1 is not None and r.tau2 is not None for r in trace.records if isinstance(r.move, Invert)]


def test_taus_exist_only_where_they_cost_nothing() -> None:
    """s = 1 has no unconditional branch, weak_fn answers elsewhere, a path may end before the answer."""
    model, path = Model("ddim"), (Denoise(0, 1), Invert(1, 0), Denoise(0, 1))
    assert taus(traced(model, path)[1]) == [True]
    rows = model.rows
    assert rows == 5
    assert taus(traced(model, path, strong=1.0, weak=0.0)[1]) == [False] and model.rows == rows + 3
    assert taus(traced(model, path, strong=1.0, weak=1.0)[1]) == [True]
    assert taus(traced(model, path, weak_fn=model.fn)[1]) == [False]
    assert taus(traced(model, path[:2])[1]) == [False]
    assert traced(model, path[:2])[1].records[1].delta is not None
    assert taus(traced(model, EndToEnd())[1]) == [False] * T
    assert all(r.tau1 is None and r.tau2 is None for r in traced(model, Z2Sampling(warmup=1))[1].records)


def test_a_state_replaced_after_the_inversion_has_no_tau_of_its_own() -> None:
    """e_w(x~_i) is not what the Denoise computes then: either no figure, or the true one."""
    model, path = Model("ddim"), (Denoise(0, 1), Invert(1, 0), Denoise(0, 1))
    back = []

    def replace(visit: Visit) -> torch.Tensor | None:
        if isinstance(visit.move, Invert):
            back.append(visit.state)
            return visit.state + 0.5
        return None

    visits, trace = traced(model, path, callback=replace)
    record = trace.records[1]
    e_w = model.guided(back[0], 0, 0.0)
    want = norm(model.guided(NOISE, 0, 3.0) - e_w), norm(e_w - visits[1].prediction)
    for got, true in zip((record.tau1, record.tau2), want, strict=True):
        assert got is None or torch.allclose(got, true, rtol=1e-10)
