"""A pipeline and a method, for the time that they are attached."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from zigzag.adapters.diffusers import unfit
from zigzag.adapters.diffusers.bars import counting
from zigzag.adapters.diffusers.by_calls import refuse_tabled
from zigzag.adapters.diffusers.cast import Cast
from zigzag.adapters.diffusers.counting import Run, arguments_of
from zigzag.adapters.diffusers.edits import Edits
from zigzag.adapters.diffusers.entry import check_takes_latents
from zigzag.adapters.diffusers.given import extras_of
from zigzag.adapters.diffusers.graphed import Graphed
from zigzag.adapters.diffusers.led import enter
from zigzag.adapters.diffusers.levels import noised, noised_by_call, scaled
from zigzag.adapters.diffusers.loop import Loop, enters
from zigzag.adapters.diffusers.patches import Patches, is_wrapped
from zigzag.adapters.diffusers.plans import Plan, plan_of
from zigzag.adapters.diffusers.priors import prior_of
from zigzag.adapters.diffusers.progress import Progress
from zigzag.adapters.diffusers.routes import asks_on, check_whole, is_standard, path_on, steered_on, stood_on
from zigzag.adapters.diffusers.scheme_loop import SchemeLoop
from zigzag.adapters.diffusers.steps import Steps
from zigzag.adapters.diffusers.timesteps import Times, is_tail, plain, spread, with_data
from zigzag.adapters.diffusers.ways import Way, tour_of
from zigzag.adapters.hosts import is_plain, moved
from zigzag.inversion import Inverted
from zigzag.methods import Method, Steered, is_steered
from zigzag.moves import Move
from zigzag.sampling import Generators
from zigzag.trace import Trace

__all__ = ["Run", "Session"]


class Session:
    """Stands between a pipeline, its models and its scheduler; `attach` says what for."""

    def __init__(
        self,
        pipe: Any,
        models: Sequence[nn.Module],
        method: Method | Steered | Sequence[Move] | Way,
        cast: Cast,
        trace: Trace | None,
        generator: Generators,
    ) -> None:
        self.models = models
        self.now = Progress(pipe, method, cast, trace, generator)
        self.run, self.steps, self.edits = self.now.run, Steps(self.now), Edits(self.now, models)
        self._turn: object = None  # whose turn it is to hand out times
        self._generator: Any = None  # of the pipeline's, for its scheduler
        self._doses = list[Any]()  # of ControlNet, in the loop under way
        self._toured: tuple[Plan, list[int]] | None = None  # of the plan that it was read off, what a way asks
        self._warned = False  # that a corrector was left out
        self.graphs: Sequence[Graphed] = ()

    def take_over(self, patches: Patches) -> None:
        """Replaces what the pipeline calls of its scheduler, and watches its models, until `patches` are undone."""
        patches.callback(self._release)
        wrappers: dict[str, Callable[..., Any]] = {
            "set_timesteps": self._set_timesteps, "step": self.steps.step, "add_noise": self._add_noise,
            "scale_noise": self._add_noise, "scale_model_input": self._scale_model_input,
        }  # fmt: skip
        for name, wrapper in wrappers.items():
            if hasattr(self.now.scheduler, name):
                patches.wrap(self.now.scheduler, name, wrapper, of_copy=partial(self.steps.of_copy, name))
        patches.copies(self.now.scheduler)
        for other in vars(self.now.pipe).values():
            if other is not self.now.scheduler and all(hasattr(other, name) for name in ("step", "set_timesteps")):
                patches.keep_plain(other, "timesteps")
                for name, wrapper in self.steps.of_others.items():
                    patches.wrap(other, name, wrapper, of_copy=partial(self.steps.of_others.get, name))
                patches.copies(other)
        own = {"get_timesteps": self._get_timesteps, "progress_bar": self._progress_bar}
        if isinstance(self.now.method, Way) or enters(self.now.method):
            check_takes_latents(self.now.pipe)
            own["prepare_latents"] = self._prepare_latents
            own["prepare_extra_step_kwargs"] = self._prepare_extra_step_kwargs
            if isinstance(control := getattr(self.now.pipe, "controlnet", None), nn.Module):
                patches.watch(control, self._saw_control)
        for name, wrapper in own.items():
            if hasattr(self.now.pipe, name):
                patches.wrap(self.now.pipe, name, wrapper)
        self.edits.take_over(patches)
        for model in self.models:
            patches.watch(model, self.edits.outside(self._saw))
        if (prior := prior_of(self.now.pipe)) is not None:
            patches.watch(prior, self._saw_prior)

    def _release(self) -> None:
        self.now.calls.flush()
        self.now.prior.flush()
        self.now.drop_seconds()
        self.now.grid.show(self.now.grid.own)

    def _saw(self, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self.now.pipe.scheduler is not self.now.scheduler and not is_wrapped(self.now.pipe.scheduler):
            raise RuntimeError("pipe.scheduler was replaced within the attach block; replace it before the block")
        given = arguments_of(args, kwargs)
        if not self.now.grid and unfit.at_data(kwargs):
            self.now.calls.filled(given)
            return
        led = self.now.loop is not None and not self.now.loop.ended
        self.now.calls.saw(output, given, whole=led)
        if self.now.stepped is None:
            self.now.check_explained(loops=True)

    def _saw_prior(self, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.now.prior.saw(output, arguments_of(args, kwargs), whole=False)

    # The grid: the scheduler's own is kept, and the pipeline is shown one drawn out to the calls of the path.

    def _set_timesteps(self, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        self.now.check_explained(loops=True)
        self.now.led = 0
        original(*args, **kwargs)
        self.now.begin_grid()
        if not is_standard(self.now.method, len(self.now.grid)):
            unfit.refuse_other_loops(self.now.pipe)
            if not self.now.cast.is_own:
                unfit.refuse_perturbed(self.now.pipe)
            with self.now.grid.shown():
                self.now.plan = plan_of(self.now.scheduler)
            self.now.grid.put_away(self.now)
        self.now.scheduler.timesteps = spread(self.now.grid.times, 0, self)

    def _get_timesteps(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A pipeline that begins further down (`strength`) cuts the grid itself, and what is left is drawn out."""
        if not self.now.grid:
            return original(*args, **kwargs)
        call, whole = inspect.signature(original).bind(*args, **kwargs), self.now.grid.times
        for name, value in call.arguments.items():
            call.arguments[name] = plain(value)
            if name == "num_inference_steps" and value == len(self.now.scheduler.timesteps):
                call.arguments[name] = len(whole)  # counted by the pipeline, for timesteps or sigmas of the user
        with self.now.grid.shown():
            result = original(*call.args, **call.kwargs)
        parts = result if isinstance(result, tuple) else (result,)
        drawn = tuple(spread(x, len(whole) - len(x), self) if is_tail(x, whole) else x for x in parts)
        for times in (x for x in drawn if isinstance(x, Times)):
            refuse_tabled(self.now.pipe, steps=len(times.grid), calls=len(times))
        return drawn if isinstance(result, tuple) else drawn[0]

    def _progress_bar(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        bar = original(*args, **kwargs)
        self.now.tick = counting(bar, self.now, self.asks)
        return bar

    def asks(self, start: int, count: int) -> Sequence[int]:
        """Of every pass over a part of `count` times from `start` on: which of them the model is told."""
        way, plan = self.now.method, self.now.plan
        if not isinstance(way, Way):
            return asks_on(way, self.now.cast, plan, start, count)
        return range(count) if plan is None else [plan.layout.call(told) for told in self._tour(way, start, count)]

    def _tour(self, way: Way, start: int, count: int) -> list[int]:
        plan = self.now.plan
        assert plan is not None
        check_whole(plan, start, count)
        if self._toured is None or self._toured[0] is not plan:
            self._toured = plan, tour_of(way, way.grid(plan))
        return self._toured[1]

    @property
    def shown(self) -> Progress:
        """For the times of further schedulers."""
        return self.now

    def begin(self, times: Times) -> Iterator[Tensor]:
        """The times of one loop of the pipeline. Who does not step is only looking, and sees the plain grid."""
        steps = with_data(times.grid).unbind()
        if self.now.stepped:  # in the middle of a loop
            yield from times.grid.unbind()
            return
        if self.now.plan is not None and self.now.grid.rewritten():
            with self.now.grid.shown():
                self.now.plan = plan_of(self.now.scheduler)
        self._prepare(times)
        turn = self._turn = object()
        for call, told in enumerate(self._told(times)):
            if self._turn is not turn or (self.now.stepped or 0) != call:
                self._check_called(turn)
                yield from times.grid[call:].unbind()
                return
            if self.now.loop is not None:
                self.now.playing = self.now.loop.passes[call].source
                for grid in (self.now.grid, *(second.grid for second in self.now.seconds)):
                    grid.stand(times.start + told, call)
            self.now.told, self.now.taken = steps[told], False
            yield self.now.told
        self._check_called(turn)
        if self._turn is turn:
            self.now.told, self.now.taken = None, False

    def _told(self, times: Times) -> Iterator[int]:
        """Call by call, which of the times is told: where some calls may fall away, as the loop asks."""
        if self.now.loop is None or not self.now.loop.open:
            yield from self.asks(times.start, len(times.grid))
            return
        while (loop := self.now.loop) is not None and not loop.ended:
            assert self.now.plan is not None
            yield self.now.plan.layout.call(loop.asked[loop.calls]) - times.start

    def _check_called(self, turn: object) -> None:
        """Raises RuntimeError where the loop whose `turn` it is called the model, and goes on without a step."""
        if self._turn is turn and self.now.loop is not None and self.now.calls.outputs:
            raise RuntimeError(unfit.UNLED)

    def _prepare(self, times: Times) -> None:
        now, count, method = self.now, len(times.grid), self.now.method
        entered = isinstance(method, Way) or enters(method)
        if entered and now.extras and now.plan is not None:
            with now.grid.shown():
                now.plan = plan_of(now.scheduler, now.extras)
        now.loop, now.stepped, now.path, now.times, now.playing = None, 0, (), times, "own"
        for graph in self.graphs:
            graph.begin()
        self._doses.clear()
        now.drop_seconds()
        now.grid.draw_in()
        now.calls.begin()
        now.loop = loop = self._loop(times.start, count)
        if loop is None:
            if now.trace is not None:
                now.trace.begin(now.path)
                now.hosts = times.grid.tolist()
            return
        assert now.plan is not None
        calls = None if isinstance(loop, Loop) and loop.steering is not None else len(loop.asked)
        named = not now.cast.is_own
        unfit.refuse_unfit(now.pipe, self.models, steps=count, calls=calls, named=named, entered=entered)
        if entered:
            enter(loop, now.plan, now.grid, now.entry, now.extras, now.generator or self._generator)
            now.run.knot = loop.knot
        if now.plan.corrected and not self._warned:
            self._warned = True
            unfit.warn_of_corrector(now.scheduler, now.method)

    def _loop(self, start: int, count: int) -> Loop | SchemeLoop | None:
        """The loop along a part of the grid; None where it is left to the scheduler, on a path that is then known."""
        now, method = self.now, self.now.method
        if isinstance(method, Way):
            assert now.plan is not None
            now.run.knot = 0
            now.cast.check_path((), method)
            return SchemeLoop(method, method.grid(now.plan), now.cast, self._tour(method, start, count), self._found)
        if is_steered(method):
            assert now.plan is not None
            steered, part = steered_on(method, now.plan, start, count)
            now.run.knot = part.knot
            return Loop(steered, now.plan.solver, now.cast, now.trace)
        now.path, part = path_on(method, now.plan, start, count)
        now.run.knot = part.knot
        now.cast.check_path(now.path, method)
        if is_plain(now.path):
            return None
        assert now.plan is not None
        return Loop([moved(move, part.knot) for move in now.path], now.plan.solver, now.cast, now.trace)

    # A state that is handed in takes the place of the latents that the pipeline prepares.

    def _prepare_latents(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        kept = self.now.method.state if isinstance(self.now.method, Way) else None
        return self.now.entry.prepare(original, args, kwargs, kept, self.now.scheduler)

    def _prepare_extra_step_kwargs(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = original(*args, **kwargs)
        self.now.extras, self._generator = extras_of(self.steps.signature, given), given.get("generator")
        return given

    def _saw_control(self, output: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._doses.append(kwargs.get("conditioning_scale"))
        unfit.check_dose(self._doses)

    def _found(self, inverted: Inverted | None) -> None:
        self.now.run.inverted = inverted

    def _scale_model_input(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.now.loop is None or self.now.loop.ended or self.now.plan is None:
            return original(*args, **kwargs)
        with self.now.grid.shown():
            return scaled(self.now.scheduler, self.now.plan, self.now.loop, original, args, kwargs)

    def _add_noise(self, original: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        loop = self.now.loop if self.now.stepped else None
        whole = [x for x in (*args, *kwargs.values()) if isinstance(x, Times) and not x.ended]
        if self.now.plan is not None and whole and not isinstance(self.now.method, Way):
            stood = stood_on(self.now.method, self.now.cast, self.now.plan, whole[0].start, len(whole[0].grid))
            with self.now.grid.shown():
                return noised_by_call(self.now.scheduler, stood, original, args, kwargs)
        with self.now.grid.shown():
            return noised(self.now.scheduler, self.now.plan, loop, original, args, kwargs)
