"""What is made of a pipeline's calls of its scheduler's `step`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.given import given_to
from zigzag.adapters.diffusers.led import Led, begun, entered
from zigzag.adapters.diffusers.loop import Loop
from zigzag.adapters.diffusers.progress import Progress
from zigzag.adapters.diffusers.routes import is_standard
from zigzag.adapters.diffusers.scheme_loop import SchemeLoop
from zigzag.adapters.diffusers.seconds import Second
from zigzag.adapters.diffusers.timesteps import Beside, plain

__all__ = ["Steps"]


class Steps:
    """Leads a path step by step, or leaves standard sampling to the scheduler, and counts rows.

    Args:
        now: what is attached, and how far it is.
    """

    def __init__(self, now: Progress) -> None:
        self.now = now
        self._led: Led | None = None
        self.signature = inspect.signature(now.scheduler.step)

    def step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of the scheduler's own."""
        outputs = self.now.calls.taken()
        given = given_to(self.signature, args, kwargs)
        now = self.now
        if now.loop is None:
            return self._plain_step(original, args, kwargs, given, outputs)
        stepping = now.stepped is not None
        unfit.check_led(now.loop, given["timestep"], now.told, outputs, stepping=stepping, taken=now.taken)
        if not now.stepped:
            assert now.plan is not None
            if now.loop.entered or not isinstance(now.loop, Loop):
                self._led = entered(now.loop, now.plan, now.grid, self.signature, given, now.extras)
            else:
                self._led = begun(now.loop, now.plan, now.grid, self.signature, given, now.generator)
            now.loop, now.plan = self._led.loop, self._led.plan
        assert self._led is not None
        loop, rows = self._led.loop, self._led.loop.rows
        reply = self._led.step(outputs, given)
        now.run.rows += loop.rows - rows
        now.taken, now.led, now.playing = True, now.led + 1, "own"
        if loop.open and now.times is not None:
            now.times.know([self._led.plan.layout.call(told) - now.times.start for told in loop.known])
        now.stepped, now.run.knot = None if loop.ended else (now.stepped or 0) + 1, loop.knot
        if now.tick is not None:
            now.tick(1 + loop.most - loop.calls if loop.ended else 1)  # also those that fell away
        return reply

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
        sample = given.get("sample", given["model_output"])  # which some schedulers call otherwise
        rows = self.now.calls.count(outputs, given["model_output"], sample)
        result = original(*args, **kwargs)
        if self.now.trace is not None and self.now.stepped < len(self.now.path):
            move, after = self.now.path[self.now.stepped], result[0]
            self.now.trace.log(move, self.now.hosts[self.now.stepped], rows, sample, after, given["model_output"], None)
        self.now.stepped, self.now.run.knot = self.now.stepped + 1, self.now.run.knot + 1
        if self.now.stepped == len(self.now.path):
            self.now.stepped = None
        return result

    @property
    def of_others(self) -> dict[str, Callable[..., Any]]:
        """In place of the methods of other schedulers."""
        return {"step": self.step_of_other, "set_timesteps": self.set_timesteps_of_other}

    def of_copy(self, name: str) -> Callable[..., Any] | None:
        """In place of a method of a copy; None where it is to be left its own, as a callback's is within a loop."""
        return None if self.now.within else self.of_others.get(name)

    def set_timesteps_of_other(self, original: Any, *args: Any, **kwargs: Any) -> None:
        """In place of that of a copy, or another scheduler of the pipeline, which may step a further state."""
        original(*args, **kwargs)
        scheduler = original.__self__
        if self.now.leads() and isinstance(times := plain(scheduler.timesteps), Tensor):
            scheduler.timesteps = Beside.of(times, self.now)

    def step_of_other(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """In place of the step of a copy, or another scheduler of the pipeline: of a further state, or refused.

        Standard sampling is left to it, and the rows are counted.
        """
        now, given = self.now, given_to(inspect.signature(original), args, kwargs)
        if now.prior.outputs:
            now.prior.count(now.prior.taken(), given["model_output"], given["sample"])
            return original(*args, **kwargs)
        ended = now.taken and unfit.same_time(given["timestep"], now.told)  # by the first state's step just now
        if now.leads() and (now.stepped is not None or now.calls.outputs or ended):
            return self._second_step(original.__self__, given)
        now.calls.count(now.calls.taken(), given["model_output"], given["sample"])
        return original(*args, **kwargs)

    def _second_step(self, scheduler: Any, given: Mapping[str, Any]) -> Any:
        now = self.now
        if isinstance(now.loop, SchemeLoop):
            raise ValueError("the pipeline has two states, as sound beside images, and an inversion leads one")
        apart = not now.taken or now.calls.outputs or not unfit.same_time(given["timestep"], now.told)
        if apart or not isinstance(now.loop, Loop):
            unfit.refuse_copy()
        second = next((known for known in now.seconds if known.scheduler is scheduler), None)
        if second is None:
            second = Second(now, scheduler, len(now.seconds) + 1, given)
            now.seconds.append(second)
        return second.step(now.calls.parts, given)
