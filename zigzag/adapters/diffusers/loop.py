"""One pass of a pipeline's own loop along a path: its model calls answer what the traversal asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.branches import Branches, Names, is_doubled, name_branches, sign_of, split_branches
from zigzag.adapters.diffusers.cast import Cast, calls_of, passes_of
from zigzag.adapters.diffusers.draws import Draws
from zigzag.checks import plan_path
from zigzag.guided import Answer, Query
from zigzag.methods import Method, Standard
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift
from zigzag.sampling import Traversal, Visit, traverse
from zigzag.solvers import Solver, StepInfo
from zigzag.trace import Trace

__all__ = ["Loop", "is_plain", "moved", "moves_of"]


def moves_of(method: Method | Sequence[Move], steps: int) -> tuple[Move, ...]:
    """The path of a method on `steps` steps; a user's own is taken if it leads from the pipeline's noise to its data.

    Raises:
        ValueError: for a number of steps that the method does not take, or moves that begin or end elsewhere.
    """
    if not steps and isinstance(method, Standard):  # a strength that leaves no step, and no method more than that
        return ()
    if not steps:
        raise ValueError(
            "the pipeline's loop has no step left for method to lead: its strength is too low for its number of steps; "
            "raise strength, or num_inference_steps"
        )
    path = tuple(method.path(steps)) if isinstance(method, Method) else tuple(method)
    if not path or path[0].start != 0 or path[-1].end != steps:
        raise ValueError(
            f"method: a pipeline of {steps} steps begins at knot 0 and ends at knot {steps}, but the moves run from "
            f"{path[0].start if path else 'nowhere'} to {path[-1].end if path else 'nowhere'}"
        )
    return path


def is_plain(path: Sequence[Move]) -> bool:
    """Whether the path is standard sampling, which the pipeline's own scheduler can be left to do."""
    return not path or tuple(path) == Standard().path(len(path))


class _Own:
    """The strong guidance: the pipeline's own, whatever its rule, held until the traversal calls for it."""

    def __init__(self) -> None:
        self.prediction: Tensor | None = None
        self.both = True

    def __repr__(self) -> str:
        return "the pipeline's own guidance"

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: what the pipeline evaluates, which is not for the traversal to choose."""
        return self.both, self.both

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The pipeline's prediction of this call."""
        assert self.prediction is not None
        return self.prediction


