"""A pipeline and a method, for the time that they are attached."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.counting import Calls, Run, arguments_of
from zigzag.adapters.diffusers.draws import Draws
from zigzag.adapters.diffusers.given import extras_of, given_to
from zigzag.adapters.diffusers.grids import Grid
from zigzag.adapters.diffusers.layout import Part
from zigzag.adapters.diffusers.levels import noised, noised_by_call, scaled
from zigzag.adapters.diffusers.loop import Loop, is_plain, moved
from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.plans import Plan, levels_of, plan_of
from zigzag.adapters.diffusers.replies import Replies
from zigzag.adapters.diffusers.routes import asks_on, is_standard, path_on, stood_on
from zigzag.adapters.diffusers.stepping import name_of
from zigzag.adapters.diffusers.timesteps import Times, is_tail, plain, spread
from zigzag.guidance import Guidance
from zigzag.methods import Method
from zigzag.moves import Move
from zigzag.trace import Trace

__all__ = ["Run", "Session"]


class Session:
    """Stands between a pipeline, its models and its scheduler; `attach` says what for."""

    def __init__(
        self,
        pipe: Any,
        models: Sequence[nn.Module],
        method: Method | Sequence[Move],
        weak: Guidance,
        trace: Trace | None,
        generator: torch.Generator | None,
    ) -> None:
        self.pipe, self.scheduler, self.models = pipe, pipe.scheduler, models
        self.method, self.weak, self.trace, self.generator = method, weak, trace, generator
        self.run = Run(levels=self._levels)
        self.calls = Calls(self.run)
        self.grid = Grid(self.scheduler)
        self.plan: Plan | None = None  # of the scheduler's steps, where a method is to lead them
        self.loop: Loop | None = None  # of a path that is not plain
        self.path: tuple[Move, ...] = ()
        self.stepped: int | None = None  # steps made in the loop under way, if one is
        self._turn: object = None  # whose turn it is to hand out times
        self._taken = False  # whether a step was made at the time handed out last
        self._led = 0  # steps led on this grid
        self._read: list[tuple[float, float]] | None = None  # the levels of the knots, once they were asked for
        self._tick: Callable[[int], Any] | None = None  # the progress bar's
        self._told: Tensor | None = None  # the time handed out last
        self._hosts: list[float] = []  # the grid's times as host numbers, for a trace of standard sampling
        self._replies: Replies | None = None
        self._warned = False  # that a corrector was left out
        self._signature = inspect.signature(self.scheduler.step)

    def take_over(self, patches: Patches) -> None:
        """Replaces what the pipeline calls of its scheduler, and watches its models, until `patches` are undone."""
        patches.callback(self._release)
        wrappers: dict[str, Callable[..., Any]] = {
            "set_timesteps": self._set_timesteps, "step": self._step, "add_noise": self._add_noise,
            "scale_noise": self._add_noise, "scale_model_input": self._scale_model_input,
        }  # fmt: skip
        for name, wrapper in wrappers.items():
            if hasattr(self.scheduler, name):
                patches.wrap(self.scheduler, name, wrapper, of_copy=self._of_copy if name == "step" else lambda: None)
        for name, wrapper in (("get_timesteps", self._get_timesteps), ("progress_bar", self._progress_bar)):
            if hasattr(self.pipe, name):
                patches.wrap(self.pipe, name, wrapper)
        for model in self.models:
            patches.watch(model, self._saw)

    def _release(self) -> None:
        self.calls.flush()
        self.grid.show(self.grid.own)

    def check_explained(self) -> None:
        """Raises RuntimeError where a path was to be led, and the model was called with no step after it."""
        if self._leads() and not self._led and self.calls.outputs:
            raise RuntimeError(unfit.UNLED)

    def _leads(self) -> bool:
        """Whether the method is more than standard sampling, as far as is known without a grid."""
        return self.plan is not None if self.grid else not is_standard(self.method)

    def _saw(self, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self.pipe.scheduler is not self.scheduler:
            raise RuntimeError("pipe.scheduler was replaced within the attach block; replace it before the block")
        led = self.loop is not None and not self.loop.ended
        self.calls.saw(output, arguments_of(args, kwargs), whole=led)
        # Outside of a loop a model may be called for something else, but not as often as a whole loop does.
        if self.stepped is None and len(self.calls.outputs) >= len(self.grid):
            self.check_explained()

    # The grid: the scheduler's own is kept, and the pipeline is shown one drawn out to the calls of the path.

    def _set_timesteps(self, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        self.check_explained()
        self._led = 0
        original(*args, **kwargs)
        self.grid.keep()
        self.loop, self.stepped, self._tick, self.plan, self._read = None, None, None, None, None
        if not is_standard(self.method, len(self.grid)):
            unfit.refuse_perturbed(self.pipe)
            with self.grid.shown():
                self.plan = plan_of(self.scheduler)
        self.scheduler.timesteps = spread(self.grid.times, 0, self)

    def _get_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A pipeline that begins further down (`strength`) cuts the grid itself, and what is left is drawn out."""
        if not self.grid:
            return original(*args, **kwargs)
        call, whole = inspect.signature(original).bind(*args, **kwargs), self.grid.times
        for name, value in call.arguments.items():
            call.arguments[name] = plain(value)
            if name == "num_inference_steps" and value == len(self.scheduler.timesteps):
                call.arguments[name] = len(whole)  # counted by the pipeline, for timesteps or sigmas of the user
        with self.grid.shown():
            result = original(*call.args, **call.kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        drawn = tuple(spread(x, len(whole) - len(x), self) if is_tail(x, whole) else x for x in parts)
        return drawn if isinstance(result, tuple) else drawn[0]

    def _progress_bar(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A bar of as many ticks as there are calls: the pipeline would tick for the last `T` of them alone."""
        bar, self._tick = original(*args, **kwargs), None
        total = getattr(bar, "total", None)
        if self.plan is not None and isinstance(total, int) and total <= len(groups := self.plan.rehearsed.groups):
            start = groups[-total].first if total else 0
            try:
                calls = len(self.asks(start, len(self.grid) - start))
            except ValueError:  # said when the loop begins
                return bar
            if calls != total:
                bar.total, self._tick = calls, bar.update
                bar.update = lambda n=1: None
        return bar

    def asks(self, start: int, count: int) -> Sequence[int]:
        """Of every model call on a part of `count` times from `start` on: which of them the model is told."""
        return asks_on(self.method, self.plan, start, count)

    def begin(self, times: Times) -> Iterator[Tensor]:
        """The times of one loop of the pipeline. Who does not step is only looking, and sees the plain grid."""
        steps = times.grid.unbind()
        if self.stepped:  # in the middle of a loop
            yield from steps
            return
        if self.plan is not None and self.grid.rewritten():
            with self.grid.shown():
                self.plan = plan_of(self.scheduler)
        path, part = path_on(self.method, self.plan, times.start, len(steps))
        self._prepare(path, part, times)
        turn = self._turn = object()
        for call, told in enumerate(self.asks(times.start, len(steps))):
            if self._turn is not turn or (self.stepped or 0) != call:
                self._check_called(turn)
                yield from steps[call:]
                return
            if self.loop is not None:
                self.grid.stand(times.start + told)
            self._told, self._taken = steps[told], False
            yield self._told
        self._check_called(turn)

    def _check_called(self, turn: object) -> None:
        """Raises RuntimeError where the loop whose `turn` it is called the model, and goes on without a step."""
        if self._turn is turn and self.loop is not None and self.calls.outputs:
            raise RuntimeError(unfit.UNLED)

    def _prepare(self, path: tuple[Move, ...], part: Part, times: Times) -> None:
        self.loop, self.stepped, self.path, self.run.knot = None, 0, path, part.knot
        self.grid.draw_in()
        self.calls.begin()
        if is_plain(path):
            if self.trace is not None:
                self.trace.begin(path)
                self._hosts = times.grid.tolist()
            return
        assert self.plan is not None
        self.loop = Loop([moved(move, part.knot) for move in path], self.plan.solver, self.weak, self.trace)
        unfit.refuse_unfit(self.pipe, self.models, steps=len(times.grid), calls=len(self.loop.asked))
        if self.plan.corrected and not self._warned:
            self._warned = True
            unfit.warn_of_corrector(self.scheduler, self.method)

    # The steps.

    def _step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        outputs = self.calls.taken()
        given = given_to(self._signature, args, kwargs)
        if self.loop is None:
            return self._plain_step(original, args, kwargs, given, outputs)
        stepping = self.stepped is not None
        unfit.check_led(self.loop, given["timestep"], self._told, outputs, stepping=stepping, taken=self._taken)
        loop = self.loop if self.stepped else self._first_step(self.loop, given)
        assert self.plan is not None and self._replies is not None
        rows, call = loop.rows, self.plan.layout.call(loop.asked[loop.calls])
        state = loop.answer(outputs, given["model_output"], given["sample"])
        self.run.rows += loop.rows - rows
        self._taken, self._led = True, self._led + 1
        self.stepped, self.run.knot = (self.stepped or 0) + 1, loop.knot
        if self._tick is not None:
            self._tick(1)
        if loop.ended:
            self.stepped = None
            loop.draw.finish(loop.knot)
        end = self.plan.rehearsed.groups[-1].last + 1
        self.grid.stand(end if loop.place is None else self.plan.layout.call(loop.place), latents=True)
        return self._replies(state, given["sample"], given["model_output"], call)

    def _first_step(self, loop: Loop, given: Mapping[str, Any]) -> Loop:
        """The loop as the pipeline's first call of `step` wants it: with what else it passes, and its generator."""
        assert self.plan is not None
        extras = extras_of(self._signature, given)
        unfit.refuse_per_token(extras)
        with self.grid.shown():
            if extras:  # eta, s_churn
                self.plan, asked = plan_of(self.scheduler, extras), loop.asked
                loop = self.loop = Loop(loop.path, self.plan.solver, self.weak, self.trace)
                if loop.asked != asked:
                    raise ValueError(
                        f"scheduler: {name_of(self.scheduler)} makes other calls with {extras}; leave it out"
                    )
            knot, rehearsed = loop.path[0].start, self.plan.rehearsed
            renoise = self.generator or given.get("generator")
            loop.draw = Draws(self.scheduler, rehearsed, knot, given, extras, renoise)
            first = rehearsed.groups[knot].first
            self._replies = Replies(rehearsed.rehearsal, first, given.get("return_dict", True))
        self.grid.draw_out([self.plan.layout.call(told) for told in loop.asked])
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
        if self.stepped is None:
            if not is_standard(self.method, len(self.scheduler.timesteps)):
                raise RuntimeError(unfit.UNTIMED)
            self.stepped = 0
        rows = self.calls.count(outputs, given["model_output"])
        result = original(*args, **kwargs)
        if self.trace is not None and self.stepped < len(self.path):
            move, after = self.path[self.stepped], result[0]
            self.trace.log(move, self._hosts[self.stepped], rows, given["sample"], after, given["model_output"], None)
        self.stepped, self.run.knot = self.stepped + 1, self.run.knot + 1
        if self.stepped == len(self.path):
            self.stepped = None
        return result

    def _scale_model_input(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.loop is None or self.loop.ended or self.plan is None:
            return original(*args, **kwargs)
        with self.grid.shown():
            return scaled(self.scheduler, self.plan, self.loop, original, args, kwargs)

    def _add_noise(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        loop = self.loop if self.stepped else None
        whole = [x for x in (*args, *kwargs.values()) if isinstance(x, Times) and not x.ended]
        if self.plan is not None and whole:
            stood = stood_on(self.method, self.plan, whole[0].start, len(whole[0].grid))
            with self.grid.shown():
                return noised_by_call(self.scheduler, stood, original, args, kwargs)
        with self.grid.shown():
            return noised(self.scheduler, self.plan, loop, original, args, kwargs)

    def _of_copy(self) -> Callable[..., Any] | None:
        return None if self.stepped else self._step_of_copy  # one made within a loop is a callback's own

    def _step_of_copy(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A copy's step, which nothing but standard sampling allows; the rows are counted."""
        if self._leads() and (self.stepped is not None or self.calls.outputs):
            unfit.refuse_copy()
        given = given_to(self._signature, args, kwargs)
        self.calls.count(self.calls.taken(), given["model_output"])
        return original(*args, **kwargs)

    def _levels(self, knot: int) -> tuple[float, float]:
        if self._read is None and self.grid:
            with self.grid.shown():
                self._read = levels_of(self.scheduler, self.plan)
        return (math.nan, math.nan) if self._read is None else self._read[knot]
