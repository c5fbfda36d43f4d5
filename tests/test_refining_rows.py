"""What inversions refined to a tolerance cost, and what is said of those that did not converge."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from support.predictors import Counted, field, steep
from support.sampling import COND, KNOWN, SOLVERS, B, X
from zigzag import EndToEnd, Standard, Tol, Trace, ZSampling, count_rows, sample, walk
from zigzag.moves import Denoise, Invert
from zigzag.rows import row_bounds
from zigzag.solvers import FlowEuler

# What it costs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [ZSampling(refine=Tol(1e-8)), EndToEnd(refine=Tol(1e-3, most=9))], ids=str)
def test_rows_are_counted_as_they_ran_and_known_within_bounds(method: Any) -> None:
    solver, fn, trace = SOLVERS["flow"], Counted(), Trace()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, last = walk(fn, X, solver, method, **KNOWN, trace=trace)
    assert fn.rows == trace.rows == last.rows
    low, high = row_bounds(method, solver)
    most = method.refine.most
    assert (low, high) == tuple(count_rows(type(method)(refine=K), solver) for K in (0, most - 1))
    assert low < trace.rows < high
    with pytest.raises(ValueError, match=rf"as many rows as .* need to converge, from {low} to {high}: .*trace.rows"):
        count_rows(method, solver)
    assert row_bounds(Standard(), solver) == (count_rows(Standard(), solver),) * 2


class Syncs(TorchDispatchMode):
    """Counts how often a number is read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_waits_once_an_evaluation_and_nowhere_else() -> None:
    method, trace = ZSampling(refine=Tol(1e-10)), Trace()
    with Syncs() as syncs:
        sample(field, X, SOLVERS["flow"], method, **KNOWN, strong=3.0, weak=1.0, trace=trace)
    assert syncs.count == sum(record.rows for record in trace.records if isinstance(record.move, Invert))
    for counted in (Standard(), ZSampling(refine=3)):
        with Syncs() as syncs:
            sample(field, X, SOLVERS["flow"], counted, **KNOWN)
        assert syncs.count == 0


# What is said --------------------------------------------------------------------------------------


def test_what_did_not_converge_is_said_once_a_walk_with_its_residual() -> None:
    """Three inversions; the first sample is too steep for two evaluations of each, the second is not."""
    solver = FlowEuler.uniform(3)
    method = ZSampling(steps=3, refine=Tol(1e-2, most=2, anderson=0))
    with pytest.warns(UserWarning) as said:
        visits = list(walk(steep, X, solver, method, **KNOWN, strong=1.0, weak=1.0))
    (warning,) = said
    found = re.match(
        r"(\d) of 3 inversions did not converge, for 1 of 2 samples: (Invert.*) is left with a residual of "
        r"([\d.e+-]+), and \|d\|·Lip is ([\d.e+-]+) or more there; more steps",
        str(warning.message),
    )
    assert found is not None, warning.message
    # By hand: the residual after two evaluations from where each inversion begins.
    left = {}
    for before, after in pairwise(visits):
        if isinstance(after.move, Invert):
            i = after.move.i
            step, t, residuals = solver.step(i), solver.times[i].expand(B), []
            x = before.state
            for _ in range(2):
                g = (before.state - step.b * steep(x, t, COND)) / step.a
                residuals.append((g - x).norm(dim=1) / g.norm(dim=1))
                x = g
            left[str(after.move)] = torch.stack(residuals).min(0).values
    missed = {name: float(r[0]) for name, r in left.items() if r[0] > 1e-2}
    assert all(float(r[1]) <= 1e-2 for r in left.values())
    assert int(found[1]) == len(missed) >= 2
    assert found[2] == max(missed, key=lambda name: missed[name])
    assert float(found[3]) == pytest.approx(max(missed.values()), rel=0.05)
    assert 0 < float(found[4]) <= abs(float(solver.step(0).d)) * 3 * 1.05


def test_nothing_is_said_of_what_converged() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(field, X, SOLVERS["ddim"], ZSampling(refine=Tol()), **KNOWN)


@pytest.mark.parametrize(
    ("make_it", "error", "says"),
    [
        (lambda: Tol(0.0), ValueError, "tol must be positive, got 0.0"),
        (lambda: Tol("small"), TypeError, "tol must be a real number, got 'small'"),  # type: ignore[arg-type]
        (lambda: Tol(most=0), ValueError, "Tol: most must be at least 1, got 0"),
        (lambda: Tol(anderson=1.5), TypeError, "Tol: anderson must be an integer, got 1.5"),  # type: ignore[arg-type]
        (lambda: Tol(damping=0.0), ValueError, r"damping must lie in \(0, 1\], got 0.0"),
        (lambda: ZSampling(refine=1e-4), TypeError, "refine must be an integer, or Tol"),  # type: ignore[arg-type]
        (lambda: ZSampling(refine=Tol(), released=True), ValueError, "released=True needs span=1 and refine=0"),
    ],
)
def test_bad_tolerances_are_refused(make_it: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_it()


def test_a_move_with_another_refinement_is_refused_before_the_first_call() -> None:
    path = (Denoise(0, 1), Invert(1, 0, refine=1e-4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"refine must be an integer of at least 0, or Tol\(1e-4\), got 0.0001"):
        walk(field, X, SOLVERS["flow"], path, **KNOWN)


def test_a_captured_loop_refuses_a_tolerance_with_the_reason() -> None:
    from zigzag.capture.graphs import TableLoop

    method = ZSampling(refine=Tol(1e-4))
    with pytest.raises(ValueError, match="a captured loop makes a number of evaluations that is fixed beforehand"):
        TableLoop(field, X, SOLVERS["flow"], method, **KNOWN)


def test_a_tolerance_is_spelt_as_command_lines_spell_it() -> None:
    from zigzag.evaluation.named import label, parse_method, refinement

    for tol in (Tol(1e-4), Tol(0.3)):
        assert refinement(str(tol)) == tol
        assert parse_method(f"z:span=2,refine={tol}", 4) == ZSampling(span=2, refine=tol)
    assert refinement("3") == 3 and str(Tol(1e-3, most=7)) == repr(Tol(1e-3, most=7))
    assert label(ZSampling(refine=Tol(1e-4))) == "Z-Sampling (refine 0.0001)"
    with pytest.raises(ValueError, match="z: refine must be an integer, or a tolerance such as 1e-4, got 'small'"):
        parse_method("z:refine=small", 4)
