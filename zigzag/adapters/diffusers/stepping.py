"""Copies of a scheduler that can be stepped from any of its time steps, and calls of `step` by the names it takes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

__all__ = [
    "BY_CALL", "Caller", "Fails", "NotLinear", "begun_at", "config_of", "corrects", "detached", "emptied", "name_of",
    "prepare",
]  # fmt: skip

# What a pipeline passes to `step` anew at every call. The rest of its keywords belong to the step itself.
BY_CALL: Final = {
    "model_output", "timestep", "sample", "return_dict", "generator",
    "old_pred_original_sample", "timestep_back", "prev_timestep", "order",
}  # fmt: skip
# What corrects, in UniPC and in SA-Solver: from the `last_sample`, which a scheduler may also keep to other ends.
CORRECTORS: Final = ("multistep_uni_c_bh_update", "stochastic_adams_moulton_update")


class NotLinear(ValueError):
    """Raised for a scheduler whose step cannot be rehearsed; the message says why."""


class Fails(NotLinear):
    """Raised for a step that fails by itself, called with a prediction like its state: of another kind than others'."""


def name_of(part: Any) -> str:
    """The class of a scheduler or a model, for messages."""
    return type(part).__name__


def config_of(scheduler: Any) -> Mapping[str, Any]:
    """What a scheduler was configured with; nothing, where it keeps no record of it."""
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    return config


def detached(scheduler: Any, *, live: bool = False) -> Any:
    """A copy that shares no state with the scheduler; its tensors on the host, unless it is to be `live`.

    What was set on the instance in place of a method (a pipeline's wrapper, say) is left behind: it would step the
    original. Functions that are no method (SA-Solver's `tau_func`) stay.
    """
    new = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, Tensor):
            setattr(new, name, value.detach().clone() if live else value.detach().cpu().clone())
        elif callable(value) and hasattr(type(scheduler), name):
            vars(new).pop(name, None)
        else:
            vars(new)[name] = copy.deepcopy(value)
    return new


def emptied(scheduler: Any) -> Any:
    """A detached copy on the same grid that has forgotten a run that the scheduler may be in, or have behind it.

    What it remembers of one is what `set_timesteps` leaves blank: nothing, zero or a list of nothing.
    """
    new, twin = detached(scheduler), detached(scheduler)
    try:
        twin.set_timesteps(twin.num_inference_steps)
    except Exception:  # of whatever kind: it asks for more than a number
        return new
    for name, value in vars(twin).items():
        nothing = isinstance(value, list) and all(entry is None for entry in value)
        if value is None or nothing or (type(value) is int and value == 0):
            setattr(new, name, value)
    return new


def begun_at(scheduler: Any, s: int, *, live: bool = False) -> Any:
    """A detached copy about to make call `s` with nothing remembered: in float64, unless `live`."""
    new = detached(scheduler, live=live)
    for name, value in vars(new).items():
        if isinstance(value, Tensor) and value.is_floating_point() and name != "timesteps" and not live:
            setattr(new, name, value.double())
    if hasattr(new, "set_begin_index"):
        new.set_begin_index(s)
    if hasattr(new, "_step_index"):
        new._step_index = s  # not left to be found: some begin at 0 whatever the begin index, or look the time up
    if hasattr(new, "is_scale_input_called"):
        new.is_scale_input_called = True
    return new


def corrects(scheduler: Any) -> bool:
    """Whether it is a predictor-corrector, whose corrector starts from the `last_sample`."""
    return hasattr(scheduler, "last_sample") and any(hasattr(scheduler, name) for name in CORRECTORS)


def prepare(scheduler: Any, s: int, k: int, *, corrector: bool) -> None:
    """Gets a copy begun at `s` ready for call `k`.

    Without its `corrector` a predictor-corrector (UniPC, SA-Solver) loses what the corrector starts from, and only
    predicts. PNDM, which counts its calls and is known by the times of its Runge-Kutta steps, is told the number of the
    call. Of its multistep calls the first of a run is 0, where the counter also says that nothing is remembered; at 1
    it would say that the call is the second half of the first step. After Runge-Kutta calls the multistep ones ask for
    three memories, unless the configuration skips the former.
    """
    if not corrector and corrects(scheduler):
        scheduler.last_sample = None
    if s == 0 or not (hasattr(scheduler, "counter") and hasattr(scheduler, "prk_timesteps")):
        return
    if k < len(scheduler.prk_timesteps) and not config_of(scheduler).get("skip_prk_steps"):
        scheduler.counter = k
        return
    scheduler.register_to_config(skip_prk_steps=True)
    scheduler.counter = 0 if k == s else max(k, 2)


