"""The one loop: from noise to a sample, along any path of the four moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from zigzag.checks import MISSING, as_guidance, check_state, doubled_condition, resolve_path, uses_both_branches
from zigzag.guidance import Guidance
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, gap_is_read
from zigzag.progress import progress_bar
from zigzag.solvers import Solver, StepInfo
from zigzag.trace import Trace

__all__ = ["Predictor", "Visit", "sample", "walk"]

Predictor: TypeAlias = Callable[[Tensor, Tensor, Any], Tensor]


@dataclass(frozen=True, slots=True)
class Visit:
    """Where a walk stands after a move.

    Attributes:
        move: the move that was made. knot: the knot it reached.
        state: `(B, …)` at that knot, in the state's dtype. It is never overwritten.
        prediction: what the move was made with: `e_s` of a Denoise, the last `e_w` of an Invert, else None.
        rows: model rows per sample so far.
    """

    move: Move
    knot: int
    state: Tensor
    prediction: Tensor | None
    rows: int


def sample(
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
    batched: bool | Literal["auto"] = "auto",
    generator: torch.Generator | None = None,
    grad: bool = False,
    callback: Callable[[Visit], Tensor | None] | None = None,
    progress: bool = False,
    trace: Trace | None = None,
) -> Tensor:
    """The state at the end of the path of `method`, from `x` at its beginning. Everything else is as in `walk`.

    Returns:
        `(B, …)` in the dtype of `x`. Same inputs and generator, same output, bit for bit.
    """
    for visit in walk(
        eps_fn, x, solver, method, cond=cond, uncond=uncond, strong=strong, weak=weak, weak_fn=weak_fn, batched=batched,
        generator=generator, grad=grad, callback=callback, progress=progress, trace=trace,
    ):  # fmt: skip
        state = visit.state
    return state.to(x.dtype)


def walk(
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
    batched: bool | Literal["auto"] = "auto",
    generator: torch.Generator | None = None,
    grad: bool = False,
    callback: Callable[[Visit], Tensor | None] | None = None,
    progress: bool = False,
    trace: Trace | None = None,
) -> Iterator[Visit]:
    """Walks a zigzag path, and yields a `Visit` after each move. All checks are made before this returns.

    Args:
        eps_fn: `eps_fn(x, t, cond) -> (B, …)`, predicting what `solver.prediction` says. `x` comes in the dtype passed
            here; `t` is `(B,)`, int64 where the solver's times are integers, else in the state's dtype; `cond` is what
            was passed. In a doubled batch all have 2B rows, unconditional first.
        x: `(B, …)`, the state at the first knot of the path: noise, for a method. It is carried in
            `promote(x.dtype, float32)`.
        solver: the grid and its steps.
        method: one of `zigzag.methods`, or a tuple of moves that connect; it may begin and end at any knot.
        cond, uncond: the two conditions, any pytrees. `uncond` may be left out where no guidance needs it.
        strong, weak: the guidance of Denoise and of Invert; a number is `CFG(number)`.
        weak_fn: another predictor for the weak predictions; a gap then costs its rows too.
        batched: True evaluates both branches in one call on a doubled batch, False in two calls; "auto" batches when
            both conditions are pytrees of one structure whose leaves are all tensors of equal shapes, the batch first.
        generator: for the noise of Renoise, on any device; by default torch's global one.
        grad: record gradients. Grad mode is set inside a move, never across a `yield`.
        callback: called after each move; a tensor of the state's shape that it returns replaces the state (the cached
            gap stays).
        progress: a tqdm bar, one tick a move, rows in its postfix (extra `progress`).
        trace: a `Trace` to fill, from empty.

    Raises:
        TypeError, ValueError: before the first model call for arguments that do not fit, each naming what came and
            what is wanted; after it for an output of `eps_fn`, or a state from `callback`, of another shape than `x`.
    """
    check_state(x)
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver such as DDIM, got {solver!r}")
    for name, fn in (("eps_fn", eps_fn), ("weak_fn", weak_fn), ("callback", callback)):
        if not callable(fn) and (fn is not None or name == "eps_fn"):
            raise TypeError(f"{name} must be callable, got {fn!r}")
    if batched not in (True, False, "auto"):
        raise ValueError(f"batched must be True, False or 'auto', got {batched!r}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {generator!r}")
    if trace is not None and not isinstance(trace, Trace):
        raise TypeError(f"trace must be a Trace, got {trace!r}")
    strong, weak = as_guidance("strong", strong), as_guidance("weak", weak)
    if strong is weak and hasattr(strong, "reset"):
        raise ValueError(f"strong and weak are one object with state, {strong!r}; each role needs its own")
    path = resolve_path(method, solver)
    both = uses_both_branches(path, solver, strong, weak, uncond, separate=weak_fn is not None)
    doubled = doubled_condition(cond, uncond, len(x), batched) if both else MISSING

    model = _Model(eps_fn, cond, uncond, doubled, solver, x)
    weak_model = model if weak_fn is None else _Model(weak_fn, cond, uncond, doubled, solver, x)
    return _walk(path, x, solver, _Guided(model, weak_model, strong, weak), generator, grad, callback, progress, trace)


def _walk(
    path: tuple[Move, ...],
    x: Tensor,
    solver: Solver,
    guided: _Guided,
    generator: torch.Generator | None,
    grad: bool,
    callback: Callable[[Visit], Tensor | None] | None,
    progress: bool,
    trace: Trace | None,
) -> Iterator[Visit]:
    guided.reset()
    if trace is not None:
        trace.begin(path)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    gap: Tensor | None = None
    with progress_bar(len(path), enabled=progress) as tick:
        for move, caches_gap in zip(path, gap_is_read(path), strict=True):
            e: Tensor | None = None
            e_w: Tensor | None = None
            time: float | None = None
            rows, before = guided.rows, x if trace is not None else None
            with torch.set_grad_enabled(grad):
                match move:
                    case Denoise(i, j):
                        at, gap = solver.info(i, j), None
                        if caches_gap:
                            e, e_w = guided.pair(x, at)
                            gap = e - e_w
                        else:
                            e, e_w = guided.strong(x, at, weak_too=trace is not None and trace.awaits_weak)
                        x, time = solver.step(i, j).forward(x, e), at.t
                    case Invert(j, i, refine, coefficients):
                        at, x_j = solver.info(i, j), x
                        step = solver.step(*(coefficients or (i, j)))
                        for _ in range(1 + refine):  # first at x_j, then at each result
                            e = guided.weak(x, at)
                            x, time = step.inverse(x_j, e), at.t
                    case Shift(i, fresh):
                        if fresh:
                            at = solver.info(i)
                            e_s, e_w = guided.pair(x, at)
                            gap, time = e_s - e_w, at.t
                        assert gap is not None  # resolve_path has seen to it
                        x = solver.step(i).shift(x, gap)
                    case Renoise(j, i):
                        x = solver.noise_step(j, i).forward(x, _noise_like(x, generator))
            if trace is not None and before is not None:
                trace.log(move, time, guided.rows - rows, before, x, e, e_w)
            if callback is not None:
                x = _replaced(x, callback(Visit(move, move.end, x, e, guided.rows)))
            tick(guided.rows)
            yield Visit(move, move.end, x, e, guided.rows)


class _Guided:
    """The predictions that the moves are made of: the branches of the models, joined by the two guidances."""

    def __init__(self, model: _Model, weak_model: _Model, strong: Guidance, weak: Guidance) -> None:
        self.model, self.weak_model, self.e_s, self.e_w = model, weak_model, strong, weak

    def reset(self) -> None:
        for guidance in (self.e_s, self.e_w):
            if (reset := getattr(guidance, "reset", None)) is not None:
                reset()

    @property
    def rows(self) -> int:
        return self.model.rows + (self.weak_model.rows if self.weak_model is not self.model else 0)

    def weak(self, x: Tensor, at: StepInfo) -> Tensor:
        """`e_w` at `x`."""
        return _guide(self.e_w, self.weak_model(x, at.i, self.e_w.branches(at)), at)

    def pair(self, x: Tensor, at: StepInfo) -> tuple[Tensor, Tensor]:
        """`e_s` and `e_w` at `x`, from one evaluation of the branches that both need."""
        if self.weak_model is not self.model:
            return self.strong(x, at)[0], self.weak(x, at)
        (c_s, u_s), (c_w, u_w) = self.e_s.branches(at), self.e_w.branches(at)
        branches = self.model(x, at.i, (c_s or c_w, u_s or u_w))
        return _guide(self.e_s, branches, at), _guide(self.e_w, branches, at)

    def strong(self, x: Tensor, at: StepInfo, weak_too: bool = False) -> tuple[Tensor, Tensor | None]:
        """`e_s` at `x`, and on request `e_w` where the branches of `e_s` suffice for it."""
        needed = self.e_s.branches(at)
        branches = self.model(x, at.i, needed)
        e_s = _guide(self.e_s, branches, at)
        # A diagnosis must change nothing: a weak guidance with state is not called for one.
        free = weak_too and self.weak_model is self.model and not hasattr(self.e_w, "reset")
        if not free or any(w and not s for w, s in zip(self.e_w.branches(at), needed, strict=True)):
            return e_s, None
        return e_s, _guide(self.e_w, branches, at)


def _guide(guidance: Guidance, branches: tuple[Tensor | None, Tensor | None], at: StepInfo) -> Tensor:
    cond, uncond = guidance.branches(at)
    e_c, e_u = branches
    return guidance(e_c if cond else None, e_u if uncond else None, at)


class _Model:
    """A predictor with its two conditions, which counts the rows it runs."""

    def __init__(self, eps_fn: Predictor, cond: Any, uncond: Any, doubled: Any, solver: Solver, x: Tensor) -> None:
        self.eps_fn, self.cond, self.uncond, self.doubled = eps_fn, cond, uncond, doubled
        self.dtype, self.state_dtype = x.dtype, torch.promote_types(x.dtype, torch.float32)
        self.times = solver.model_times(x.device, self.state_dtype)
        self.rows = 0

    def __call__(self, x: Tensor, knot: int, branches: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
        """The `(conditional, unconditional)` predictions at `x` that are asked for."""
        x, (cond, uncond) = x.to(self.dtype), branches
        self.rows += cond + uncond
        if cond and uncond and self.doubled is not MISSING:
            e_u, e_c = self._predict(torch.cat([x, x]), knot, self.doubled).chunk(2)
            return e_c, e_u
        return (
            self._predict(x, knot, self.cond) if cond else None,
            self._predict(x, knot, self.uncond) if uncond else None,
        )

    def _predict(self, x: Tensor, knot: int, cond: Any) -> Tensor:
        e = self.eps_fn(x, self.times[knot].expand(len(x)), cond)
        if not isinstance(e, Tensor):
            raise TypeError(f"eps_fn must return a tensor, got {type(e).__name__}")
        if e.shape != x.shape:
            raise ValueError(f"eps_fn must return the shape of x, {tuple(x.shape)}, got {tuple(e.shape)}")
        return e.to(self.state_dtype)


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)


def _replaced(x: Tensor, new: object) -> Tensor:
    if new is None:
        return x
    if not isinstance(new, Tensor) or new.shape != x.shape:
        got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise ValueError(f"callback must return None or a state of shape {tuple(x.shape)}, got {got}")
    return new.to(x.dtype)
