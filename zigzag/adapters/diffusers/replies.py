"""What `step` gives back besides the state."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from zigzag.adapters.diffusers.noises import Answered
from zigzag.adapters.diffusers.rehearsal import Rehearsal
from zigzag.adapters.diffusers.stepping import Caller, begun_at, prepare

__all__ = ["Replies"]


class Replies:
    """Answers of `step` in the form that a scheduler gives them: a tuple, or its output class, with x₀ where it has it.

    Args:
        rehearsal: of the scheduler. begun: the call that the loop begins at. return_dict: what the pipeline asks for.
    """

    def __init__(self, rehearsal: Rehearsal, begun: int, return_dict: bool) -> None:
        self._rehearsal, self._begun = rehearsal, begun
        new, zero = begun_at(rehearsal.scheduler, begun), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        prepare(new, begun, begun, corrector=False)
        call = Caller(new, rehearsal.step_kwargs, return_dict=return_dict)
        with Answered(lambda shape, draw: torch.zeros(shape)):
            call(zero, zero, begun)
        self._like = call.answer

    def __call__(self, state: Tensor, x: Tensor, e: Tensor, call: int, clean: Tensor | None = None) -> Any:
        """The answer of a call at state `x` with prediction `e`, whose next state is `state`.

        `clean` is the x₀ to give, where it is not the scheduler's.
        """
        if clean is None:
            row = self._rehearsal.row(max(call, self._begun), self._begun)
            if row.clean is not None:
                p, q = row.clean
                clean = (p * x + q * e.to(x.dtype)).to(state.dtype)
        if isinstance(self._like, tuple):
            return (state, clean)[: len(self._like)]
        if isinstance(self._like, BaseOutput):
            return type(self._like)(**dict(zip(self._like, (state, clean), strict=False)))
        return SchedulerOutput(prev_sample=state)
