"""The noise levels that a scheduler's calls stand at, and whether its steps lead from one to the next.

A true pair is a datum `x₀` and a noise `ε` held through a run: `x_k = α_k x₀ + σ_k ε`, and `e_k` what a perfect model
predicts of it. A step that leads to its next knot turns true pairs into true pairs, multistep or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from zigzag.adapters.diffusers.rehearsal import Rehearsal, Row
from zigzag.adapters.diffusers.stepping import config_of

__all__ = ["PREDICTIONS", "Chain", "Feed", "chain_of", "feed_of", "off_knots"]

PREDICTIONS: Final = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "flow_prediction": "flow",
    "sample": "x0",
    "original_sample": "x0",
    "trigflow": "trigflow",
}
OFF: Final = 1e-5  # what is counted as off the knots; float32 tables of diffusers are so by 1e-6


class Feed(NamedTuple):
    """States and perfect predictions at every knot."""

    x: list[float]
    e: list[float]


@dataclass(frozen=True)
class Chain:
    """Knots and a prediction under which the calls of a run lead from knot to knot as well as any.

    Attributes:
        family: how the levels are read: "flow", "σ" (α = 1), "cos" (α² + σ² = 1) or another.
        prediction: what the model predicts: one of `Prediction`, "preconditioned" (EDM), "trigflow", or x₀ − ε, the
            "reversed flow".
        alphas, sigmas: the levels of the calls, and behind them the last knot's.
    """

    family: str
    prediction: str
    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]


def chain_of(rehearsal: Rehearsal) -> Chain | None:
    """The knots and prediction under which the run from the start chains best; None where no knots can be read."""
    best, least = None, (math.inf, math.inf)
    rows = rehearsal.rows()
    for family, alphas, sigmas in _levels(rehearsal.scheduler, rehearsal.calls):
        for prediction in _predictions(rehearsal.scheduler):
            chain = Chain(family, prediction, tuple(alphas), tuple(sigmas))
            if len(alphas) == len(rows):
                chain = _ended(rehearsal, rows, chain)
            off = [max(pair) for pair in zip(*off_knots(rehearsal.scheduler, rows, chain), strict=True)]
            counted = [value for value in off if value > OFF]
            if (rank := (len(counted), sum(counted))) < least:
                best, least = chain, rank
    return best


def feed_of(scheduler: Any, chain: Chain, x0: float, eps: float) -> Feed:
    """`x = α x₀ + σ ε` and what a perfect model says of it, at every knot."""
    x = [alpha * x0 + sigma * eps for alpha, sigma in zip(chain.alphas, chain.sigmas, strict=True)]
    return Feed(x, [_said(scheduler, chain, k, x0, eps) for k in range(len(x))])


def off_knots(scheduler: Any, rows: Sequence[Row], chain: Chain) -> tuple[list[float], list[float]]:
    """How far each row takes a true pair's data, and its noise, from those of the next knot, relative to its terms.

    What is drawn counts into the noise by its variance.
    """
    out = []
    for x0, eps in ((1.0, 0.0), (0.0, 1.0)):
        feed, off = feed_of(scheduler, chain, x0, eps), []
        for row in rows:
            end, terms = _end(row, feed, noisy=bool(eps))
            wanted = feed.x[row.k + 1]
            off.append(abs(end - wanted) / max(terms, abs(wanted), 1e-12))
        out.append(off)
    return out[0], out[1]


def _end(row: Row, feed: Feed, noisy: bool) -> tuple[float, float]:
    """Where a row leads, and the sum of what is added up in it."""
    parts = [row.a * feed.x[row.k], row.b * feed.e[row.k]]
    parts += [c * value for m, (u, v) in row.memory.items() for c, value in ((u, feed.x[m]), (v, feed.e[m]))]
    drawn = math.hypot(*row.noise, *row.old_noise.values()) if noisy else 0.0
    return math.hypot(sum(parts), drawn) if drawn else sum(parts), sum(map(abs, parts)) + drawn


def _ended(rehearsal: Rehearsal, rows: Sequence[Row], chain: Chain) -> Chain:
    """The chain with its last knot, which the model is never told: where the last step leads.

    That is a level of the training table, or clean data, where it is as good as one of them.
    """
    last = rehearsal.row(len(rows) - 1, len(rows) - 1)
    longer = Chain(chain.family, chain.prediction, (*chain.alphas, 1.0), (*chain.sigmas, 0.0))
    alpha, sigma = (_end(last, feed_of(rehearsal.scheduler, longer, x0, 1 - x0), noisy=not x0)[0] for x0 in (1.0, 0.0))
    table = getattr(rehearsal.scheduler, "alphas_cumprod", None)
    if isinstance(table, Tensor):
        near = torch.cat([table.detach().cpu().double(), torch.ones(1, dtype=torch.float64)])
        abar = float(near[(near.sqrt() - alpha).abs().argmin()])
        kept = abs(math.sqrt(1 - abar) - abs(sigma)) < 1e-3 or any(last.noise)  # whose variance may be another
        if abs(math.sqrt(abar) - alpha) < OFF and kept:
            alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
    return Chain(chain.family, chain.prediction, (*chain.alphas, alpha), (*chain.sigmas, abs(sigma)))


def _levels(scheduler: Any, calls: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """`(family, α, σ)` at the knots, in every way that the scheduler's attributes can be read; some lack the last."""
    sigma = _numbers(scheduler, "sigmas")
    if len(sigma) >= calls:
        sigma = [*sigma, 0.0][: calls + 1]
        if config_of(scheduler).get("invert_sigmas"):  # it counts up what there is of the data
            yield "flow", sigma, [1 - s for s in sigma]
            return
        if max(sigma) <= 1:
            yield "flow", [1 - s for s in sigma], sigma
        yield "σ", [1.0] * len(sigma), sigma
        yield "cos", [1 / math.hypot(1, s) for s in sigma], [s / math.hypot(1, s) for s in sigma]
        between = _numbers(scheduler, "sigmas_interpol")
        if len(between) >= calls:
            odd = [between[k] if k % 2 and k < calls else s for k, s in enumerate(sigma)]
            yield "σ, σ_interpol", [1.0] * len(odd), odd
    alphas, betas = _numbers(scheduler, "alphas"), _numbers(scheduler, "betas")
    if len(alphas) == len(betas) == calls + 1:
        yield "α, β", alphas, betas
    times, table = scheduler.timesteps.detach().cpu(), _numbers(scheduler, "alphas_cumprod")
    if table and not times.is_floating_point() and int(times.min()) >= 0 and int(times.max()) < len(table):
        abar = [table[t] for t in times.tolist()[:calls]]
        yield "cos", [math.sqrt(a) for a in abar], [math.sqrt(1 - a) for a in abar]
    if times.is_floating_point() and float(times.max()) <= math.pi / 2 + 0.01:
        yield from _of_times(scheduler, [*times.tolist(), 0.0][: calls + 1])


