"""A path walked by deep copies of a real scheduler, and a pipeline small enough to run on every one of them.

The walk knows no solver. What a step multiplies its state and its prediction by is measured: the copy that stands at
the knot, with the history that the run has left in it, is stepped on ones and on zeros.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.moves import Denoise, Invert, Renoise, Shift

Levels = Callable[[int], tuple[float, float]]


class Net(nn.Module):
    """A bounded prediction that depends on everything; a `flat` one does not on state and time."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """`(B, …)`, of the state, the time and one number of condition a sample."""
        c = cond.reshape(-1, *[1] * (x.ndim - 1))
        if self.flat:
            return torch.arange(x[0].numel(), dtype=x.dtype).reshape(x[0].shape).sin() + 0.2 * c
        tame = x / (4 + x**2).sqrt()  # or roundings would grow over a run
        return tame + 0.3 * torch.cos(0.01 * t.to(x.dtype) + tame.roll(1, -1) * c) + 0.2 * c


class Pipe:
    """The denoising loop of diffusers' pipelines, and nothing else: guidance over one doubled batch."""

    def __init__(self, scheduler: Any, flat: bool = False) -> None:
        self.scheduler, self.unet = scheduler, Net(flat)

    def __call__(
        self,
        x: Tensor,
        steps: int,
        *,
        scale: float = 3.0,
        conds: Any = (1.0, -0.5),
        grid: Any = None,
        ended: bool = False,
        **extra: Any,
    ) -> Tensor:
        """The last state, from noise `x`.

        `grid` goes to `set_timesteps`, `extra` to every `step` that takes it. An `ended` loop leaves out the last time,
        as Sana-Sprint's does.
        """
        self.scheduler.set_timesteps(steps, **(grid or {}))
        x, cond = x * float(getattr(self.scheduler, "init_noise_sigma", 1.0)), self.conds(len(x), conds)
        taken, old, times = inspect.signature(self.scheduler.step).parameters, None, self.scheduler.timesteps
        kwargs = {name: value for name, value in extra.items() if name in taken}
        for k, t in enumerate(times[:-1] if ended else times):
            if "old_pred_original_sample" in taken:  # as the pipelines of CogVideoX
                kwargs |= {"old_pred_original_sample": old, "timestep_back": times[k - 1] if k else None}
            with torch.no_grad():
                uncond, cond_ = self.unet(torch.cat([self.shown(x, t)] * 2), t, cond).chunk(2)
                e = uncond + scale * (cond_ - uncond)
                x, *more = self.scheduler.step(model_output=e, timestep=t, sample=x, return_dict=False, **kwargs)
            old = more[0] if more else None
        return x

    def shown(self, x: Tensor, t: Tensor) -> Tensor:
        """What the model sees of the state."""
        scales = hasattr(self.scheduler, "scale_model_input")
        shown: Tensor = self.scheduler.scale_model_input(x, t) if scales else x
        return shown

    @staticmethod
    def conds(batch: int, conds: tuple[float, float]) -> Tensor:
        """The conditions of a doubled batch, unconditional first."""
        sample = 0.1 * torch.arange(batch)
        return torch.cat([cond + sample for cond in reversed(conds)])


@dataclass
class Stand:
    """A scheduler about to make a call, and what its pipeline would pass it.

    Attributes:
        calls: how many it has made. seed: of a source of noise of its own, where that is not the generator's.
    """

    scheduler: Any
    old: Any = None
    back: Any = None
    calls: int = 0
    seed: int | None = None


