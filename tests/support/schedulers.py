"""diffusers' schedulers, widened to float64, and their steps held against a solver's with the history they keep."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from zigzag.solvers import Solver

EPS = torch.finfo(torch.float64).eps
SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class _Double:
    """The module torch, whose float32 is float64: several schedulers cast the state to float32 inside a step."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


@contextmanager
def widened(scheduler: Any) -> Iterator[Any]:
    """The scheduler with its tables as float64 (the numbers stay those of its own), and no cast to float32."""
    for name, value in vars(scheduler).items():
        if isinstance(value, Tensor) and value.is_floating_point() and name != "timesteps":
            setattr(scheduler, name, value.double())
    if hasattr(scheduler, "is_scale_input_called"):
        scheduler.is_scale_input_called = True
    with patch.object(sys.modules[type(scheduler).__module__], "torch", _Double()):
        yield scheduler


def model(x: Tensor, i: int) -> Tensor:
    """Any smooth prediction will do: the schedulers never look at where it came from."""
    return (1.3 * x + i).sin() + 0.5 * x / (1 + x.abs())


def start(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def levels(sigmas: Tensor, flow: bool = False) -> tuple[Tensor, Tensor]:
    """`(α, σ)` of a table of σ/α, variance preserving; of a flow's σ."""
    if flow:
        return 1 - sigmas, sigmas
    alphas = 1 / (sigmas**2 + 1).sqrt()
    return alphas, sigmas * alphas


def check_history(
    scheduler: Any, solver: Solver, x: Tensor, *, skip: int = 0, generators: bool = False, **options: Any
) -> None:
    """Each step of the scheduler, along its own trajectory, with the memory of that trajectory; from step `skip` on.

    Bound: 64 roundings of all terms, those of x₀ included, which most compute on the way. Log-SNRs are rounded by their
    own size, and differences of them divided by the step.
    """
    T = len(solver)
    lam = (solver.alphas / solver.sigmas).log()
    finite = lam[torch.isfinite(lam)]
    lost = 1.0 + float(finite.abs().max() / finite.diff().min()) if solver.memory else 1.0 + float(finite.abs().max())
    memory: list[Tensor] = []
    ours_from, theirs_from = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    if generators:
        options["generator"] = theirs_from
    with widened(scheduler):
        for i, t in enumerate(scheduler.timesteps[:T]):
            if not t.is_floating_point():
                t = t.item()  # what a scheduler multiplies it by would be float32
            e, step = model(x, i), solver.step(i, None, range(i))
            theirs = scheduler.step(e, t, x, **options).prev_sample
            z = torch.randn(x.shape, generator=ours_from, dtype=x.dtype) if step.noisy else None
            latest = memory[::-1][: len(step.memory)]
            ours = step.forward(x, e, step.remainder(latest, z))
            alpha_i, sigma_i = float(solver.alphas[i]), float(solver.sigmas[i])
            x0 = (x.abs() + sigma_i * e.abs()) / max(alpha_i, 1e-3)
            terms = [(step.a, x), (step.b, e), (1.0, x0), *zip(step.memory, latest, strict=True)]
            size = sum(abs(k) * v.abs() for k, v in terms) + (0 if z is None else abs(step.noise) * z.abs())
            gap = (ours - theirs).abs()
            if i >= skip:
                assert (gap <= 64 * EPS * lost * size).all(), f"step {i}: {(gap / (64 * EPS * lost * size)).max():.3g}"
            memory.append(solver.remember(i, x, e))
            x = theirs
