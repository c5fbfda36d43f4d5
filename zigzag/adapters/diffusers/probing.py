"""What a scheduler really does: copies of it that can be stepped, and a solver held against its steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zigzag.solvers import Solver

__all__ = ["TOLERANCE", "detached", "first_mismatch", "input_factors", "name_of"]

TOLERANCE = 1e-6


def name_of(part: Any) -> str:
    """The class of a scheduler or a model, for messages."""
    return type(part).__name__


def detached(scheduler: Any) -> Any:
    """A copy that shares no state with the scheduler, its tensors on the host.

    What was set on the instance in place of a method (a pipeline's wrapper, say) is left behind: it would step the
    original.
    """
    new = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, Tensor):
            setattr(new, name, value.detach().cpu().clone())
        elif callable(value):
            del vars(new)[name]
        else:
            vars(new)[name] = copy.deepcopy(value)
    return new


def _rewound(scheduler: Any) -> Any:
    """A detached copy at the start of its grid, in float64 where it lets itself be."""
    new = detached(scheduler)
    for name, value in vars(new).items():
        if isinstance(value, Tensor) and value.is_floating_point() and name != "timesteps":
            setattr(new, name, value.double())
    if hasattr(new, "set_begin_index"):
        new._step_index = None
        new.set_begin_index(0)  # not by looking its times up, which finds the second of two equal ones
    if hasattr(new, "is_scale_input_called"):
        new.is_scale_input_called = True
    return new


def first_mismatch(scheduler: Any, solver: Solver, step_kwargs: Mapping[str, Any]) -> int | None:
    """The first step `k` whose `scheduler.step` is not `a·x + b·e` of `solver.step(k)` to 1e-6, or None.

    `x` and `e` are random, of magnitudes from 0.1 to 100, and fresh at every step: clamped, stochastic and multistep
    updates are not affine in them. They are exact in float32, to which some schedulers cast the state.
    """
    new = _rewound(scheduler)
    generator = torch.Generator().manual_seed(0)
    magnitude = torch.tensor([0.1, 1.0, 10.0, 100.0]).reshape(-1, 1, 1, 1)
    step_kwargs = {**step_kwargs, "return_dict": True}
    if "generator" in inspect.signature(type(new).step).parameters:
        step_kwargs["generator"] = generator  # never the global one
    # A step that draws noise all the same is about to be refused, and must leave no trace.
    with torch.random.fork_rng(devices=[]):
        for k, t in enumerate(new.timesteps):
            x, e = ((torch.randn(4, 3, 4, 4, generator=generator) * magnitude).double() for _ in range(2))
            theirs = type(new).step(new, e, t, x, **step_kwargs).prev_sample
            a, b = (float(c) for c in (solver.step(k).a, solver.step(k).b))
            if not ((theirs - (a * x + b * e)).abs() <= TOLERANCE * (abs(a) * x.abs() + abs(b) * e.abs())).all():
                return k
    return None


def input_factors(scheduler: Any) -> Tensor | None:
    """`(T,)` float64: what `scale_model_input` multiplies the state by at each time step; None if it never does.

    Raises:
        ValueError: where two equal time steps scale differently (the time then does not tell which), or the grid of
            a scheduler that scales has not been set.
    """
    if not hasattr(scheduler, "scale_model_input"):
        return None
    new, factors = _rewound(scheduler), []
    for k, t in enumerate(new.timesteps):
        if hasattr(new, "_step_index"):
            new._step_index = k
        factors.append(float(type(new).scale_model_input(new, torch.ones((), dtype=torch.float64), t)))
    if all(factor == 1 for factor in factors):
        return None
    if getattr(scheduler, "num_inference_steps", None) is None:
        raise ValueError(
            f"scheduler: {name_of(scheduler)} scales the model's input by its grid, which has not been set; call "
            "scheduler.set_timesteps first"
        )
    told: dict[float, float] = {}
    for t, factor in zip(new.timesteps.tolist(), factors, strict=True):
        if told.setdefault(t, factor) != factor:
            raise ValueError(
                f"scheduler: {name_of(scheduler)} scales the model's input at time step {t:g} by both {told[t]:.4g} "
                f"and {factor:.4g}, and a predictor is told the time only; raise sigma_min, or take fewer steps"
            )
    return torch.tensor(factors, dtype=torch.float64)
