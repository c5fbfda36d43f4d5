"""diffusers' guiders as guidance rules."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.guiders.guider_utils import BaseGuidance
from torch import Tensor

from zigzag.guidance import Guidance
from zigzag.solvers import StepInfo

__all__ = ["from_guider"]

BRANCHES = ["pred_cond", "pred_uncond"]


def from_guider(guider: Any, steps: int | None = None) -> Guidance:
    """A guider of diffusers (CFG, APG, CFG-Zero*, tangential CFG, …) as a `Guidance`, on a copy of it.

    It joins predictions of the solver's own kind, as in diffusers' pipelines, and always has the conditional one.
    Call it once for each role: a guider with state (the momentum of APG) is refused as both strong and weak, and a
    walk begins by resetting it. Its momentum then gathers over all evaluations of its role, at steps that a path
    visits again too. A guider that is not of `diffusers.guiders` counts as one with state.

    Args:
        guider: any guider whose `forward` takes a conditional and an unconditional prediction.
        steps: the number of steps `T` of the solver, of which `start` and `stop` are fractions; needed where they
            are not 0 and 1.

    Raises:
        TypeError: for what is not a guider.
        ValueError: for one that needs more than two branches, or that changes the model between them (perturbed
            attention, skipped layers, AutoGuidance), and for an interval without `steps`; at a step, for a walk of
            more steps.
    """
    if not isinstance(guider, BaseGuidance):
        raise TypeError(f"guider must be one of diffusers.guiders, got {guider!r}")
    name = type(guider).__name__
    if list(guider._input_predictions or ()) != BRANCHES:
        extra = ", ".join(set(guider._input_predictions or ()) - set(BRANCHES))
        raise ValueError(
            f"guider: {name} takes more than the conditional and the unconditional prediction ({extra}); a Guidance "
            "has those two; use ClassifierFreeGuidance"
        )
    if type(guider).prepare_models is not BaseGuidance.prepare_models:
        raise ValueError(
            f"guider: {name} changes the model between its branches (prepare_models), and a Guidance never sees the "
            "model; pass the changed model as weak_fn, or use ClassifierFreeGuidance"
        )
    if steps is None and (guider._start, guider._stop) != (0.0, 1.0):
        raise ValueError(
            f"steps is missing: {name} guides from {guider._start:g} to {guider._stop:g} of the steps; pass steps="
        )
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps must be an integer from 1, got {steps!r}")
    rule = _Stateful(guider, steps)
    builtin = type(guider).__module__.startswith("diffusers.guiders.")
    return _Guided(guider, steps) if builtin and getattr(rule.guider, "momentum_buffer", None) is None else rule


class _Guided:
    """A guider that remembers nothing from one step to the next."""

    def __init__(self, guider: Any, steps: int | None) -> None:
        self.guider, self.steps = copy.deepcopy(guider), steps

    def __repr__(self) -> str:
        return f"from_guider({type(self.guider).__name__}, steps={self.steps})"

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        """`(cond, uncond)`: the conditional one always, the other where the guider guides."""
        self._enter(step)
        # CFG-Zero* returns zeros at its first steps, whatever the predictions are.
        zero = self.guider._enabled and step.i < getattr(self.guider, "zero_init_steps", 0)
        return True, self.guider.num_conditions > 1 and not zero

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        """The guider's prediction, in the shape of the branches."""
        self._enter(step)
        e: Tensor = self.guider.forward(pred_cond=e_c, pred_uncond=e_u).pred
        return e

    def _enter(self, step: StepInfo) -> None:
        if self.steps is not None and step.i >= self.steps:
            raise ValueError(f"steps={self.steps} of {self!r}, but the walk has a step {step.i}")
        self.guider.set_state(step=step.i, num_inference_steps=self.steps, timestep=torch.tensor(step.t))


class _Stateful(_Guided):
    """A guider that remembers: one instance a role."""

    def __init__(self, guider: Any, steps: int | None) -> None:
        super().__init__(guider, steps)
        self._pristine = copy.deepcopy(guider)
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the guider as it came, at its first step."""
        self.guider = copy.deepcopy(self._pristine)
        self.guider.set_state(step=0, num_inference_steps=self.steps, timestep=torch.tensor(0))
        self.guider.prepare_inputs({})  # where guiders make their buffers
