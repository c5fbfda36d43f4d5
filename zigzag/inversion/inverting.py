"""From data up to noise, and back down."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from zigzag.checks import check_generator, check_state
from zigzag.conditions import MISSING
from zigzag.guidance import Guidance
from zigzag.guided import Asking
from zigzag.inversion.fixed_point import FixedPoint
from zigzag.inversion.inverted import GridMark, Inverted, Report, deviation
from zigzag.inversion.recorded import Recorded
from zigzag.inversion.scheme import Found, Run, Scheme, answered
from zigzag.inversion.settling import check_accuracy, check_solver, draw_noises, held_noises, settle, state_dtype_of
from zigzag.model import Predictor
from zigzag.sampling import Generators
from zigzag.solvers import Solver
from zigzag.solvers.affine import norms

__all__ = ["fresh", "invert", "inverting", "reconstruct", "reconstructing"]


def invert(
    eps_fn: Predictor,
    x0: Tensor,
    solver: Solver,
    scheme: Scheme,
    *,
    cond: Any,
    uncond: Any = MISSING,
    guidance: float | Guidance = 1.0,
    batched: bool | Literal["auto"] = "auto",
    generator: Generators = None,
    accuracy: float = 1e-2,
    dtype: torch.dtype | None = None,
    round_trip: bool = False,
    grad: bool = False,
) -> Inverted:
    """The noise of data `x0` under a model, from which `reconstruct` comes back to it.

    Args:
        eps_fn: as in `zigzag.sample`; it must give the same prediction again for the same arguments.
        x0: `(B, …)`, the state at the last knot of the grid.
        solver: the grid, and the steps that the scheme is made of.
        scheme: `FixedPoint`, `EDICT`, `OBELM`, `Rex` or `Recorded`.
        cond, uncond: the two conditions, any pytrees; `uncond` may be left out where the guidance does not need it.
        guidance: the guidance of the predictions; a number is `CFG(number)`. One with state is refused.
        batched: as in `zigzag.sample`.
        generator: for the noise that a stochastic solver holds, and that of `Recorded("independent")`.
        accuracy: what rounding may come to at the noise, relative to the state: refused where the growth that the
            scheme knows from the grid, times the rounding of the dtype, exceeds it.
        dtype: that the states are carried in, by default `x0`'s, at least float32. The model is shown `x0`'s.
        round_trip: also come back, and report by how much that misses `x0`; at the rows of a way down.
        grad: record gradients.

    Raises:
        TypeError, ValueError: before the first model call, for arguments that do not fit, a solver that the scheme
            cannot run on, and a dtype that would lose what is asked for; each says what would do.
    """
    carried = state_dtype_of(x0, dtype)
    check_solver(solver, scheme)
    check_generator(generator, len(x0))
    check_accuracy(scheme, solver, carried, accuracy)
    with torch.set_grad_enabled(grad):
        settled = settle(eps_fn, x0, solver, cond, uncond, guidance, batched)
        x = x0.to(carried)
        run = settled.run(solver, held_noises(scheme, solver, x, generator))
        return answered(inverting(scheme, run, x, x0.dtype, generator, round_trip), settled.model)


def inverting(
    scheme: Scheme, run: Run, x: Tensor, dtype: torch.dtype, generator: Generators = None, round_trip: bool = False
) -> Asking[Inverted]:
    """`invert` without a model, its arguments checked: whoever answers what it asks gets the same.

    Args:
        scheme, generator, round_trip: as there. run: the grid, the guidance and the noise held, of this way alone.
        x: the data, in the dtype that the states are carried in. dtype: of the data.
    """
    solver = run.solver
    found = yield from scheme.up(run, x, generator)
    report = Report(
        run.guided.rows, deviation(found.states[0].detach(), solver.knots[1][0]), scheme.growth(solver),
        found.residual, found.contraction,
    )  # fmt: skip
    if isinstance(scheme, FixedPoint):
        report = _judge(scheme, solver.memory, report)
    if round_trip:
        back = yield from scheme.down(run, found)
        report = replace(report, round_trip=norms(back - x) / norms(x))
    return Inverted(scheme, GridMark.of(solver), found.states, dtype, found.residuals, run.noises, report)


def reconstruct(
    eps_fn: Predictor,
    inverted: Inverted,
    solver: Solver,
    *,
    cond: Any,
    uncond: Any = MISSING,
    guidance: float | Guidance = 1.0,
    batched: bool | Literal["auto"] = "auto",
    grad: bool = False,
) -> Tensor:
    """The data that the scheme's way down leads to: `x0` again, or under another prompt its edit.

    Args:
        eps_fn, cond, uncond, guidance, batched: as in `invert`. Under those of the inversion the data come back, to
            what its scheme promises.
        inverted: what `invert` gave, or `fresh`, or a file that was loaded.
        solver: the one that it was made on. grad: record gradients.

    Returns:
        `(B, …)` in the dtype of the data that were inverted.

    Raises:
        TypeError, ValueError: before the first model call, for arguments that do not fit, and a solver that makes other
            steps than the one of the inversion.
    """
    if not isinstance(inverted, Inverted):
        raise TypeError(f"inverted must be what invert() gave, got {type(inverted).__name__}")
    check_solver(solver, inverted.scheme)
    inverted.grid.check(solver)
    with torch.set_grad_enabled(grad):
        shown = inverted.noise.to(inverted.dtype)
        settled = settle(eps_fn, shown, solver, cond, uncond, guidance, batched)
        x = answered(reconstructing(inverted, settled.run(solver, inverted.noises)), settled.model)
    return x.to(inverted.dtype)


def reconstructing(inverted: Inverted, run: Run) -> Asking[Tensor]:
    """`reconstruct` without a model, its arguments checked: the data, in the dtype that the states are carried in."""
    return (yield from inverted.scheme.down(run, Found(inverted.states, inverted.residuals)))


def fresh(
    x: Tensor, solver: Solver, scheme: Scheme, *, generator: Generators = None, dtype: torch.dtype | None = None
) -> Inverted:
    """What `reconstruct` makes a sample of: the noise `x` at knot 0, as the pair that the scheme begins with.

    The trajectory is then one that the scheme's way up comes back on.

    Args:
        x: `(B, …)`, noise as `solver.noise` makes it. solver, scheme: as in `invert`.
        generator: for the noise that a stochastic solver holds.
        dtype: that the states are carried in, as in `invert`.

    Raises:
        TypeError, ValueError: for a scheme that needs data (`Recorded`) or cannot run on the solver.
    """
    check_state(x)
    check_solver(solver, scheme)
    check_generator(generator, len(x))
    if isinstance(scheme, Recorded):
        raise ValueError("Recorded needs data to record; take zigzag.sample for a sample of noise")
    state = x.to(state_dtype_of(x, dtype))
    return Inverted(scheme, GridMark.of(solver), (state,), x.dtype, noises=draw_noises(solver, state, generator))


def _judge(scheme: FixedPoint, memory: int, report: Report) -> Report:
    """Says which samples did not converge."""
    assert report.residual is not None and report.contraction is not None
    converged = (report.residual <= scheme.tol).all(0)
    if not converged.all():
        worst, shown = report.residual.max(0).values, report.contraction.max(0).values
        each = ", ".join(
            f"{k} (residual {worst[k]:.2g}, |d|·Lip at least {shown[k]:.2g})"
            for k in (~converged).nonzero()[:, 0].tolist()[:8]
        )
        why = "the plain iteration contracts where |d|·Lip < 1"
        if memory and float(shown.max()) < 1:
            why = f"the {memory} predictions that a step remembers are unknown too, and a lower order helps"
        warnings.warn(
            f"{scheme!r} did not converge for {int((~converged).sum())} of {len(converged)} samples: {each}; {why}; "
            "more steps, weaker guidance or damping help, and EDICT, OBELM and Rex are exact without",
            stacklevel=5,
        )
    return replace(report, converged=converged)
