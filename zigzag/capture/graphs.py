"""Whole steps as CUDA graphs: model rows, guidance and affine update of a move in one replay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from zigzag.capture.cuda import Recording, can_record
from zigzag.capture.fed import buffered, check_device, fed, resettling, sources
from zigzag.capture.followed import Followed
from zigzag.capture.kernels import combine, compiled_combine
from zigzag.capture.rows import plan_rows
from zigzag.capture.table import Carry, Kind, Plan, step_function
from zigzag.checks import Given, Settled, check_generator, settle
from zigzag.conditions import MISSING
from zigzag.guidance import Guidance
from zigzag.held import Held
from zigzag.methods import Method
from zigzag.model import Model, Models, Predictor
from zigzag.moves import Move
from zigzag.noise import Generators, noise_of
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype

__all__ = ["CapturedLoop", "TableLoop", "capture"]


class TableLoop:
    """The loop of `zigzag.sample` on tables, with the step functions run as they are, on any device.

    It is what `CapturedLoop` captures, and gives the same bits. State, conditions, coefficients and what a solver
    remembers live in buffers of its own; a run writes its inputs into them, and begins with nothing remembered.

    A run begins with what the caller's conditions hold then: tensors of them that were written to are copied anew. They
    are held weakly, and so is what they are views of. What is written during a run is of the next one, and another
    tensor in a container is not seen before the container is passed again.

    Args:
        compiled: combine predictions and state by `zigzag.capture.kernels.compiled_combine`, the same to rounding,
            which pays for large latents on a CPU. The others are those of `sample`.
    """

    def __init__(
        self,
        eps_fn: Predictor,
        x: Tensor,
        solver: Solver,
        method: Method | Sequence[Move],
        *,
        cond: Any,
        uncond: Any = MISSING,
        strong: float | Guidance = 5.5,
        weak: float | Guidance = 0.0,
        weak_fn: Predictor | None = None,
        weak_cond: Any = MISSING,
        weak_uncond: Any = MISSING,
        plain: float | Guidance | None = None,
        plain_fn: Predictor | None = None,
        plain_cond: Any = MISSING,
        plain_uncond: Any = MISSING,
        batched: bool | Literal["auto"] = "auto",
        compiled: bool = False,
    ) -> None:
        given = (
            Given(strong, eps_fn, cond, uncond),
            Given(weak, weak_fn, weak_cond, weak_uncond),
            Given(plain, plain_fn, plain_cond, plain_uncond),
        )
        settled = settle(x, solver, method, *given, batched=batched)
        for _, _, conditions in settled.predictors:
            check_device(conditions, x.device)
        own = {
            "weak_cond": weak_cond, "weak_uncond": weak_uncond, "plain_cond": plain_cond, "plain_uncond": plain_uncond
        }  # fmt: skip
        self._sources = sources(own)
        self._settle, self._given = resettling(x, solver, method, given)
        self.shape, self.dtype, self.device, self.solver = x.shape, x.dtype, x.device, solver
        with torch.inference_mode(False), torch.no_grad():  # what is made in that mode cannot be written to outside it
            self._allocate(x, settled, compiled_combine if compiled else combine)
            has = {branch for its in self.conditions for branch in its.each}
            passed = {"cond": cond, "uncond": uncond, **own}
            self._followed = Followed()
            self._followed.copy(
                fed(self.conditions, self._sources, {name: passed[name] for name in passed if name in has})
            )

    def _allocate(self, x: Tensor, settled: Settled, how: Callable[..., Tensor]) -> None:
        self.plan = self._planned(settled)
        kinds = self.plan.kinds
        like = torch.zeros_like(x, dtype=state_dtype(x.dtype), requires_grad=False)  # in the memory layout of x

        def buffer(used: bool = True) -> Tensor:
            return torch.zeros_like(like) if used else like.new_zeros(0)

        depth, numel = self.plan.depth, like.numel()
        memory = like.new_zeros(depth * numel).as_strided((depth, *like.shape), (numel, *like.stride()))
        before, strong = any(kind.rule for kind in kinds), any(kind.keeps_strong for kind in kinds)
        self.carry = Carry(like, buffer(), buffer(), memory, buffer(before), buffer(strong))
        self.noise = buffer()
        self.k = torch.zeros(1, dtype=torch.int64, device=x.device)
        self.conditions = [buffered(conditions) for _, _, conditions in settled.predictors]
        self.models = Models(
            [Model(name, fn, own, x) for (name, fn, _), own in zip(settled.predictors, self.conditions, strict=True)],
            self.solver, x,
        )  # fmt: skip
        self.steps = {kind: step_function(kind, self.plan, self.models, how) for kind in dict.fromkeys(kinds)}

    @property
    def rows(self) -> int:
        """Model rows per sample of a run."""
        return sum(kind.rows for kind in self.plan.kinds)

    @torch.no_grad()
    def __call__(
        self,
        x: Tensor,
        *,
        cond: Any = MISSING,
        uncond: Any = MISSING,
        weak_cond: Any = MISSING,
        weak_uncond: Any = MISSING,
        plain_cond: Any = MISSING,
        plain_uncond: Any = MISSING,
        strong: float | Guidance | None = None,
        weak: float | Guidance | None = None,
        plain: float | Guidance | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """The state at the end of the path from `x`; what is not passed is what was passed last, as it is by now.

        Args:
            x: the shape, dtype and device of the `x` that the loop was made with.
            cond, uncond, weak_cond, weak_uncond, plain_cond, plain_uncond: conditions of the same structure and shapes
                as before, of branches that the loop was made with.
            strong, weak, plain: new scales, as long as they need the same branches.
            generator: for the noise of Renoise and of stochastic steps, or a list of one a sample, drawn as `sample`
                draws it.

        Raises:
            ValueError: for another shape, dtype or device, for conditions of another structure, and for scales that
                need other branches: a new loop has to be made for them.
        """
        self._check(x)
        check_generator(generator, len(x))
        given = {
            "cond": cond, "uncond": uncond, "weak_cond": weak_cond, "weak_uncond": weak_uncond,
            "plain_cond": plain_cond, "plain_uncond": plain_uncond,
        }  # fmt: skip
        new = fed(self.conditions, self._sources, given)
        self._rescale(strong, weak, plain)
        self._followed.copy(new)
        self.carry.x.copy_(x)
        if self.plan.depth:
            self.carry.memory.zero_()  # what a step does not read it multiplies by 0, and that must be a number
        self.carry.gap.zero_()  # a rule finds zeros where there is no gap before
        self.k.zero_()
        kept, loaded = Held(noise_of(generator)), None
        for kind, held in zip(self.plan.kinds, self.plan.noise, strict=True):
            z = None if held is None else kept.noise(held, self.carry.x)
            if z is not None and z is not loaded:
                self.noise.copy_(z)
                loaded = z
            self._advance(kind)
        return self.carry.x.to(self.dtype, copy=True)

    def _check(self, x: Tensor) -> None:
        if (x.shape, x.dtype, x.device) != (self.shape, self.dtype, self.device):
            made, got = (self.shape, self.dtype, self.device), (x.shape, x.dtype, x.device)
            raise ValueError(f"x must be as this loop was made for, {made}, got {got}; make a new loop for it")

    def _advance(self, kind: Kind) -> None:
        """One step, from buffers to buffers."""
        self.steps[kind](self.k, self.carry, self.noise)
        self.k.add_(1)

    def _planned(self, settled: Settled) -> Plan:
        rows = plan_rows(settled, self.solver)
        return Plan.of(rows, self.solver, self.device, state_dtype(self.dtype))

    def _rescale(self, *rules: float | Guidance | None) -> None:
        """Of strong, weak and plain predictions."""
        if all(rule is None for rule in rules):
            return
        roles = zip(self._given, rules, strict=True)
        given = tuple(role if rule is None else role._replace(rule=rule) for role, rule in roles)
        new = self._planned(self._settle(*given))
        self.plan.check(new)
        self.plan.refill(new)
        self._given = given


class CapturedLoop(TableLoop):
    """`TableLoop` with each kind of step captured as a CUDA graph; made by `capture`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not can_record(self.device):
            raise RuntimeError(f"capture needs CUDA, and x is on {self.device}; use zigzag.sample, or TableLoop")
        self.recording = Recording(
            {kind: partial(super(CapturedLoop, self)._advance, kind) for kind in self.steps},
            self.device,
            reset=self.k.zero_,
            calls=tuple(model.fn for model in self.models.models),
        )

    def _check(self, x: Tensor) -> None:
        super()._check(x)
        self.recording.check_weights()

    def _advance(self, kind: Kind) -> None:
        self.recording.replay(kind)


