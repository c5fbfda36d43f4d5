"""One state of a pipeline led along its path, by the calls of its scheduler's `step`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.draws import Draws
from zigzag.adapters.diffusers.given import extras_of
from zigzag.adapters.diffusers.grids import Grid
from zigzag.adapters.diffusers.loop import Loop
from zigzag.adapters.diffusers.plans import Plan, plan_of
from zigzag.adapters.diffusers.replies import Replies
from zigzag.adapters.diffusers.stepping import name_of

__all__ = ["Led", "begun"]


@dataclass
class Led:
    """A loop on a scheduler's grid that has begun.

    Attributes:
        loop: which answers. plan: of the scheduler's steps. grid: the scheduler's own. replies: in its form.
    """

    loop: Loop
    plan: Plan
    grid: Grid
    replies: Replies

    def step(self, outputs: Sequence[Any], given: Mapping[str, Any]) -> Any:
        """What `step` gives back for the model's `outputs` and what it was `given`."""
        loop, layout = self.loop, self.plan.layout
        call = layout.call(loop.asked[loop.calls])
        state = loop.answer(outputs, given["model_output"], given["sample"])
        if loop.ended:
            loop.draw.finish(loop.knot)
        end = self.plan.rehearsed.groups[-1].last + 1
        self.grid.stand(end if loop.place is None else layout.call(loop.place), latents=True)
        return self.replies(state, given["sample"], given["model_output"], call)


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
            loop = Loop(loop.path, plan.solver, loop.cast, loop.trace)
            if loop.asked != asked:
                raise ValueError(f"scheduler: {name_of(grid.scheduler)} makes other calls with {extras}; leave it out")
        knot, rehearsed = loop.path[0].start, plan.rehearsed
        loop.draw = Draws(grid.scheduler, rehearsed, knot, given, extras, generator or given.get("generator"))
        first = rehearsed.groups[knot].first
        replies = Replies(rehearsed.rehearsal, first, given.get("return_dict", True))
    grid.draw_out([plan.layout.call(told) for told in loop.asked])
    return Led(loop, plan, grid, replies)