@dataclass
class Caller:
    """Calls `step` of a copy with what its parameters' names ask for, call after call.

    Attributes:
        scheduler: the copy. step_kwargs: what else it is called with.
        generator: one, or a list of them.
        clean: the x₀ that the call before has given back, if it has.
        answer: all that the last call has given back.
    """

    scheduler: Any
    step_kwargs: Mapping[str, Any]
    generator: Any = field(default_factory=lambda: torch.Generator().manual_seed(0))
    return_dict: bool = True
    clean: Any = None
    answer: Any = None
    calls: int = 0

    def __call__(self, x: Tensor, e: Tensor, k: int) -> tuple[Tensor, Any]:
        """`(prev_sample, pred_original_sample or None)` of call `k`.

        Raises:
            NotLinear: where there is no such step, or (`Fails`) it fails.
            IndexError: where call `k` needs a time after the last one.
        """
        step = getattr(type(self.scheduler), "step", None)
        if step is None:
            raise NotLinear("it has no step")
        kwargs = self._kwargs(step, x, e, k)
        try:
            with torch.no_grad():
                out = self.answer = self._stepped(step, kwargs)
        except (NotLinear, IndexError):
            raise
        except Exception as error:
            raise Fails(f"its step fails{self._without(error, kwargs)}: {type(error).__name__}: {error}") from error
        self.calls += 1
        # A tuple, or what reads as a dictionary of what is there: the state, and mostly x₀.
        parts = [*out] if isinstance(out, tuple) else [*vars(out).values()]
        first, second = parts[0], parts[1] if len(parts) > 1 else None
        self.clean = second
        return first, second

    def _kwargs(self, step: Any, x: Tensor, e: Tensor, k: int) -> dict[str, Any]:
        taken, times = inspect.signature(step).parameters, self.scheduler.timesteps
        offered = {
            "model_output": e, "timestep": times[k], "sample": x, "return_dict": self.return_dict,
            "generator": self.generator, "old_pred_original_sample": self.clean,
            "timestep_back": times[k - 1] if self.calls else None,
            "prev_timestep": times[k + 1] if k + 1 < len(times) else None,
        }  # fmt: skip
        if "order" in taken:  # of a multistep rule, which else counts the steps before the run begun among its memory
            offered["order"] = min(taken["order"].default, self.calls + 1)
        takes_any = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        kwargs = {name: value for name, value in offered.items() if name in taken}
        kwargs |= {name: value for name, value in self.step_kwargs.items() if name in taken or takes_any}
        needed = [
            n for n, p in taken.items() if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
        missing = [name for name in needed if name not in kwargs and name != "self"]
        if missing:
            raise NotLinear(f"its step also needs {', '.join(missing)}")
        return kwargs

    def _without(self, error: Exception, kwargs: Mapping[str, Any]) -> str:
        """Which parameters it was not called with, for an error of that, as none but their own pipeline has them."""
        taken = inspect.signature(type(self.scheduler).step).parameters
        left = [name for name, p in taken.items() if name not in kwargs and p.default is None]
        if left and "NoneType" in str(error):
            return f" without {', '.join(left)}, which its own pipeline passes"
        return ", for a prediction of the state's own shape"

    def _stepped(self, step: Any, kwargs: dict[str, Any]) -> Any:
        """The step, with one time for each of the batch where it will not take one for all."""
        try:
            return step(self.scheduler, **kwargs)
        except IndexError as error:
            if "0-dim" not in str(error):
                raise
            return step(self.scheduler, **{**kwargs, "timestep": kwargs["timestep"].expand(len(kwargs["sample"]))})