class Loop:
    """The state of one loop: the traversal, where it stands, and what was handed to the pipeline.

    Args:
        path: moves on knots of the scheduler's whole grid. solver: the steps on that grid.
        cast: of the other roles. The strong one is the pipeline's.
        trace: for the traversal.

    Attributes:
        passes: of the pipeline's loop. asked: which of the solver's `all_times` the model is told in each.
        knot: where the state is that was handed out; between two knots, the one that the step has left.
        place: which of `all_times` belongs to that state; None where it is data.
        doubled: whether the state is twice the samples, one half a branch, both to be the same (DiT).
        draw: of the noise; to be set before the first answer.

    Raises:
        ValueError: for moves that the solver's steps do not allow.
    """

    draw: Draws

    def __init__(self, path: Sequence[Move], solver: Solver, cast: Cast, trace: Trace | None) -> None:
        self.path, self.steps = plan_path(path, solver)
        _check_levels(solver, cast)
        self.solver, self.cast, self.trace = solver, cast, trace
        self.passes = passes_of(self.path, self.steps, len(solver), cast)
        self.asked = [each.told for each in self.passes]
        self.knot, self.place = self.path[0].start, self._place(self.path[0].start)
        self.made, self.calls, self.rows = 0, 0, 0
        self.doubled = False
        self._own = _Own()
        self._names: Names | None = None
        self._moves: Traversal | None = None
        self._answer = Answer({}, 0)  # of the passes made for the question that is being answered
        self._held: Query | Visit | None = None
        self._handed: tuple[Tensor, Tensor, int | None] | None = None  # itself, what it was, its count of writes

    @property
    def ended(self) -> bool:
        """Whether the last move has been made."""
        return self.made == len(self.path)

    def answer(self, outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> Tensor:
        """Takes the model's outputs at `sample`, and the pipeline's prediction, on to the state for the next call.

        Raises:
            ValueError: for guidance without an unconditional branch, or that attach cannot follow.
        """
        self.doubled = self.doubled or (not self.calls and is_doubled(outputs, guided))
        branches, rows = self._branches(outputs, guided[: len(guided) // 2] if self.doubled else guided)
        if self.doubled and branches is not None:
            branches = Branches(*(torch.cat([part, part]) for part in branches))
        if branches is None:
            self.cast.check_branches(self.path[self.made :], self.knot)
        query, now = self._query(sample, both=branches is not None), self.passes[self.calls]
        if now.source == "own":
            self._own.prediction = guided.to(query.x.dtype)
        found = self.cast.found(now.source, branches, guided)
        answer = Answer({**self._answer.branches, **found}, self._answer.rows + rows)
        self.rows, self.calls = self.rows + rows, self.calls + 1
        if not now.last:  # the pipeline is led through this time again, for another role
            self._answer, self._held = answer, query
            return self._hand_out(query.x, guided.dtype)
        self._answer = Answer({}, 0)
        return self._hand_out(self._advance(answer), guided.dtype)

    def _branches(self, outputs: Sequence[Any], guided: Tensor) -> tuple[Branches | None, int]:
        parts = split_branches(outputs, guided)
        if len(parts) == 1:
            return None, 1
        if len(parts) != 2:
            raise ValueError(
                f"the pipeline evaluates {len(parts)} branches a step, and attach follows two, a conditional and an "
                "unconditional one; switch off what takes the others (perturbed-attention or skip-layer guidance)"
            )
        if self._names is None:
            self._names = name_branches(parts[0], parts[1], guided)
        # While the two are equal it does not matter which is which, but their sign does.
        return (self._names or Names(cond=1, sign=sign_of(parts[0], guided))).of(parts), 2

    def _query(self, sample: Tensor, both: bool) -> Query:
        # The traversal was left at a visit, so that a state that the pipeline or a callback has changed since can
        # be sent to it, or at a query in the middle of a move.
        self._own.both = both
        if self._moves is None:
            roles = self.cast.roles(self._own)
            self._moves = traverse(self.path, self.steps, sample, self.solver, roles, self.draw, self.trace)
            message = next(self._moves)
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

    def _advance(self, answer: Answer) -> Tensor:
        assert self._moves is not None
        message = self._moves.send(answer)
        while isinstance(message, Visit):
            self.made, self.knot, self._held = self.made + 1, message.knot, message
            self.place = self._place(self.knot)
            if self.ended:
                self._moves.close()
                return message.state
            if calls_of(self.path[self.made], self.steps[self.made]):
                return message.state
            message = self._moves.send(None)
        self._held, self.place = message, message.told
        self.knot = min(self.path[self.made].start, self.path[self.made].end)
        return message.x

    def _place(self, knot: int) -> int | None:
        return knot if knot < len(self.solver) else None

    def _hand_out(self, state: Tensor, dtype: torch.dtype) -> Tensor:
        handed = state.to(dtype)  # the prediction's dtype, as schedulers do; the state itself keeps its digits
        version = _version(handed)
        self._handed = handed, handed if version is not None else handed.clone(), version
        return handed

    def _changed(self, sample: Tensor) -> Tensor | None:
        """What came back, if it is not what was handed out. (A pipeline may have cast it, or reshaped it and back.)"""
        assert self._handed is not None
        handed, was, version = self._handed
        if _version(handed) == version:
            counted = sample is handed and version is not None
            if counted or torch.equal(sample, was.to(sample.dtype)):
                return None
        state = self._held.x if isinstance(self._held, Query) else self._held.state  # type: ignore[union-attr]
        return sample.to(state.dtype)


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


def _version(x: Tensor) -> int | None:
    # Tensors made under inference mode keep no count of what was done to them in place.
    return None if x.is_inference() else x._version


def moved(move: Move, by: int) -> Move:
    """The same move `by` knots further down the grid."""
    match move:
        case Denoise() | Renoise():
            return replace(move, i=move.i + by, j=move.j + by)
        case Invert(j, i, _, coefficients):
            k = None if coefficients is None else (coefficients[0] + by, coefficients[1] + by)
            return replace(move, j=j + by, i=i + by, coefficients=k)
        case Shift(i):
            return replace(move, i=i + by)
