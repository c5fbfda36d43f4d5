"""One state of a pipeline led along its path, by the calls of its scheduler's `step`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.answering import Answering
from zigzag.adapters.diffusers.draws import Draws
from zigzag.adapters.diffusers.entry import Entry
from zigzag.adapters.diffusers.given import extras_of
from zigzag.adapters.diffusers.grids import Grid
from zigzag.adapters.diffusers.loop import Loop
from zigzag.adapters.diffusers.plans import Plan, plan_of
from zigzag.adapters.diffusers.replies import Replies
from zigzag.adapters.diffusers.scheme_loop import SchemeLoop
from zigzag.adapters.diffusers.stepping import name_of

__all__ = ["Led", "begun", "enter", "entered"]


@dataclass
class Led:
    """A loop on a scheduler's grid that has begun.

    Attributes:
        loop: which answers. plan: of the scheduler's steps. grid: the scheduler's own. replies: in its form.
    """

    loop: Answering
    plan: Plan
    grid: Grid
    replies: Replies

    def step(self, outputs: Sequence[Any], given: Mapping[str, Any]) -> Any:
        """What `step` gives back for the model's `outputs` and what it was `given`."""
        loop, layout = self.loop, self.plan.layout
        call = layout.call(loop.asked[loop.calls])
        state = loop.answer(outputs, given["model_output"], given["sample"])
        if loop.ended and not loop.entered:
            loop.draw.finish(loop.knot)
        self.grid.stand(layout.end if loop.place is None else layout.call(loop.place))
        if loop.open:  # an iteration may have ended before its time
            self.grid.draw_out([layout.call(told) for told in loop.asked])
        # Whoever begins with a state of his own is given the one that it ends at, also by a pipeline that returns x₀.
        clean = state if loop.entered and (loop.ended or call == layout.end) else None
        return self.replies(state, given["sample"], given["model_output"], call, clean)


def begun(
    loop: Loop, plan: Plan, grid: Grid, signature: inspect.Signature, given: Mapping[str, Any], generator: Any
) -> Led:
    """The loop as the first call of `step` wants it: with what else is given there, and its generator.

    Args:
        loop: at its beginning. plan: of the scheduler's steps. grid: the scheduler's own.
        signature: of `step`. given: what it was called with.
        generator: for Renoise; None is the one that is given.

    Raises:
        ValueError: for a time for each token, and for what makes of the steps others than the loop has.
    """
    extras = extras_of(signature, given)
    unfit.refuse_per_token(extras)
    with grid.shown():
        if extras:  # eta, s_churn
            plan, asked = plan_of(grid.scheduler, extras), loop.asked
            loop = Loop(loop.given, plan.solver, loop.cast, loop.trace)
            if loop.asked != asked:
                raise ValueError(f"scheduler: {name_of(grid.scheduler)} makes other calls with {extras}; leave it out")
        knot, rehearsed = loop.path[0].start, plan.rehearsed
        loop.draw = Draws(grid.scheduler, rehearsed, knot, given, extras, generator or given.get("generator"))
        first = rehearsed.groups[knot].first
        replies = Replies(rehearsed.rehearsal, first, given.get("return_dict", True))
    grid.draw_out([plan.layout.call(told) for told in loop.asked])
    return Led(loop, plan, grid, replies)


def enter(
    loop: Loop | SchemeLoop, plan: Plan, grid: Grid, entry: Entry, extras: Mapping[str, Any], generator: Any
) -> None:
    """Begins a loop before the first call, at the state that was handed in.

    Args:
        loop: at its beginning. plan: of the scheduler's steps, with the `extras`. grid: the scheduler's own.
        entry: of the state. extras: what else `step` is to be given. generator: for noise.

    Raises:
        ValueError: where none was handed in, or its dtype would lose what is asked for.
    """
    if entry.state is None:
        raise ValueError(
            "the pipeline's loop has begun, and its prepare_latents was not called before, with which a state of one's "
            "own is handed in; only paths from knot 0"
        )
    if isinstance(loop, SchemeLoop):
        first = loop.enter(entry.state, entry.dtype, generator)
    else:
        like = entry.state.to(entry.dtype)
        given = {"sample": like, "model_output": like, "generator": generator}
        with grid.shown():
            knot = min(loop.knot, len(loop.solver) - 1)
            loop.draw = Draws(grid.scheduler, plan.rehearsed, knot, given, extras, generator)
        first = loop.enter(entry.state)
    loop.hand_out(entry.show(first), entry.dtype)
    grid.draw_out([plan.layout.call(told) for told in loop.asked])


def entered(
    loop: Answering,
    plan: Plan,
    grid: Grid,
    signature: inspect.Signature,
    given: Mapping[str, Any],
    extras: Mapping[str, Any],
) -> Led:
    """A loop that has begun, at the first call of `step`.

    Raises:
        ValueError: where that is given something else than the `extras`.
    """
    passed = extras_of(signature, given)
    unfit.refuse_per_token(passed)
    if passed != extras:
        raise ValueError(
            f"the pipeline passes {passed} to its scheduler's step, which is not known before it, as a state that is "
            "handed in needs it; leave it out"
        )
    with grid.shown():
        return Led(loop, plan, grid, Replies(plan.rehearsed.rehearsal, 0, given.get("return_dict", True)))
