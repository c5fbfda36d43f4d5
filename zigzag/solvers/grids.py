"""Grids of knots, as users give them: checked, as host tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor

__all__ = [
    "Coefficient",
    "Grid",
    "Prediction",
    "Said",
    "check_grid",
    "check_prediction",
    "check_said",
    "check_steps",
    "descending",
    "even",
    "grid",
    "host",
    "model_times",
]

Coefficient: TypeAlias = "float | Tensor"
Prediction: TypeAlias = Literal["epsilon", "x0", "v", "flow"]
# What a model may say, of which a solver steps on the first four: `adapt_prediction` leads from the others to them.
Said: TypeAlias = Literal["epsilon", "x0", "v", "flow", "flow_to_data", "score"]
Grid: TypeAlias = "Tensor | Sequence[float]"


def check_prediction(name: str, kind: object) -> Prediction:
    """`kind`, if it is a prediction.

    Raises:
        ValueError: if it is not, naming those there are.
    """
    return cast(Prediction, _one_of(name, kind, get_args(Prediction)))


def check_said(name: str, kind: object) -> Said:
    """`kind`, if it is something that a model may predict.

    Raises:
        ValueError: if it is not, naming those there are.
    """
    return cast(Said, _one_of(name, kind, get_args(Said)))


def _one_of(name: str, kind: object, kinds: tuple[str, ...]) -> object:
    if kind not in kinds:
        raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {kind!r}")
    return kind


def host(values: Grid, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers as an ordinary host tensor of their own, whatever the default device and dtype, and the mode.

    A solver that is built under `torch.inference_mode()`, in a context of the meta device or while the default dtype
    is bfloat16 is the same solver. Without a `dtype`, integers are int64 and everything else float64.
    """
    if not isinstance(values, Tensor):
        whole = dtype is None and all(isinstance(value, int) for value in values)
        values = torch.tensor(list(values), dtype=torch.int64 if whole else dtype or torch.float64, device="cpu")
    with torch.inference_mode(False), torch.no_grad():
        kept = values.detach().cpu().clone()
        return kept.to(dtype or (torch.float64 if kept.is_floating_point() else torch.int64))


def even(begin: float, end: float, count: int) -> Tensor:
    """`count` evenly spaced float64 numbers from `begin` to `end`, on the host."""
    return torch.linspace(begin, end, count, dtype=torch.float64, device="cpu")


def grid(name: str, values: Grid) -> Tensor:
    """A user's grid as a float64 host tensor.

    Raises:
        TypeError: for what is not a tensor or a sequence of numbers.
        ValueError: unless it is one-dimensional with at least two knots, and finite.
    """
    try:
        g = host(values, torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor or a sequence of numbers, got {type(values).__name__}") from error
    if g.ndim != 1 or len(g) < 2:
        raise ValueError(f"{name} must be one-dimensional with at least two knots, got shape {tuple(g.shape)}")
    if not torch.isfinite(g).all():
        raise ValueError(f"{name} must be finite, got {g.tolist()}")
    return g


def descending(name: str, values: Grid, top: float, top_name: str) -> Tensor:
    """A user's grid that falls strictly from at most `top` to at least 0, as a float64 host tensor.

    Raises:
        TypeError, ValueError: as `grid`, and where it leaves `[0, top]` or does not descend, naming the knot. An
            ascending grid is not sorted silently.
    """
    g = grid(name, values)
    if (g < 0).any() or (g > top).any():
        raise ValueError(f"{name} must lie in [0, {top_name}], got {g.min():g} to {g.max():g}")
    if not (g[1:] < g[:-1]).all():
        i = int((g[1:] >= g[:-1]).nonzero()[0])
        raise ValueError(
            f"{name} must descend strictly, noise to data, got {g[i]:.6g} at knot {i} and {g[i + 1]:.6g} at {i + 1}"
        )
    return g


def model_times(values: Grid) -> Tensor:
    """The times told to the model: int64 where integers came, float64 otherwise."""
    return host(values)


def check_steps(steps: int, most: int | None = None) -> None:
    """Raises TypeError or ValueError unless `steps` is an integer from 1 (to `most`)."""
    if not isinstance(steps, int):
        raise TypeError(f"steps must be an integer, got {steps!r}")
    if steps < 1 or (most is not None and steps > most):
        raise ValueError(f"steps must be at least 1{f' and at most {most}' if most else ''}, got {steps}")


def check_grid(name: str, alphas: Tensor, sigmas: Tensor, times: Tensor) -> None:
    """Raises ValueError unless the levels are of one length, not negative and monotone from noise to data."""
    knots = len(alphas)
    if sigmas.shape != alphas.shape:
        raise ValueError(f"{name}: alphas and sigmas differ in length, {knots} and {len(sigmas)}")
    if times.shape != (knots - 1,):
        raise ValueError(
            f"{name}: times must have {knots - 1} entries for {knots} knots, got shape {tuple(times.shape)}; "
            "the model is never evaluated at the last knot, which is data"
        )
    if not torch.isfinite(times).all():
        raise ValueError(f"{name}: times must be finite, got {times.tolist()}")
    if (alphas < 0).any() or (sigmas < 0).any():
        raise ValueError(f"{name}: alphas and sigmas must not be negative")
    # alpha_j·sigma_i − alpha_i·sigma_j > 0 says that the signal-to-noise ratio rises, without dividing by zero.
    rises = alphas[1:] * sigmas[:-1] - alphas[:-1] * sigmas[1:] > 0
    if not rises.all():
        i = int((~rises).nonzero()[0])
        raise ValueError(
            f"{name}: the knots must be strictly monotone from noise to data, but alpha/sigma does not rise from knot "
            f"{i} ({alphas[i]:.6g}/{sigmas[i]:.6g}) to {i + 1} ({alphas[i + 1]:.6g}/{sigmas[i + 1]:.6g})"
        )
