"""What to take in place of a scheduler whose steps cannot be led: tried on its own configuration before it is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import diffusers
import torch

from zigzag.adapters.diffusers.stepping import config_of, name_of

__all__ = ["Refused", "Remedy", "others"]

# What of another class's configuration a scheduler would take for its own, and refuse or misread.
FOREIGN: Final = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "final_sigmas_type": "zero"}
PRECONDITIONED: Final = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
STANDARD: Final = "method Standard(), which leaves the steps to it"


@dataclass(frozen=True)
class Remedy:
    """Another scheduler, of a class by its `name`, or the same one, with `changes` to the configuration.

    Attributes:
        also: what else belongs to it, or would do.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    also: str = ""

    def __str__(self) -> str:
        changes = "".join(f", {name}={value!r}" for name, value in self.changes.items())
        return f"{self.name}.from_config(scheduler.config{changes})"

    def made(self, scheduler: Any) -> Any:
        """The scheduler that is named, on as many steps as the one that it is for."""
        cls = type(scheduler) if self.name == name_of(scheduler) else getattr(diffusers, self.name)
        new = cls.from_config(scheduler.config, **self.changes)
        new.set_timesteps(getattr(scheduler, "num_inference_steps", None) or len(scheduler.timesteps))
        return new


class Refused(ValueError):
    """A scheduler whose steps cannot be led.

    Args:
        scheduler: which. reason: why. remedies: what may do in its place, the likeliest first.
        otherwise: what to do where none of them does.
    """

    def __init__(self, scheduler: Any, reason: str, remedies: Sequence[Remedy], otherwise: str = STANDARD) -> None:
        super().__init__(f"scheduler: {name_of(scheduler)} {reason}")
        self.scheduler, self.remedies, self.otherwise = scheduler, remedies, otherwise

    def with_remedy(self, works: Callable[[Any], bool]) -> ValueError:
        """The error with the first remedy that `works`."""
        found = next((remedy for remedy in self.remedies if self._does(remedy, works)), None)
        if found is None:
            return ValueError(f"{self}; use {self.otherwise}")
        return ValueError(f"{self}; use {found}{found.also} (without a method, too, its image is another one)")

    def _does(self, remedy: Remedy, works: Callable[[Any], bool]) -> bool:
        try:
            made = remedy.made(self.scheduler)
        except Exception:  # of whatever kind: a configuration that the class does not take
            return False
        return works(made)


def others(scheduler: Any) -> list[Remedy]:
    """Schedulers of other classes that a model of this one's may be stepped by; none where that is not known.

    A configuration that names no prediction is a flow's where it shifts, and else the noise's where it has betas. Of a
    preconditioned network (EDM) it names what is made of the output, which other classes would take for the output.
    """
    config = config_of(scheduler)
    if hasattr(scheduler, "precondition_outputs"):
        found = [Remedy(name) for name in PRECONDITIONED if _tells_as(getattr(diffusers, name)(), scheduler)]
        return [remedy for remedy in found if remedy.name != name_of(scheduler)]
    said = config.get("prediction_type")
    if said is None and "shift" in config:
        return [Remedy("FlowMatchEulerDiscreteScheduler")]
    if said is None and "beta_schedule" not in config:
        return []
    unbent = {"clip_sample": False, "thresholding": False}
    found = [
        Remedy("DPMSolverMultistepScheduler"), Remedy("DPMSolverMultistepScheduler", FOREIGN),
        Remedy("DPMSolverMultistepScheduler", FOREIGN | {"thresholding": False}),
        Remedy("DDIMScheduler", unbent), Remedy("DDIMScheduler", unbent | {"timestep_spacing": "leading"}),
    ]  # fmt: skip
    return [remedy for remedy in found if remedy.name != name_of(scheduler)]


def _tells_as(other: Any, scheduler: Any) -> bool:
    """Whether a preconditioned network is told the noise level in the same way by both."""
    tells, level = getattr(scheduler, "precondition_noise", None), torch.tensor(2.0)
    return tells is not None and bool(torch.isclose(tells(level), other.precondition_noise(level)))
