"""A pipeline and a method, for the time that they are attached."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.adapters.diffusers.branches import rows_per_sample, shape_of
from zigzag.adapters.diffusers.draws import Draws
from zigzag.adapters.diffusers.given import extras_of, given_to
from zigzag.adapters.diffusers.layout import Part
from zigzag.adapters.diffusers.levels import noised, scaled, stand_at
from zigzag.adapters.diffusers.loop import Loop, asked_times, is_plain, moved, moves_of
from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.plans import Plan, plan_of
from zigzag.adapters.diffusers.replies import Replies
from zigzag.adapters.diffusers.stepping import name_of
from zigzag.adapters.diffusers.timesteps import Times, is_tail, plain, spread
from zigzag.adapters.diffusers.unfit import check_led, refuse_perturbed, refuse_unfit, warn_of_corrector
from zigzag.checks import plan_path
from zigzag.guidance import Guidance
from zigzag.methods import Method
from zigzag.moves import Move
from zigzag.trace import Trace

__all__ = ["Run", "Session"]


@dataclass
class Run:
    """What a pipeline did while a method was attached.

    Attributes:
        rows: model rows per sample that ran, in all calls of the pipeline together.
        knot: the knot of the scheduler's grid at which the latents are that the pipeline, or a callback, has now.
    """

    rows: int = 0
    knot: int = 0


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
        self.run = Run()
        self.outputs: list[Any] = []  # of the calls since the last step; their shapes, where those are enough
        self.grid: dict[str, Tensor] = {}  # the scheduler's own timesteps and sigmas
        self.plan: Plan | None = None  # of the scheduler's steps, where a method is to lead them
        self.loop: Loop | None = None  # of a path that is not plain
        self.path: tuple[Move, ...] = ()
        self.stepped: int | None = None  # steps made in the loop under way, if one is
        self._turn: object = None  # whose turn it is to hand out times
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
            "set_timesteps": self._set_timesteps,
            "step": self._step,
            "add_noise": self._add_noise,
            "scale_noise": self._add_noise,
            "scale_model_input": self._scale_model_input,
        }
        for name, wrapper in wrappers.items():
            if hasattr(self.scheduler, name):
                patches.wrap(self.scheduler, name, wrapper)
        for name, wrapper in (("get_timesteps", self._get_timesteps), ("progress_bar", self._progress_bar)):
            if hasattr(self.pipe, name):
                patches.wrap(self.pipe, name, wrapper)
        for model in self.models:
            patches.watch(model, self._saw)

    def _release(self) -> None:
        self.outputs.clear()
        self._show(self.grid)

    def _saw(self, output: Any) -> None:
        if self.pipe.scheduler is not self.scheduler:
            raise RuntimeError("pipe.scheduler was replaced within the attach block; replace it before the block")
        seen = output if isinstance(output, Tensor) else output[0]
        led = self.loop is not None and not self.loop.ended
        self.outputs.append(seen if led else shape_of(seen))

    # The grid: the scheduler's own is kept, and the pipeline is shown one drawn out to the calls of the path.

    def _show(self, grid: Mapping[str, Tensor]) -> None:
        for name, value in grid.items():
            setattr(self.scheduler, name, value)

    @contextmanager
    def _own_grid(self) -> Iterator[None]:
        shown = {name: getattr(self.scheduler, name) for name in self.grid}
        self._show(self.grid)
        try:
            yield
        finally:
            self._show(shown)

    def _set_timesteps(self, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        names = [name for name in ("timesteps", "sigmas") if isinstance(getattr(self.scheduler, name, None), Tensor)]
        self.grid = {name: getattr(self.scheduler, name) for name in names}
        self.loop, self.stepped, self._tick, self.plan = None, None, None, None
        if not self._is_plain(len(self.grid["timesteps"])):
            refuse_perturbed(self.pipe)
            with self._own_grid():
                self.plan = plan_of(self.scheduler)
        self.scheduler.timesteps = spread(self.grid["timesteps"], 0, self)

    def _get_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A pipeline that begins further down (`strength`) cuts the grid itself, and what is left is drawn out."""
        if "timesteps" not in self.grid:
            return original(*args, **kwargs)
        call, whole = inspect.signature(original).bind(*args, **kwargs), self.grid["timesteps"]
        for name, value in call.arguments.items():
            call.arguments[name] = plain(value)
            if name == "num_inference_steps" and value == len(self.scheduler.timesteps):
                call.arguments[name] = len(whole)  # counted by the pipeline, for timesteps or sigmas of the user
        with self._own_grid():
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
                calls = len(self.asks(start, len(self.grid["timesteps"]) - start))
            except ValueError:  # said when the loop begins
                return bar
            if calls != total:
                bar.total, self._tick = calls, bar.update
                bar.update = lambda n=1: None
        return bar

    def _is_plain(self, steps: int) -> bool:
        try:
            return is_plain(moves_of(self.method, steps))
        except ValueError:
            return False

    def _path(self, start: int, count: int) -> tuple[tuple[Move, ...], Part]:
        """The moves on a part of the grid, from its own knot 0 on, and where that part is."""
        part = Part(start, count) if self.plan is None else self.plan.layout.part(start, count)
        return moves_of(self.method, part.steps), part

    def asks(self, start: int, count: int) -> Sequence[int]:
        """Of every model call on a part of `count` times from `start` on: which of them the model is told."""
        path, part = self._path(start, count)
        if is_plain(path) or self.plan is None:
            return range(count)
        laid, steps = plan_path([moved(move, part.knot) for move in path], self.plan.solver)
        return [self.plan.layout.call(told) - start for told in asked_times(laid, steps)]

    def begin(self, times: Times) -> Iterator[Tensor]:
        """The times of one loop of the pipeline. Who does not step is only looking, and sees the plain grid."""
        steps = times.grid.unbind()
        if self.stepped:  # in the middle of a loop
            yield from steps
            return
        path, part = self._path(times.start, len(steps))
        self._prepare(path, part, times)
        turn = self._turn = object()
        for call, told in enumerate(self.asks(times.start, len(steps))):
            if self._turn is not turn or (self.stepped or 0) != call:
                yield from steps[call:]
                return
            if self.loop is not None:
                stand_at(self.scheduler, times.start + told)
            self._told = steps[told]
            yield self._told

    def _prepare(self, path: tuple[Move, ...], part: Part, times: Times) -> None:
        self.loop, self.stepped, self.path, self.run.knot = None, 0, path, part.knot
        self.outputs.clear()
        if is_plain(path):
            if self.trace is not None:
                self.trace.begin(path)
                self._hosts = times.grid.tolist()
            return
        assert self.plan is not None
        self.loop = Loop([moved(move, part.knot) for move in path], self.plan.solver, self.weak, self.trace)
        refuse_unfit(self.pipe, self.models, steps=len(times.grid), calls=len(self.loop.asked))
        if self.plan.corrected and not self._warned:
            self._warned = True
            warn_of_corrector(self.scheduler, self.method)

    # The steps.

    def _step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        outputs = list(self.outputs)
        self.outputs.clear()
        given = given_to(self._signature, args, kwargs)
        if self.loop is None:
            return self._plain_step(original, args, kwargs, given, outputs)
        check_led(self.loop, given["timestep"], self._told, outputs, stepping=self.stepped is not None)
        loop = self.loop if self.stepped else self._first_step(self.loop, given)
        assert self.plan is not None and self._replies is not None
        rows, call = loop.rows, self.plan.layout.call(loop.asked[loop.calls])
        state = loop.answer(outputs, given["model_output"], given["sample"])
        self.run.rows += loop.rows - rows
        self.stepped, self.run.knot = (self.stepped or 0) + 1, loop.knot
        if self._tick is not None:
            self._tick(1)
        if loop.ended:
            self.stepped = None
            loop.draw.finish(loop.knot)
            stand_at(self.scheduler, self.plan.rehearsed.groups[loop.knot - 1].last + 1)
        return self._replies(state, given["sample"], given["model_output"], call)

    def _first_step(self, loop: Loop, given: Mapping[str, Any]) -> Loop:
        """The loop as the pipeline's first call of `step` wants it: with what else it passes, and its generator."""
        assert self.plan is not None
        extras = extras_of(self._signature, given)
        with self._own_grid():
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
        if "sigmas" in self.grid:  # pipelines of flow models look them up by their loop's counter
            calls = [self.plan.layout.call(told) for told in loop.asked]
            self.scheduler.sigmas = self.grid["sigmas"][torch.tensor(calls, device=self.grid["sigmas"].device)]
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
            if not self._is_plain(len(self.scheduler.timesteps)):
                raise RuntimeError(
                    "the pipeline's loop does not run over its scheduler's timesteps, so that attach cannot lead it; "
                    "only method Standard() works"
                )
            self.stepped = 0
        rows = rows_per_sample(outputs, given["model_output"])
        result = original(*args, **kwargs)
        if self.trace is not None and self.stepped < len(self.path):
            move, after = self.path[self.stepped], result[0]
            self.trace.log(move, self._hosts[self.stepped], rows, given["sample"], after, given["model_output"], None)
        self.run.rows += rows
        self.stepped, self.run.knot = self.stepped + 1, self.run.knot + 1
        if self.stepped == len(self.path):
            self.stepped = None
        return result

    def _scale_model_input(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.loop is None or self.loop.ended or self.plan is None:
            return original(*args, **kwargs)
        with self._own_grid():
            return scaled(self.scheduler, self.plan, self.loop, original, args, kwargs)

    def _add_noise(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        loop = self.loop if self.stepped else None
        with self._own_grid():
            return noised(self.scheduler, self.plan, loop, original, args, kwargs)
