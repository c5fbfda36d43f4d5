"""Ways to sample a learned model, each with the plain guidance that a fair comparison sets beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Final

import torch
from torch import Tensor

from zigzag.checks import as_guidance
from zigzag.evaluation.named import name_of
from zigzag.evaluation.solvers import Made, make_solver
from zigzag.guidance import Guidance, State
from zigzag.guidance.base import reading
from zigzag.matched import matched_cfg
from zigzag.methods import Method, Resampling, Standard, Steered, ZSampling, is_steered
from zigzag.rows import count_rows
from zigzag.sampling import Predictor, noise_like, sample
from zigzag.solvers import DDIM, FlowEuler, Solver, StepInfo
from zigzag.trace import Trace
from zigzag.zoo.learned import LearnedModel

__all__ = ["Sampler", "baselines", "noisy"]


_ARGUMENTS: Final = {
    "weak_prompt": "weak_cond", "weak_negative_prompt": "weak_uncond",
    "plain_prompt": "plain_cond", "plain_negative_prompt": "plain_uncond",
}  # fmt: skip


@dataclass(frozen=True)
class Sampler:
    """A way to sample: all that its images depend on, besides model, prompt and noise.

    Attributes:
        method: the path. steps: of the model's solver. strong, weak: guidance scales w, or any rules.
        matched: a method at whose matched scale (`zigzag.matched_cfg`) the strong guidance is, in place of `strong`.
        error: size s of a Gaussian error in the weak prediction, `noisy`.
        weak_prompt: the prompt of the weak predictions' conditional branch, in place of each sample's own.
        weak_negative_prompt: that of their unconditional branch, in place of the empty one.
        weak_fn: a function of the model that makes another predictor, for the weak predictions.
        strong_fn: the same in place of the model's own predictor, for all predictions of which nothing else is said.
        plain, plain_prompt, plain_negative_prompt, plain_fn: guidance, prompts and predictor of the Denoise moves that
            are plain, of a method that has any; what is not given is that of the strong ones.
        solver: by name, on the grid of the model's own (`zigzag.evaluation.solvers`); a function of the model's own; or
            one that has `steps` steps and predicts what the model does.

    Raises:
        TypeError: for a guidance that is neither a number nor a rule, and for another role that is none.
        ValueError: for `matched` beside `error` or another role, `error` beside another predictor, and a prompt of a
            role whose scale has no use for it.
    """

    method: Method | Steered
    steps: int
    strong: float | Guidance
    weak: float | Guidance = 0.0
    matched: Method | None = None
    error: float = 0.0
    solver: Made = "ddim"
    weak_prompt: str | None = None
    weak_fn: Callable[[LearnedModel], Predictor] | None = None
    strong_fn: Callable[[LearnedModel], Predictor] | None = None
    plain_fn: Callable[[LearnedModel], Predictor] | None = None
    weak_negative_prompt: str | None = None
    plain: float | Guidance | None = None
    plain_prompt: str | None = None
    plain_negative_prompt: str | None = None

    def __post_init__(self) -> None:
        if self.matched is not None and (self.error or self.other_role):
            what = "another role" if self.other_role else "an error"
            raise ValueError(f"matched must be alone: a path with {what} has no matched scale")
        fns = {name: getattr(self, name) for name in ("strong_fn", "weak_fn", "plain_fn")}
        if self.error and any(fn is not None for fn in fns.values()):
            raise ValueError("error must be alone: it is an error in the model's own prediction, not in another's")
        self._check_prompts()
        for name, fn in fns.items():
            if fn is not None and (isinstance(fn, type) or not callable(fn)):
                raise TypeError(f"{name} must be a function of the model, got {fn!r}")
        # Equal samplers are written alike: 4 == 4.0, but not on disk.
        for name in ("strong", "weak", "plain", "error"):
            value = getattr(self, name)
            if isinstance(value, Real):
                object.__setattr__(self, name, float(value))
            elif name == "plain" and value is None:
                continue
            elif name == "error" or isinstance(value, type) or not isinstance(value, Guidance):
                wanted = "a number" if name == "error" else "a number or a Guidance (branches() and a call)"
                raise TypeError(f"{name} must be {wanted}, got {name_of(value)}")

    def _check_prompts(self) -> None:
        for name, text in self.prompts.items():
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a text, got {text!r}")
            role, _, branch = name.partition("_")
            scale = self.strong if (given := getattr(self, role)) is None else given
            if branch == "prompt" and scale == 0:
                raise ValueError(
                    f"{name} is read by no prediction at {role}=0, which is unconditional; pass {role}=1.0"
                )
            if branch == "negative_prompt" and scale == 1:
                raise ValueError(f"{name} is read by no prediction at {role}=1, which is conditional; pass {role}=0.0")

    def __hash__(self) -> int:
        """Also where a rule or a method of one's own has equality and no hash: then its kind is what is hashed."""
        return hash(tuple(_hash(value) for value in vars(self).values()))

    @property
    def other_role(self) -> bool:
        """Whether weak or plain predictions are of another prompt or network, and so no scale of the same gap."""
        return bool(self.prompts) or any(own is not None for own in (self.weak_fn, self.plain, self.plain_fn))

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts of its own, of weak and plain predictions, by the names that they have here."""
        named = {name: getattr(self, name) for name in _ARGUMENTS}
        return {name: text for name, text in named.items() if text is not None}

    @property
    def standard(self) -> Sampler:
        """Standard sampling with the same steps, scales and strong network, and nothing else of it."""
        none: dict[str, Any] = dict.fromkeys((*_ARGUMENTS, "matched", "weak_fn", "plain", "plain_fn"))
        return replace(self, method=Standard(), error=0.0, **none)

    def guidance(self, solver: Solver) -> float | Guidance:
        """The strong guidance.

        Raises:
            ValueError, TypeError: if a method, or a rule, has no matched scale.
        """
        return self.strong if self.matched is None else matched_cfg(self.matched, solver, self.strong, self.weak)

    def rows(self, own: Callable[[int], Solver] | None = None) -> int:
        """Model rows per sample.

        Args:
            own: the model's solver of a number of steps (`LearnedModel.solver`). Only a rule whose branches depend on
                levels or times, or a solver of one's own, needs to be told.

        Raises:
            ValueError: as `walk`, for steps, a scale or a method out of range.
            TypeError: for a method that is steered by its walk: its verdicts have the rows that ran.
        """
        if not isinstance(self.method, Method):
            raise TypeError(f"{self.method!r} is steered by its walk: its rows are known when it has run")
        solver = self.solver_on(self._grid(own))
        strong, weak = as_guidance("strong", self.guidance(solver)), as_guidance("weak", self.weak)
        given = [_ARGUMENTS[name].split("_") for name in self.prompts]
        other = {role: [branch for its, branch in given if its == role] for role in ("weak", "plain")}
        return count_rows(
            self.method, solver, _Branches(strong), _Branches(weak),
            self.error != 0 or self.weak_fn is not None or other["weak"],
            None if self.plain is None else _Branches(as_guidance("plain", self.plain)),
            self.plain_fn is not None or other["plain"],
        )  # fmt: skip

    def expected_rows(self, own: Callable[[int], Solver] | None = None) -> int:
        """`rows`; of a method that is steered by its walk, for want of better, those of standard sampling."""
        return (self.standard if is_steered(self.method) else self).rows(own)

    def _grid(self, own: Callable[[int], Solver] | None) -> Solver:
        if own is not None:
            return own(self.steps)
        if isinstance(self.solver, Solver):
            return self.solver
        # Any grid: a flow's has exact scales, an ε-model's takes every solver.
        return FlowEuler.uniform(self.steps) if self.solver == "ddim" else DDIM.karras(self.steps)

    def solver_of(self, model: LearnedModel) -> Solver:
        """The solver, on the model's grid.

        Raises:
            ValueError: for a solver that there is not, or not for this model, and for steps out of range.
        """
        return self.solver_on(model.solver(self.steps))

    def solver_on(self, grid: Solver) -> Solver:
        """The solver, on a grid of `steps` steps; raises as `solver_of`."""
        return make_solver(self.solver, grid)

    def draw(
        self,
        model: LearnedModel,
        prompts: Sequence[str],
        x: Tensor,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        """The images of prompts from noise `x` `(B, 3, 32, 32)`, in [0, 1].

        Args:
            generator: of the noise that a Renoise, a stochastic solver or an error adds.

        Raises:
            ValueError: for an unknown word, and as `walk`.
        """
        solver = self.solver_of(model)
        count = len(prompts)
        cond, uncond = model.encode(prompts), model.encode([""] * count)
        weak_fn, plain_fn = (None if fn is None else fn(model) for fn in (self.weak_fn, self.plain_fn))
        roles: dict[str, Any] = {_ARGUMENTS[name]: model.encode([text] * count) for name, text in self.prompts.items()}
        x = sample(
            model.eps_fn if self.strong_fn is None else self.strong_fn(model), x, solver, self.method,
            cond=cond, uncond=uncond, strong=self.guidance(solver), weak=self.weak,
            weak_fn=noisy(model.eps_fn, self.error, generator, count) if self.error else weak_fn,
            plain=self.plain, plain_fn=plain_fn, generator=generator, trace=trace, **roles,
        )  # fmt: skip
        return model.decode(x)


class _Branches:
    """The branches of a rule without the rule, which may want images of the states that rows are counted with."""

    needs_state = True  # of its shape: a rule may need no branch

    def __init__(self, guidance: Guidance) -> None:
        self.branches = guidance.branches

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo, state: State | None = None) -> Tensor:
        return reading(self, state).x


def _hash(value: object) -> int:
    try:
        return hash(value)
    except TypeError:
        return hash(type(value))


def baselines(
    sampler: Sampler,
    own: Callable[[int], Solver] | None = None,
    rows: Callable[[Sampler], int] | None = None,
) -> dict[str, Sampler]:
    """What a method is compared with, besides standard sampling: plain CFG at the matched scale, step by step
    ("matched scale"), and plain CFG with at least as many rows, that is, with more steps ("same rows"); without those
    that are standard sampling, that a method which is steered by its walk, whose rows and scale are not known
    beforehand, that a plain step, a rule which is not linear in the gap, or another role does not have, or that a
    solver of one's own has no grid for.

    Args:
        own: as in `Sampler.rows`.
        rows: that of a sampler, by default `Sampler.rows`; a pipeline runs branches that no scale needs.
    """
    method, steps = sampler.method, sampler.steps
    count = rows or (lambda s: s.rows(own))
    plain = sampler.standard
    found: dict[str, Sampler] = {}
    if isinstance(method, Standard) or not isinstance(method, Method):
        return found
    scaled = not isinstance(method, Resampling) and not (isinstance(method, ZSampling) and method.released)
    if scaled and sampler.strong != sampler.weak and not sampler.other_role:
        matched = replace(plain, matched=method)
        with suppress(TypeError):  # of a path, or of a rule, that has none
            matched.rows(own)
            found["matched scale"] = matched
    longer = math.ceil(steps * count(sampler) / count(plain))
    if longer != steps and not isinstance(sampler.solver, Solver):
        found["same rows"] = replace(plain, steps=longer)
    return found


def noisy(eps_fn: Predictor, s: float, generator: torch.Generator | None, count: int | None = None) -> Predictor:
    r"""A predictor with a Gaussian error of relative size s in each sample, of `count` (all by default).

    .. math:: e + s·(‖e‖/‖z‖)·z, \qquad z \sim N(0, I)

    Both halves of a doubled batch get the error of the first: then it is that of the guided prediction, whose weights
    sum up to 1, at any scale. Source: Z-Sampling, equation 14.
    """

    def predict(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        e = eps_fn(x, t, cond)
        first = e[:count]
        z = noise_like(first, generator)
        size = [torch.linalg.vector_norm(v.flatten(1), dim=1)[:, None, None, None] for v in (first, z)]
        error: Tensor = s * (size[0] / size[1]) * z
        return e + error.repeat(len(e) // len(first), 1, 1, 1)

    return predict
