"""One pass of a pipeline's own loop along a path: its model calls answer what the traversal asks."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.answering import Answering
from zigzag.adapters.diffusers.cast import NAMES, Cast, asked_on, calls_of, passes_for
from zigzag.guided import Answer, Query, check_shown
from zigzag.held import HeldStep
from zigzag.methods import Method, Standard, Steered, is_steered
from zigzag.moves import Denoise, Invert, Move, Renoise, Tol, evaluations
from zigzag.paths import plan_path
from zigzag.sampling import Traversal, Visit, planned, traverse
from zigzag.solvers import Solver
from zigzag.steered import Next, Steering
from zigzag.trace import Trace

__all__ = ["Following", "Loop", "check_steps", "enters", "moves_of", "only_inverts"]


def moves_of(method: Method | Sequence[Move], steps: int) -> tuple[Move, ...]:
    """The path of a method on `steps` steps; a user's own is taken if it leads from the pipeline's noise to its data.

    One that begins below knot 0, at a state that is handed in, may end anywhere.

    Raises:
        ValueError: for a number of steps that the method does not take, or moves that begin or end elsewhere.
    """
    if not steps and isinstance(method, Standard):  # a strength that leaves no step, and no method more than that
        return ()
    check_steps(steps)
    path = tuple(method.path(steps)) if isinstance(method, Method) else tuple(method)
    if not path or not 0 <= path[0].start <= steps or (not enters(path) and path[-1].end != steps):
        raise ValueError(
            f"method: a pipeline of {steps} steps begins at knot 0 and ends at knot {steps}, or begins below with a "
            "state of your own (latents), but the moves run from "
            f"{path[0].start if path else 'nowhere'} to {path[-1].end if path else 'nowhere'}"
        )
    return path


def check_steps(steps: int) -> None:
    """Raises ValueError where there is no step left to lead."""
    if not steps:
        raise ValueError(
            "the pipeline's loop has no step left for method to lead: its strength is too low for its number of steps; "
            "raise strength, or num_inference_steps"
        )


def enters(path: object) -> bool:
    """Whether it is moves that begin below knot 0, at a state that is handed in."""
    moves = isinstance(path, Sequence) and len(path) > 0
    return moves and isinstance(path[0], Move) and path[0].start != 0  # type: ignore[index]


def only_inverts(path: object) -> bool:
    """Whether it is moves that go up, and nothing else: without a prediction to be told from the weak one."""
    return isinstance(path, Sequence) and all(isinstance(move, Invert | Renoise) for move in path)


class Loop(Answering):
    """The state of one loop along a path: the traversal, where it stands, and what was handed to the pipeline.

    Of a method that is steered, the path is what is known of it: all moves that were made, and the next one. The method
    decides that in the scheduler's `step`, before the state is handed to the pipeline.

    Args:
        path: moves on knots of the scheduler's whole grid, or a method that is steered. solver: the steps on that grid.
        cast: of the other roles. The strong one is the pipeline's.
        trace: for the traversal.

    Raises:
        ValueError: for moves that the solver's steps do not allow.
    """

    def __init__(self, path: Sequence[Move] | Steered, solver: Solver, cast: Cast, trace: Trace | None) -> None:
        super().__init__(solver, cast)
        self.given, self.trace = path, trace
        self.path, self.steps, self.passes, self.asked = list[Move](), list[HeldStep](), [], []
        self.steering = Steering(path, solver) if is_steered(path) else None
        if self.steering is None:
            for each in planned(*plan_path(path, solver)):
                self._add(each)
        self._look(None)
        check_shown(cast.roles(self.guidances), solver)
        _check_levels(solver, cast)
        tolerant = any(isinstance(move, Invert) and isinstance(move.refine, Tol) for move in self.path)
        self.open = self.steering is not None or tolerant
        self.knot, self.place = self.path[0].start, self._place(self.path[0].start)
        self.made = 0
        self._moves: Traversal | None = None
        self._answer = Answer({}, 0)  # of the passes made for the question that is being answered
        self._rows = 0  # of the last pass
        self._held: Query | Visit | None = None

    def _add(self, known: Next) -> None:
        move, held, reads_gap = known
        passes = passes_for(len(self.path), move, held, reads_gap, len(self.solver), self.cast)
        self.path.append(move)
        self.steps.append(held)
        self.passes += passes
        self.asked += [each.told for each in passes]
        self.most = len(self.passes)

    def _look(self, visit: Visit | None) -> None:
        """Of a method that is steered, has it decide the next move, after a visit."""
        if self.steering is not None:
            self.steering.told = visit
            if (known := self.steering.ahead()) is not None:
                self._add(known)

    @property
    def ended(self) -> bool:
        """Whether the last move has been made."""
        return self.made == len(self.path)

    def enter(self, x: Tensor) -> Tensor:
        """Begins at a state before the first call; the one that this is to be made at."""
        self.entered = True
        return self._advance(self._begun(x))

    def answer(self, outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> Tensor:
        """Takes the model's outputs at `sample`, and the pipeline's prediction, on to the state for the next call.

        Raises:
            ValueError: for guidance without an unconditional branch, or that attach cannot follow.
        """
        branches, rows = self._branches(outputs, guided, sample)
        if branches is None:
            self.cast.check_branches(asked_on(self.path[self.made :]) if self.steering is None else NAMES, self.knot)
        query, now = self._query(sample, both=branches is not None), self.passes[self.calls]
        self._check_alike(rows)
        self.guidances[now.source].prediction = guided.to(query.x.dtype)
        found = self.cast.found(now.source, branches, guided)
        answer = Answer({**self._answer.branches, **found}, self._answer.rows + rows)
        self.rows, self.calls = self.rows + rows, self.calls + 1
        if not now.last:  # the pipeline is led through this time again, for another role
            self._answer, self._held = answer, query
            return self.hand_out(query.x, guided.dtype)
        self._answer = Answer({}, 0)
        assert self._moves is not None
        # In the prediction's dtype, as schedulers do.
        return self.hand_out(self._advance(self._moves.send(answer)), guided.dtype)

    def _check_alike(self, rows: int) -> None:
        """Raises ValueError where the passes of two roles at one state are of other branches: that would be a gap."""
        if self._answer.rows and rows != self._rows:
            raise ValueError(
                f"the pipeline evaluates {self._rows} branches for one role and {rows} for the other at knot "
                f"{self.knot}: it guides by the count of its calls (cfg_trunc_ratio, say); leave that out, or end the "
                "zigzag before"
            )
        self._rows = rows

    def _begun(self, x: Tensor) -> Query | Visit:
        path, roles = self.path if self.steering is None else self.steering, self.cast.roles(self.guidances)
        self._moves = traverse(path, self.steps, x, self.solver, roles, self.draw, self.trace)
        return next(self._moves)

    def _query(self, sample: Tensor, both: bool) -> Query:
        # The traversal was left at a visit, so that a state that the pipeline or a callback has changed since can
        # be sent to it, or at a query in the middle of a move.
        self._check_entered(sample)
        self.own.both = both
        if self._moves is None:
            message = self._begun(sample)
        elif isinstance(self._held, Query):
            if self._changed(sample) is not None:
                raise ValueError(
                    "the latents were changed (by a callback, or an inpainting mask) in the middle of a move: between "
                    "the refinements of an inversion (use refine=0), the halves of a step, or the calls of two roles "
                    "at one state; or leave them alone"
                )
            message = self._held
        else:
            message = self._moves.send(self._changed(sample))
        assert isinstance(message, Query)
        return message

    def _advance(self, message: Query | Visit) -> Tensor:
        """The state for the next call, once the moves are made that ask nothing more."""
        assert self._moves is not None
        while isinstance(message, Visit):
            self.made, self.knot, self._held = self.made + 1, message.knot, message
            self.place = self._place(self.knot)
            self._skip()
            self._look(message)
            if self.ended:
                if self.steering is not None:
                    next(self._moves, None)  # it says at its end which inversions did not converge
                self._moves.close()
                return message.state
            if calls_of(self.path[self.made], self.steps[self.made]):
                return message.state
            message = self._moves.send(None)
        self._held, self.place = message, message.told
        self.knot = min(self.path[self.made].start, self.path[self.made].end)
        return message.x

    def _skip(self) -> None:
        """Lets the passes fall away that an inversion would have made, had it not converged before."""
        left = slice(self.calls, next((k for k, p in enumerate(self.passes) if p.move >= self.made), len(self.passes)))
        if left.start < left.stop:
            del self.passes[left], self.asked[left]

    def _place(self, knot: int) -> int | None:
        return knot if knot < len(self.solver) else None

    def _changed(self, sample: Tensor) -> Tensor | None:
        """What came back, if it is not what was handed out."""
        if self._came_back(sample):
            return None
        state = self._held.x if isinstance(self._held, Query) else self._held.state  # type: ignore[union-attr]
        if sample.shape != state.shape and self._reads_back():
            unfit.refuse_reshaped(state, sample)
        return sample.to(state.dtype)

    def _reads_back(self) -> bool:
        """Whether what was left, or drawn, at the states so far is read on the rest of the path."""
        if self.steering is not None:
            return bool(self.solver.memory) or any(held.interval is not None for held in self.steps)
        since = set[int | tuple[int, int] | None]()
        for move, held in zip(self.path[self.made :], self.steps[self.made :], strict=True):
            drawn = () if held.draws or held.interval is None else (held.interval,)
            left = (move.end,) if isinstance(move, Invert) and move.strength != 1 else ()
            if not since.issuperset((*held.reads, *drawn, *left)):
                return True
            since |= {held.interval, *((move.start,) if isinstance(move, Denoise) else ())}
        return False


class Following:
    """Another loop's path, move by move, for a state that is led along with its.

    Args:
        loop: whose path is known as far as its state has come.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def __repr__(self) -> str:
        return repr(self.loop.given)

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        """The moves of the other path.

        Raises:
            ValueError: for an inversion to a tolerance, which takes another number of calls for each state.
        """
        k = 0
        while k < len(self.loop.path):
            move = self.loop.path[k]
            if isinstance(move, Invert):
                evaluations(move, "a pipeline's loop that leads two states, as sound beside images,")
            yield move
            k += 1


def _check_levels(solver: Solver, cast: Cast) -> None:
    """Raises ValueError for a guidance that reads noise levels, where those of the scheduler are not known."""
    at, one = solver.info(0), torch.ones(1)
    if not math.isnan(at.alpha_i):
        return
    for name, rule in cast.rules().items():
        cond, uncond = rule.branches(at)
        if not bool(rule(one if cond else None, one if uncond else None, at).isfinite().all()):
            raise ValueError(
                f"{name}={rule!r} reads noise levels, and those of {solver!r} are not known; pass a number"
            )
