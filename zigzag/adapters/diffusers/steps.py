"""What is made of a pipeline's calls of its scheduler's `step`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.draws import Draws
from zigzag.adapters.diffusers.given import extras_of, given_to
from zigzag.adapters.diffusers.loop import Loop
from zigzag.adapters.diffusers.plans import plan_of
from zigzag.adapters.diffusers.progress import Progress
from zigzag.adapters.diffusers.replies import Replies
from zigzag.adapters.diffusers.routes import is_standard
from zigzag.adapters.diffusers.stepping import name_of

__all__ = ["Steps"]


class Steps:
    """Leads a path step by step, or leaves standard sampling to the scheduler, and counts rows.

    Args:
        now: what is attached, and how far it is.
    """

    def __init__(self, now: Progress) -> None:
        self.now = now
        self._replies: Replies | None = None
        self._signature = inspect.signature(now.scheduler.step)

    def step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of the scheduler's own."""
        outputs = self.now.calls.taken()
        given = given_to(self._signature, args, kwargs)
        if self.now.loop is None:
            return self._plain_step(original, args, kwargs, given, outputs)
        stepping = self.now.stepped is not None
        unfit.check_led(
            self.now.loop, given["timestep"], self.now.told, outputs, stepping=stepping, taken=self.now.taken
        )
        loop = self.now.loop if self.now.stepped else self._first_step(self.now.loop, given)
        assert self.now.plan is not None and self._replies is not None
        rows, call = loop.rows, self.now.plan.layout.call(loop.asked[loop.calls])
        state = loop.answer(outputs, given["model_output"], given["sample"])
        self.now.run.rows += loop.rows - rows
        self.now.taken, self.now.led = True, self.now.led + 1
        self.now.stepped, self.now.run.knot = (self.now.stepped or 0) + 1, loop.knot
        if self.now.tick is not None:
            self.now.tick(1)
        if loop.ended:
            self.now.stepped = None
            loop.draw.finish(loop.knot)
        end = self.now.plan.rehearsed.groups[-1].last + 1
        self.now.grid.stand(end if loop.place is None else self.now.plan.layout.call(loop.place), latents=True)
        return self._replies(state, given["sample"], given["model_output"], call)

    def _first_step(self, loop: Loop, given: Mapping[str, Any]) -> Loop:
        """The loop as the pipeline's first call of `step` wants it: with what else it passes, and its generator."""
        assert self.now.plan is not None
        extras = extras_of(self._signature, given)
        unfit.refuse_per_token(extras)
        with self.now.grid.shown():
            if extras:  # eta, s_churn
                self.now.plan, asked = plan_of(self.now.scheduler, extras), loop.asked
                loop = self.now.loop = Loop(loop.path, self.now.plan.solver, self.now.weak, self.now.trace)
                if loop.asked != asked:
                    raise ValueError(
                        f"scheduler: {name_of(self.now.scheduler)} makes other calls with {extras}; leave it out"
                    )
            knot, rehearsed = loop.path[0].start, self.now.plan.rehearsed
            renoise = self.now.generator or given.get("generator")
            loop.draw = Draws(self.now.scheduler, rehearsed, knot, given, extras, renoise)
            first = rehearsed.groups[knot].first
            self._replies = Replies(rehearsed.rehearsal, first, given.get("return_dict", True))
        self.now.grid.draw_out([self.now.plan.layout.call(told) for told in loop.asked])
        return loop

    def _plain_step(
        self,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        given: Mapping[str, Any],
        outputs: Sequence[Any],
    ) -> Any:
        """Standard sampling, left to the scheduler; the rows are counted."""
        if self.now.stepped is None:
            if not is_standard(self.now.method, len(self.now.scheduler.timesteps)):
                raise RuntimeError(unfit.UNTIMED)
            self.now.stepped = 0
        rows = self.now.calls.count(outputs, given["model_output"])
        result = original(*args, **kwargs)
        if self.now.trace is not None and self.now.stepped < len(self.now.path):
            move, after = self.now.path[self.now.stepped], result[0]
            self.now.trace.log(
                move, self.now.hosts[self.now.stepped], rows, given["sample"], after, given["model_output"], None
            )
        self.now.stepped, self.now.run.knot = self.now.stepped + 1, self.now.run.knot + 1
        if self.now.stepped == len(self.now.path):
            self.now.stepped = None
        return result

    def of_copy(self) -> Callable[..., Any] | None:
        """In place of the step of a deep copy; None where it is to be left its own."""
        return None if self.now.stepped else self._step_of_copy  # one made within a loop is a callback's own

    def _step_of_copy(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A copy's step, which nothing but standard sampling allows; the rows are counted."""
        if self.now.leads() and (self.now.stepped is not None or self.now.calls.outputs):
            unfit.refuse_copy()
        given = given_to(self._signature, args, kwargs)
        self.now.calls.count(self.now.calls.taken(), given["model_output"])
        return original(*args, **kwargs)
