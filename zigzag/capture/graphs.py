"""Whole steps as CUDA graphs: model rows, guidance and affine update of a move in one replay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from zigzag.capture.fed import buffered, feed, sources
from zigzag.capture.kernels import combine, compiled_combine
from zigzag.capture.rows import plan_rows
from zigzag.capture.table import Carry, Kind, Plan, step_function
from zigzag.checks import Given, Settled, settle
from zigzag.conditions import MISSING
from zigzag.guidance import Guidance
from zigzag.held import Held
from zigzag.methods import Method
from zigzag.model import Model, Models, Predictor
from zigzag.moves import Move
from zigzag.sampling import noise_of
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype

__all__ = ["CapturedLoop", "TableLoop", "capture"]


class TableLoop:
    """The loop of `zigzag.sample` on tables, with the step functions run as they are, on any device.

    It is what `CapturedLoop` captures, and gives the same bits. State, conditions, coefficients and what a solver
    remembers live in buffers of its own; a run writes its inputs into them, and begins with nothing remembered.

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
        self._given = Given(strong, eps_fn, cond, uncond), Given(weak, weak_fn, weak_cond, weak_uncond)
        self._settle = partial(
            settle, x, solver, method, plain=Given(plain, plain_fn, plain_cond, plain_uncond), batched=batched
        )
        settled = self._settle(*self._given)
        own = {
            "weak_cond": weak_cond,
            "weak_uncond": weak_uncond,
            "plain_cond": plain_cond,
            "plain_uncond": plain_uncond,
        }
        self._sources = sources(own)
        self.shape, self.dtype, self.device, self.solver = x.shape, x.dtype, x.device, solver
        self.plan = self._planned(settled)
        state = state_dtype(x.dtype)
        kinds = self.plan.kinds
        before = x.shape if any(kind.rule for kind in kinds) else (0,)
        strongly = x.shape if any(kind.keeps_strong for kind in kinds) else (0,)
        shapes = (x.shape, x.shape, x.shape, (self.plan.depth, *x.shape), before, strongly)
        self.carry = Carry(*(torch.zeros(shape, dtype=state, device=x.device) for shape in shapes))
        self.noise = torch.zeros_like(self.carry.x)
        self.k = torch.zeros(1, dtype=torch.int64, device=x.device)
        self.conditions = [buffered(conditions) for _, _, conditions in settled.predictors]
        models = Models(
            [Model(name, fn, own, x) for (name, fn, _), own in zip(settled.predictors, self.conditions, strict=True)],
            solver, x,
        )  # fmt: skip
        how = compiled_combine if compiled else combine
        self.steps = {kind: step_function(kind, self.plan, models, how) for kind in dict.fromkeys(kinds)}

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
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The state at the end of the path from `x`; what is not passed is as it was in the last run.

        Args:
            x: the shape, dtype and device of the `x` that the loop was made with.
            cond, uncond, weak_cond, weak_uncond, plain_cond, plain_uncond: conditions of the same structure and shapes
                as before, of branches that the loop was made with.
            strong, weak: new scales, as long as they need the same branches.
            generator: for the noise of Renoise and of stochastic steps, drawn as `sample` draws it.

        Raises:
            ValueError: for another shape, dtype or device, for conditions of another structure, and for scales that
                need other branches: a new loop has to be made for them.
        """
        if (x.shape, x.dtype, x.device) != (self.shape, self.dtype, self.device):
            made, got = (self.shape, self.dtype, self.device), (x.shape, x.dtype, x.device)
            raise ValueError(f"x must be as this loop was made for, {made}, got {got}; make a new loop for it")
        given = {
            "cond": cond,
            "uncond": uncond,
            "weak_cond": weak_cond,
            "weak_uncond": weak_uncond,
            "plain_cond": plain_cond,
            "plain_uncond": plain_uncond,
        }
        feed(self.conditions, self._sources, given)
        if strong is not None or weak is not None:
            self._rescale(strong, weak)
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

    def _advance(self, kind: Kind) -> None:
        """One step, from buffers to buffers."""
        new, m = self.steps[kind](self.k, self.carry, self.noise)
        if m is not None:
            self.carry.memory.index_copy_(0, self.plan.into.index_select(0, self.k), m.unsqueeze(0))
        # The anchor may be the old state itself: it is copied before the state is overwritten.
        for name in ("anchor", "before", "gap", "strong", "x"):
            if getattr(new, name) is not getattr(self.carry, name):
                getattr(self.carry, name).copy_(getattr(new, name))
        self.k.add_(1)

    def _planned(self, settled: Settled) -> Plan:
        rows = plan_rows(settled, self.solver)
        return Plan.of(rows, self.solver, self.device, state_dtype(self.dtype))

    def _rescale(self, strong: float | Guidance | None, weak: float | Guidance | None) -> None:
        s, w = self._given
        given = s._replace(rule=s.rule if strong is None else strong), w._replace(rule=w.rule if weak is None else weak)
        self.plan.refill(self._planned(self._settle(*given)))
        self._given = given


class CapturedLoop(TableLoop):
    """`TableLoop` with each kind of step captured as a CUDA graph; made by `capture`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.device.type != "cuda" or not torch.cuda.is_available():
            raise RuntimeError(f"capture needs CUDA, and x is on {self.device}; use zigzag.sample, or TableLoop")
        self.graphs: dict[Kind, torch.cuda.CUDAGraph] = {}
        try:
            self._capture()
        except RuntimeError as error:
            raise RuntimeError(
                f"the steps could not be captured ({str(error).splitlines()[0]}): eps_fn must not wait for the device, "
                "nor move data between devices; use zigzag.sample, or TableLoop"
            ) from error

    @torch.no_grad()
    def _capture(self) -> None:
        # First runs choose algorithms and allocate workspaces, which a capture must not see.
        stream: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for kind in self.steps:
                for _ in range(3):
                    self.k.zero_()
                    super()._advance(kind)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self.k.zero_()
        pool = None
        for kind in self.steps:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                super()._advance(kind)
            pool = graph.pool()
            self.graphs[kind] = graph

    def _advance(self, kind: Kind) -> None:
        self.graphs[kind].replay()


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

    What a multistep solver remembers lies in slots of one buffer on the device, as many as the path needs at once; the
    graphs read and write it. The noise of a stochastic step is drawn outside them, before the step, and held beside
    them for the moves that read it again. First-order deterministic solvers have neither.

    The arguments are those of `sample`; the guidance must be linear in the gap (`CFG`, `CFGPlusPlus`, `Interval`
    of one). `eps_fn` must be capturable: no host sync, no data-dependent shapes.

    Raises:
        TypeError, ValueError: as `sample`, for guidance that is not linear in the gap, and for a step of two
            evaluations whose second state does not depend on the first prediction.
        RuntimeError: without CUDA, or where the capture fails: with the reason, and what to use.
    """
    return CapturedLoop(
        eps_fn, x, solver, method,
        cond=cond, uncond=uncond, strong=strong, weak=weak, weak_fn=weak_fn, weak_cond=weak_cond,
        weak_uncond=weak_uncond, plain=plain, plain_fn=plain_fn, plain_cond=plain_cond, plain_uncond=plain_uncond,
        batched=batched,
    )  # fmt: skip
