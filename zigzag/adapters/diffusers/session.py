"""A pipeline and a method, for the time that they are attached."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor, nn

from zigzag.adapters.diffusers.branches import rows_per_sample, shape_of
from zigzag.adapters.diffusers.loop import Loop, asked_knots, is_led, is_plain, moved, moves_of
from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.schedulers import solver_from_scheduler
from zigzag.adapters.diffusers.timesteps import Times, is_tail, plain, spread
from zigzag.adapters.diffusers.unfit import refuse_perturbed, refuse_unfit
from zigzag.guidance import Guidance
from zigzag.methods import Method
from zigzag.moves import Move, Renoise
from zigzag.trace import Trace

__all__ = ["Run", "Session"]

# What a pipeline may pass to its scheduler's step that changes nothing of the step.
HARMLESS = ("model_output", "timestep", "sample", "generator", "return_dict")


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
        self.loop: Loop | None = None  # of a path that is not plain
        self.path: tuple[Move, ...] = ()
        self.stepped: int | None = None  # steps made in the loop under way, if one is
        self._turn: object = None  # whose turn it is to hand out times
        self._tick: Callable[[int], Any] | None = None  # the progress bar's
        self._told: Tensor | None = None  # the time handed out last
        self._hosts: list[float] = []  # the grid's times as host numbers, for a trace of standard sampling
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
        self.loop, self.stepped, self._tick = None, None, None
        if is_led(self.method, len(self.grid["timesteps"])):
            refuse_perturbed(self.pipe)
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
        if isinstance(total, int) and total <= len(self.grid.get("timesteps", ())):
            try:
                calls = len(self.asks(total))
            except ValueError:  # said when the loop begins
                return bar
            if calls != total:
                bar.total, self._tick = calls, bar.update
                bar.update = lambda n=1: None
        return bar

    def asks(self, steps: int) -> Sequence[int]:
        """The knots whose times the model is told, call by call, on a part of the grid of so many steps."""
        return asked_knots(moves_of(self.method, steps))

    def begin(self, times: Times) -> Iterator[Tensor]:
        """The times of one loop of the pipeline. Who does not step is only looking, and sees the plain grid."""
        steps = times.grid.unbind()
        if self.stepped:  # in the middle of a loop
            yield from steps
            return
        path = moves_of(self.method, len(steps))
        knots = asked_knots(path)
        self._prepare(path, times)
        turn = self._turn = object()
        for call, knot in enumerate(knots):
            if self._turn is not turn or (self.stepped or 0) != call:
                yield from steps[call:]
                return
            if self.loop is not None:
                self._stand_at(times.start + knot)
            self._told = steps[knot]
            yield self._told

    def _prepare(self, path: tuple[Move, ...], times: Times) -> None:
        self.loop, self.stepped, self.path, self.run.knot = None, 0, path, times.start
        self.outputs.clear()
        if is_plain(path):
            if self.trace is not None:
                self.trace.begin(path)
                self._hosts = times.grid.tolist()
            return
        refuse_unfit(self.pipe, self.models, steps=len(times.grid), calls=len(asked_knots(path)))
        with self._own_grid():
            solver = solver_from_scheduler(self.scheduler)
        self.loop = Loop([moved(move, times.start) for move in path], solver, self.weak, self.generator, self.trace)

    def _stand_at(self, knot: int) -> None:
        # Schedulers that count their steps scale the model's input, and noise a mask's background, by the count.
        if hasattr(self.scheduler, "_step_index"):
            self.scheduler._step_index = knot

    # The steps.

    def _step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        outputs = list(self.outputs)
        self.outputs.clear()
        given = self._signature.bind(*args, **kwargs).arguments
        if self.loop is None:
            return self._plain_step(original, args, kwargs, given, outputs)
        self._check_led(self.loop, given["timestep"], outputs)
        if not self.stepped:
            self._first_step(self.loop, given)
        rows = self.loop.rows
        state = self.loop.answer(outputs, given["model_output"], given["sample"])
        self.run.rows += self.loop.rows - rows
        self.stepped, self.run.knot = (self.stepped or 0) + 1, self.loop.knot
        if self._tick is not None:
            self._tick(1)
        if self.loop.ended:
            self.stepped = None
            self._stand_at(self.loop.knot)
        return SchedulerOutput(prev_sample=state) if given.get("return_dict", True) else (state,)

    def _check_led(self, loop: Loop, time: Any, outputs: Sequence[Any]) -> None:
        told = time is self._told or (self._told is not None and float(time) == float(self._told))
        if self.stepped is None or loop.ended or not told:
            raise RuntimeError(
                "the pipeline's scheduler steps at other times than its loop is told, so that attach cannot lead it; "
                "only method Standard() works"
            )
        if not outputs:
            raise RuntimeError(
                "no call of the pipeline's model was seen before its scheduler's step, so that attach cannot lead it; "
                "a unet or transformer is to be replaced before the block, not within it"
            )

    def _first_step(self, loop: Loop, given: Mapping[str, Any]) -> None:
        extras = {name: value for name, value in given.items() if name not in HARMLESS and value}
        if extras:  # eta, s_churn: refused there if they make a difference
            with self._own_grid():
                solver_from_scheduler(self.scheduler, step_kwargs=extras)
        if loop.generator is None and any(isinstance(move, Renoise) for move in loop.path):
            loop.generator = given.get("generator")
            if not isinstance(loop.generator, torch.Generator | None):
                raise ValueError(
                    "generator: the noise of Renoise is drawn for the whole batch from one generator, and the pipeline "
                    "was given a list; pass one to attach"
                )
        if "sigmas" in self.grid:  # pipelines of flow models look them up by their loop's counter
            knots = torch.tensor(loop.asked, device=self.grid["sigmas"].device)
            self.scheduler.sigmas = self.grid["sigmas"][knots]

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
            if not is_plain(moves_of(self.method, len(self.scheduler.timesteps))):
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
        if self.loop is None:
            return original(*args, **kwargs)
        with self._own_grid():
            return original(*args, **kwargs)

    def _add_noise(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """A blend of a noised image into the latents, asked for at the next call's time: at the knot where they are."""
        call = inspect.signature(original).bind(*args, **kwargs)
        name = "timesteps" if "timesteps" in call.arguments else "timestep"
        asked = call.arguments[name] = plain(call.arguments[name])
        with self._own_grid():
            if self.loop is None or not self.stepped:
                return original(*call.args, **call.kwargs)
            times, knot = self.grid["timesteps"], self.loop.knot
            self._stand_at(knot)
            if bool((asked == times[self.loop.asked[self.stepped]].to(asked.device)).all()):  # not a callback's own
                if knot == len(times):
                    clean: Tensor = call.args[0]
                    return clean
                call.arguments[name] = times[knot].expand(asked.shape)
            return original(*call.args, **call.kwargs)
