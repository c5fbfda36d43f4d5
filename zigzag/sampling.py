"""The one loop: from noise to a sample, along any path of the four moves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from zigzag.checks import Given, check_generator, moves_recorded, settle
from zigzag.conditions import MISSING
from zigzag.driving import Traversal, drive
from zigzag.guidance import Guidance
from zigzag.guided import Guided
from zigzag.held import Draw, Held, HeldStep, Left
from zigzag.methods import Method, Steered
from zigzag.model import Model, Models, Predictor
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, Tol, gap_is_read
from zigzag.noise import Generators, noise_like, noise_of
from zigzag.refining import Refined
from zigzag.roles import STRONG, WEAK, Roles, roles_asked
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype
from zigzag.steered import Next, Steering
from zigzag.strengths.base import Gaps
from zigzag.support.progress import progress_bar
from zigzag.trace import Trace
from zigzag.visits import Visit

__all__ = ["Generators", "Predictor", "Traversal", "Visit", "noise_like", "noise_of", "sample", "traverse", "walk"]


def sample(
    eps_fn: Predictor,
    x: Tensor,
    solver: Solver,
    method: Method | Steered | Sequence[Move],
    *,
    cond: Any,
    uncond: Any = MISSING,
    strong: float | Guidance = 5.5,
    weak: float | Guidance = 0.0,
    weak_fn: Predictor | None = None,
    weak_cond: Any = MISSING,
    weak_uncond: Any = MISSING,
    plain: float | Guidance | None = None,
    plain_fn: Predictor | None = None,
    plain_cond: Any = MISSING,
    plain_uncond: Any = MISSING,
    batched: bool | Literal["auto"] = "auto",
    generator: Generators = None,
    grad: bool | int = False,
    checkpoint: bool = False,
    callback: Callable[[Visit], Tensor | None] | None = None,
    progress: bool = False,
    trace: Trace | None = None,
) -> Tensor:
    """The state at the end of the path of `method`, from `x` at its beginning: a sample, from noise.

        x_T = solver.noise((1, 4, 64, 64), generator=generator)
        x0 = sample(eps_fn, x_T, solver, Z2Sampling(warmup=5), cond=c, uncond=u, strong=5.5, weak=0.0)

    Args:
        eps_fn: `eps_fn(x, t, cond) -> (B, …)`, predicting what `solver.prediction` says. `x` comes in the dtype passed
            here; `t` is `(B,)`, int64 where the solver's times are integers, else in the state's dtype; `cond` is what
            was passed. In a doubled batch all have 2B rows, unconditional first. It must not write to `x`, nor return
            memory that its next call overwrites (clone what comes out of a captured graph).
        x: `(B, …)`, the state at the first knot of the path: noise, for a method. It is carried in
            `promote(x.dtype, float32)`.
        solver: the grid and its steps.
        method: one of `zigzag.methods`, or a tuple of moves that connect; it may begin and end at any knot. Or a method
            that chooses its moves by where the walk stands (`zigzag.Steered`).
        cond, uncond: the two conditions, any pytrees. `uncond` may be left out where no guidance needs it.
        strong, weak: the guidance of Denoise and of Invert; a number is `CFG(number)`.
        weak_fn: another predictor for the weak predictions; a gap then costs its rows too.
        weak_cond, weak_uncond: other conditions for the weak predictions, by default `cond` and `uncond`. A branch
            that both roles share is evaluated once; one of its own is a row more, also where it is the other branch's.
            One that no weak prediction reads is refused, as a `weak_cond` alone at `weak=0`.
        plain, plain_fn, plain_cond, plain_uncond: the same for a Denoise that is plain (`ZSampling(plain=True)`); what
            is not passed is as it is for the strong predictions.
        batched: True evaluates all branches of a predictor at a state in one call, on a batch of as many times the
            size, False in a call each; "auto" batches when their conditions are pytrees of one structure whose leaves
            are all tensors of equal shapes, the batch first (else those of them that are alike).
        generator: for the noise of Renoise and of stochastic steps, on any device; by default torch's global one. With
            a list, one a sample, what a sample is does not depend on its batch.
        grad: record gradients; an integer K records them of the last K steps only: of the moves after the path is
            below knot `T − K` for good. State, cached gap and what the solver holds have no history there, so that
            this is exactly the gradient of those moves. Grad mode is set inside a move, never across a `yield`.
        checkpoint: compute the activations of a model call anew on the way back, in place of keeping those of all
            calls. The model must give the same again; conditions must not be changed during the walk.
        callback: called after each move; a tensor of the state's shape that it returns replaces the state (the cached
            gap stays).
        progress: a tqdm bar, one tick a move, rows in its postfix (extra `progress`).
        trace: a `Trace` to fill, from empty.

    Returns:
        `(B, …)` in the dtype of `x`. Same inputs and generator, same output, bit for bit.

    Raises:
        TypeError, ValueError: before the first model call for arguments that do not fit, each naming what came and
            what is wanted; after it for an output of `eps_fn`, or a state from `callback`, of another shape than `x`.
    """
    for visit in walk(
        eps_fn, x, solver, method, cond=cond, uncond=uncond, strong=strong, weak=weak, weak_fn=weak_fn,
        weak_cond=weak_cond, weak_uncond=weak_uncond, plain=plain, plain_fn=plain_fn, plain_cond=plain_cond,
        plain_uncond=plain_uncond, batched=batched, generator=generator,
        grad=grad, checkpoint=checkpoint, callback=callback, progress=progress, trace=trace,
    ):  # fmt: skip
        state = visit.state
        del visit  # or its prediction would be held through the next model call
    return state.to(x.dtype)


def walk(
    eps_fn: Predictor,
    x: Tensor,
    solver: Solver,
    method: Method | Steered | Sequence[Move],
    *,
    cond: Any,
    uncond: Any = MISSING,
    strong: float | Guidance = 5.5,
    weak: float | Guidance = 0.0,
    weak_fn: Predictor | None = None,
    weak_cond: Any = MISSING,
    weak_uncond: Any = MISSING,
    plain: float | Guidance | None = None,
    plain_fn: Predictor | None = None,
    plain_cond: Any = MISSING,
    plain_uncond: Any = MISSING,
    batched: bool | Literal["auto"] = "auto",
    generator: Generators = None,
    grad: bool | int = False,
    checkpoint: bool = False,
    callback: Callable[[Visit], Tensor | None] | None = None,
    progress: bool = False,
    trace: Trace | None = None,
) -> Generator[Visit, None, None]:
    """Walks a zigzag path, and yields a `Visit` after each move. All checks are made before this returns.

    Args:
        eps_fn: `eps_fn(x, t, cond) -> (B, …)`, predicting what `solver.prediction` says. `x` comes in the dtype passed
            here; `t` is `(B,)`, int64 where the solver's times are integers, else in the state's dtype; `cond` is what
            was passed. In a doubled batch all have 2B rows, unconditional first. It must not write to `x`, nor return
            memory that its next call overwrites (clone what comes out of a captured graph).
        x: `(B, …)`, the state at the first knot of the path: noise, for a method. It is carried in
            `promote(x.dtype, float32)`.
        solver: the grid and its steps.
        method: one of `zigzag.methods`, or a tuple of moves that connect; it may begin and end at any knot. Or a method
            that chooses its moves by where the walk stands (`zigzag.Steered`).
        cond, uncond: the two conditions, any pytrees. `uncond` may be left out where no guidance needs it.
        strong, weak: the guidance of Denoise and of Invert; a number is `CFG(number)`.
        weak_fn: another predictor for the weak predictions; a gap then costs its rows too.
        weak_cond, weak_uncond: other conditions for the weak predictions, by default `cond` and `uncond`. A branch
            that both roles share is evaluated once; one of its own is a row more, also where it is the other branch's.
            One that no weak prediction reads is refused, as a `weak_cond` alone at `weak=0`.
        plain, plain_fn, plain_cond, plain_uncond: the same for a Denoise that is plain (`ZSampling(plain=True)`); what
            is not passed is as it is for the strong predictions.
        batched: True evaluates all branches of a predictor at a state in one call, on a batch of as many times the
            size, False in a call each; "auto" batches when their conditions are pytrees of one structure whose leaves
            are all tensors of equal shapes, the batch first (else those of them that are alike).
        generator: for the noise of Renoise and of stochastic steps, on any device; by default torch's global one. With
            a list, one a sample, what a sample is does not depend on its batch.
        grad: record gradients; an integer K records them of the last K steps only: of the moves after the path is
            below knot `T − K` for good. State, cached gap and what the solver holds have no history there, so that
            this is exactly the gradient of those moves. Grad mode is set inside a move, never across a `yield`.
        checkpoint: compute the activations of a model call anew on the way back, in place of keeping those of all
            calls. The model must give the same again; conditions must not be changed during the walk.
        callback: called after each move; a tensor of the state's shape that it returns replaces the state (the cached
            gap stays).
        progress: a tqdm bar, one tick a move, rows in its postfix (extra `progress`).
        trace: a `Trace` to fill, from empty.

    Raises:
        TypeError, ValueError: before the first model call for arguments that do not fit, each naming what came and
            what is wanted; after it for an output of `eps_fn`, or a state from `callback`, of another shape than `x`.
    """
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace must be a Trace, got {trace!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    with torch.set_grad_enabled(bool(grad)):  # conditions may want gradients too
        path, steps, roles, predictors = settle(
            x, solver, method, Given(strong, eps_fn, cond, uncond), Given(weak, weak_fn, weak_cond, weak_uncond),
            Given(plain, plain_fn, plain_cond, plain_uncond), batched,
        )  # fmt: skip
    check_generator(generator, len(x))
    recorded = moves_recorded(path, grad)
    models = Models([Model(*predictor, x, checkpoint) for predictor in predictors], solver, x)
    moves = traverse(path, steps, x, solver, roles, noise_of(generator), trace)
    count = None if isinstance(path, Steering) else len(path)
    return drive(moves, models, recorded, callback, progress_bar(count, enabled=progress))


def traverse(
    path: Sequence[Move] | Steering,
    steps: Sequence[HeldStep],
    x: Tensor,
    solver: Solver,
    roles: Roles,
    draw: Draw,
    trace: Trace | None = None,
) -> Traversal:
    """The loop itself, without a model: it yields a `Query` where it needs predictions and is sent an `Answer`, and
    yields a `Visit` after each move and is sent a state to go on from, or None.

    `walk` drives it with a callable. Whoever cannot call the model (a pipeline that runs its own loop) drives it
    from there. The path and its steps are those of `plan_path`, or a path that is steered, whose steps come with its
    moves; `roles` says who predicts from which branches; `draw(x, interval)` gives noise like `x`: that of an interval
    `(i, j)`, or (None) for a Renoise. Grad mode is the driver's.
    """
    steered, known = (path, None) if isinstance(path, Steering) else (None, path)
    guided, kept, gaps = Guided(roles, solver, traced=trace is not None), Held(draw), Gaps(known)
    left, refined = Left(known), Refined(known)
    x = x.to(state_dtype(x.dtype))
    if trace is not None:
        trace.begin(known)
    for move, held, caches_gap in path if isinstance(path, Steering) else planned(path, steps):
        e: Tensor | None = None
        time: float | None = None
        rows, before, step = guided.rows, x if trace is not None else None, held.step
        match move:
            case Denoise(i, j):
                at, asked = solver.info(i, j), roles_asked(move, caches_gap)
                gaps.forget()
                es = yield from guided.ask(x, at, asked)
                e = es[0]
                if held.leaves:
                    kept.leave(i, solver.remember(i, x, e))
                if (inner := held.inner) is not None:  # a second evaluation, where the first one leads to
                    es = yield from guided.ask(inner.first.forward(x, e), at, asked, inner.told)
                    e = torch.lerp(e, es[0], inner.weight)
                if caches_gap:
                    gaps.cache(*es[-2:])
                del es  # or the branches would be held through the next model call
                r = kept.remainder(held, x)
                left.leave(i, x)
                x, time = step.forward(x, e, r), at.t
            case Invert(j, i, refine):
                at, x_j, r = solver.info(i, j), x, kept.remainder(held, x)
                time = at.t
                if isinstance(refine, Tol):
                    ask = partial(guided.ask, at=at, roles=WEAK)
                    x, e = yield from refined(move, refine, ask, step, x_j, r)
                else:
                    for _ in range(1 + refine):  # first at x_j, then at each result
                        (e,) = yield from guided.ask(x, at, WEAK)
                        x = step.inverse(x_j, e, r)
                del x_j
                x = left.merged(move, x)
            case Shift(i, fresh, strength):
                at = solver.info(i)
                if fresh:
                    gaps.cache(*(yield from guided.ask(x, at, STRONG + WEAK)), fresh=True)
                    time = at.t
                x = step.shift(x, gaps.share(strength, x, step, at))
            case Renoise():
                x = step.forward(x, draw(x, None))
        if trace is not None and before is not None:
            trace.log(move, time, guided.rows - rows, before, x, e, guided, held)
        new = yield Visit(move, move.end, x, e, guided.rows, gaps.gap)
        if isinstance(new, Tensor):
            x = new
            if trace is not None:
                trace.replaced(x)
        if steered is not None:
            steered.told, e = Visit(move, move.end, x, e, guided.rows, gaps.gap), None
    if steered is not None:
        refined.ended()


def planned(path: Sequence[Move], steps: Sequence[HeldStep]) -> Iterable[Next]:
    """Of a path that is known beforehand, each move, its step, and whether the next Shift takes its gap from it."""
    return zip(path, steps, gap_is_read(path), strict=True)