def capture(
    eps_fn: Predictor,
    x: Tensor,
    solver: Solver,
    method: Method | Sequence[Move],
    *,
    cond: Any,
    uncond: Any = MISSING,
    strong: float | Guidance = 5.5,
    weak: float | Guidance = 0.0,
    weak_fn: Predictor | None = None,
    weak_cond: Any = MISSING,
    weak_uncond: Any = MISSING,
    plain: float | Guidance | None = None,
    plain_fn: Predictor | None = None,
    plain_cond: Any = MISSING,
    plain_uncond: Any = MISSING,
    batched: bool | Literal["auto"] = "auto",
) -> CapturedLoop:
    """A sampler with the results of `sample` that replays CUDA graphs: one for each kind of step.

        x_T = solver.noise(shape, generator=generator, device="cuda")
        run = capture(eps_fn, x_T, solver, Z2Sampling(), cond=c, uncond=u)
        x0 = run(x_T)
        x1 = run(other_x_T, cond=other_c, strong=7.0)

    The model rows, the guidance and the affine update of a step are one graph, which serves all steps of its kind:
    coefficients, times and the step counter live on the device. Z²-Sampling needs a single one, on solvers with memory
    and noise too, whatever the order of a step, and two where a step makes two evaluations. New states, conditions of
    the same shapes and scales that need the same branches are fed without a new capture. Outputs are copies.

    Conditions that were written to since the last run (in place; as long as you hold the tensors, which are held weakly
    here) are copied again before the first step. A graph sees nothing of what is written during a run: that is of the
    next one. Another tensor that was put into a container is seen where the container is passed again.

    What a multistep solver remembers lies in slots of one buffer on the device, as many as the path needs at once; the
    graphs read and write it. The noise of a stochastic step is drawn outside them and held beside them for the moves
    that read it again. First-order deterministic ones have neither.

    The guidance must be linear in the gap (`CFG`, `CFGPlusPlus`, `Interval` of one), and the tensors of the conditions
    on the device of `x`. `eps_fn` must be capturable: no host sync, no data-dependent shapes. It runs a few times here,
    and then never again: a replay runs its kernels and nothing of its Python. What it counts, draws on the host, reads
    of attributes or prints is as it was at the capture. Weights may change in place (those of a LoRA too); where they
    were moved, replaced or added to, or adapters switched or scaled, the next run says so. That is known of the modules
    that ran; tensors that `eps_fn` holds outside of modules must stay where they are.

    Args:
        eps_fn: `eps_fn(x, t, cond) -> (B, …)`, predicting what `solver.prediction` says. `x` comes in the dtype passed
            here; `t` is `(B,)`, int64 where the solver's times are integers, else in the state's dtype; `cond` is what
            was passed. In a doubled batch all have 2B rows, unconditional first. It must not write to `x`, nor return
            memory that its next call overwrites (clone what comes out of a captured graph).
        x: `(B, …)`, the state at the first knot of the path: noise, for a method. It is carried in
            `promote(x.dtype, float32)`.
        solver: the grid and its steps.
        method: one of `zigzag.methods`, or a tuple of moves that connect; it may begin and end at any knot.
        cond, uncond: the two conditions, any pytrees. `uncond` may be left out where no guidance needs it.
        strong, weak: the guidance of Denoise and of Invert; a number is `CFG(number)`.
        weak_fn: another predictor for the weak predictions; a gap then costs its rows too.
        weak_cond, weak_uncond: other conditions for the weak predictions, by default `cond` and `uncond`. A branch
            that both roles share is evaluated once; one of its own is a row more, also where it is the other branch's.
            One that no weak prediction reads is refused, as a `weak_cond` alone at `weak=0`.
        plain, plain_fn, plain_cond, plain_uncond: the same for a Denoise that is plain (`ZSampling(plain=True)`); what
            is not passed is as it is for the strong predictions.
        batched: True evaluates all branches of a predictor at a state in one call, on a batch of as many times the
            size, False in a call each; "auto" batches when their conditions are pytrees of one structure whose leaves
            are all tensors of equal shapes, the batch first (else those of them that are alike).

    Raises:
        TypeError, ValueError: as `sample`, for guidance that is not linear in the gap, for conditions on another
            device, for a method that is steered by its walk, for a step of two evaluations whose second state does not
            depend on the first prediction, and for a part of a zigzag (`strength`) with `refine`, on steps of two
            evaluations, or within another.
        RuntimeError: without CUDA, within `torch.autocast` (but with `cache_enabled=False`), for models that are
            offloaded, keep a cache or are compiled with graphs of their own, and where the capture fails: with the
            reason, and what to use. What `eps_fn` raises itself comes through as it is. A run raises it where weights
            lie elsewhere than at the capture.
    """
    return CapturedLoop(
        eps_fn, x, solver, method,
        cond=cond, uncond=uncond, strong=strong, weak=weak, weak_fn=weak_fn, weak_cond=weak_cond,
        weak_uncond=weak_uncond, plain=plain, plain_fn=plain_fn, plain_cond=plain_cond, plain_uncond=plain_uncond,
        batched=batched,
    )  # fmt: skip