def _of_times(scheduler: Any, t: list[float]) -> Iterator[tuple[str, list[float], list[float]]]:
    cos, sin = [max(math.cos(s), 0.0) for s in t], [math.sin(s) for s in t]  # π/2 may be rounded up
    if (data := config_of(scheduler).get("sigma_data")) is not None:
        yield "cos t, σ_data sin t", cos, [s * data for s in sin]
    yield "cos", cos, sin
    if max(t) <= 1:
        yield "flow", [1 - s for s in t], t
        if hasattr(scheduler, "_alpha_cumprod"):
            abar = scheduler._alpha_cumprod(torch.tensor(t, dtype=torch.float64), torch.device("cpu")).tolist()
            yield "cos", [math.sqrt(a) for a in abar], [math.sqrt(1 - a) for a in abar]


def _numbers(scheduler: Any, name: str) -> list[float]:
    """An attribute that is a one-dimensional tensor of numbers, as these; else none."""
    value = getattr(scheduler, name, None)
    if not isinstance(value, Tensor) or value.ndim != 1 or not value.is_floating_point():
        return []
    numbers: list[float] = value.detach().cpu().double().tolist()
    return numbers


def _predictions(scheduler: Any) -> list[str]:
    if hasattr(scheduler, "precondition_outputs"):
        return ["preconditioned"]
    if config_of(scheduler).get("invert_sigmas"):
        return ["reversed flow"]
    said = config_of(scheduler).get("prediction_type")
    return [PREDICTIONS[said]] if said in PREDICTIONS else ["flow", "epsilon", "v", "x0"]


def _said(scheduler: Any, chain: Chain, k: int, x0: float, eps: float) -> float:
    """What a perfect model says at knot `k`."""
    alpha, sigma = chain.alphas[k], chain.sigmas[k]
    match chain.prediction:
        case "epsilon":
            return eps
        case "x0":
            return x0
        case "flow":
            return eps - x0
        case "reversed flow":
            return x0 - eps
        case "v":
            return (alpha * eps - sigma * x0) / max(math.hypot(alpha, sigma), 1e-12)
        case "trigflow":
            data = float(config_of(scheduler).get("sigma_data", 1.0))
            return alpha * eps * data - math.sqrt(max(1 - alpha**2, 0.0)) * x0
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)  # preconditioned, as EDM
    level = torch.tensor(sigma, dtype=torch.float64)
    skip = float(scheduler.precondition_outputs(one, zero, level))
    out = float(scheduler.precondition_outputs(zero, one, level))
    return (x0 - skip * (alpha * x0 + sigma * eps)) / out if out else 0.0