@dataclass
class Walk:
    """Walks paths from the state at knot 0.

    scheduler: with its grid set, and nothing stepped. groups: the calls of each step.
    scale, weak, conds: of the strong and the weak guidance, and the net's two conditions.
    generator: of the noise. extra: what goes to `step` besides.
    levels: `(α, σ)` of a knot, for Renoise.
    predict: `(x, t) -> (e_∅, e_c)` in place of the net's.
    prepare: called with a copy and a call's number, before the call is made.
    """

    scheduler: Any
    groups: Sequence[Sequence[int]]
    scale: float = 3.0
    weak: float = 0.0
    conds: tuple[float, float] = (1.0, -0.5)
    generator: torch.Generator | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    levels: Levels | None = None
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    prepare: Callable[[Any, int], None] = lambda scheduler, k: None

    def __call__(self, x: Tensor, path: Sequence[Any]) -> Tensor:
        self.net, self.stands, self.noise = Net(), {0: Stand(self.scheduler)}, dict[int, Any]()
        x, gap = x * float(getattr(self.scheduler, "init_noise_sigma", 1.0)), None
        for move in path:
            match move:
                case Denoise(i, j):
                    caught: list[Tensor] = []
                    x, self.stands[j] = self.leap(i, x, lambda y, k, s, c=caught: self.guided(y, k, s, c))
                    gap = caught[-1]
                case Invert(j, i, refine):
                    a, b = self.coefficients(i, x)
                    r, x_j = self.leap(i, torch.zeros_like(x), lambda y, k, s: torch.zeros_like(y))[0], x
                    for _ in range(1 + refine):
                        e = self.branches(x, self.groups[i][0], self.stands[i].scheduler)[1]
                        x = (x_j - r - b * e) / a
                case Shift(i, fresh):
                    if fresh:
                        e_s, e_w = self.branches(x, self.groups[i][0], self.stands[i].scheduler)
                        gap = e_s - e_w
                    a, b = self.coefficients(i, x)
                    x = x + (b / a) * gap
                case Renoise(j, i):
                    (alpha_i, sigma_i), (alpha_j, sigma_j) = self.levels(i), self.levels(j)
                    ratio = alpha_i / alpha_j
                    z = torch.randn(x.shape, generator=self.generator)
                    x = ratio * x + (sigma_i**2 - (ratio * sigma_j) ** 2) ** 0.5 * z
                    self.noise = {k: state for k, state in self.noise.items() if k < i}
                    self.stands[i] = self.begun(i)
        return x

    def begun(self, i: int) -> Stand:
        """The scheduler as it begins at knot `i`, with nothing behind it, and another source of noise of its own."""
        new = copy.deepcopy(self.scheduler)
        if hasattr(new, "_step_index"):
            new.set_begin_index(self.groups[i][0])
            new._step_index = self.groups[i][0]
        # A tree that grew of the generator's seed again would be the same tree.
        own = hasattr(new, "noise_sampler")
        return Stand(new, seed=int(torch.randint(2**63 - 1, (), generator=self.generator)) if own else None)

    def guided(self, x: Tensor, k: int, scheduler: Any, caught: list[Tensor]) -> Tensor:
        e_s, e_w = self.branches(x, k, scheduler)
        caught.append(e_s - e_w)
        return e_s

    def branches(self, x: Tensor, k: int, scheduler: Any) -> tuple[Tensor, Tensor]:
        """The strong and the weak prediction at call `k`."""
        t = self.scheduler.timesteps[k]
        if self.predict is not None:
            u, c = self.predict(x, t)
        else:
            shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            u, c = self.net(torch.cat([shown, shown]), t, Pipe.conds(len(x), self.conds)).chunk(2)
        return u + self.scale * (c - u), u + self.weak * (c - u)

    def leap(self, i: int, x: Tensor, predict: Callable[[Tensor, int, Any], Tensor]) -> tuple[Tensor, Stand]:
        """The calls of step `i` from `x`, by a copy of what stands there; the noise is what it was the first time."""
        stand, now = copy.deepcopy(self.stands[i]), self.random()
        if i in self.noise:
            self.random(self.noise[i])
        else:
            self.noise[i] = now
        for k in self.groups[i]:
            self.prepare(stand.scheduler, k)
            x = self.step(stand, predict(x, k, stand.scheduler), k, x)
        if self.noise[i] is not now:
            self.random(now)
        return x, stand

    def step(self, stand: Stand, e: Tensor, k: int, x: Tensor) -> Tensor:
        taken, times = inspect.signature(stand.scheduler.step).parameters, self.scheduler.timesteps
        generator = self.generator if stand.seed is None else torch.Generator().manual_seed(stand.seed)
        given = {"generator": generator, "old_pred_original_sample": stand.old, "timestep_back": stand.back}
        if "order" in taken:  # LMS' own is that of its place on the grid, whatever it remembers
            given["order"] = min(taken["order"].default, stand.calls + 1)
        kwargs = {name: value for name, value in {**given, **self.extra}.items() if name in taken}
        moved: Tensor
        moved, *more = stand.scheduler.step(model_output=e, timestep=times[k], sample=x, return_dict=False, **kwargs)
        stand.old, stand.back, stand.calls = more[0] if more else None, times[k], stand.calls + 1
        return moved

    def random(self, state: Any = None) -> Any:
        """The state of the source of noise, set to `state` if one is given."""
        if state is not None:
            (self.generator.set_state if self.generator else torch.set_rng_state)(state)
        return self.generator.get_state() if self.generator else torch.get_rng_state()

    def coefficients(self, i: int, x: Tensor) -> tuple[float, float]:
        """`a` and `b`, by what the step makes of ones and zeros, in float64; it leaves no trace."""
        zero, one = torch.zeros_like(x, dtype=torch.float64), torch.ones_like(x, dtype=torch.float64)
        made, now, known = [], self.random(), dict(self.noise)
        for state, e in ((zero, zero), (one, zero), (zero, one)):
            self.random(now)
            made.append(self.leap(i, state, lambda y, k, s, e=e: e)[0].double())
            self.noise = dict(known)
        self.random(now)
        return float((made[1] - made[0]).mean()), float((made[2] - made[0]).mean())
