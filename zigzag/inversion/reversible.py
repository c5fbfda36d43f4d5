"""Backpropagation through a reversible scheme without stored states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from zigzag.checks import check_generator, check_state
from zigzag.conditions import MISSING
from zigzag.guidance import Guidance
from zigzag.guided import Asking
from zigzag.inversion.scheme import Pair, Reversible, Run, answered
from zigzag.inversion.settling import Settled, check_accuracy, check_solver, draw_noises, settle, state_dtype_of
from zigzag.model import Predictor
from zigzag.sampling import Generators
from zigzag.solvers import Solver

__all__ = ["reversible"]


def reversible(
    eps_fn: Predictor,
    x: Tensor,
    solver: Solver,
    scheme: Reversible,
    *,
    cond: Any,
    uncond: Any = MISSING,
    guidance: float | Guidance = 1.0,
    modules: Sequence[nn.Module] = (),
    batched: bool | Literal["auto"] = "auto",
    generator: Generators = None,
    accuracy: float = 1e-2,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The sample that a reversible scheme draws from the noise `x`, and its gradients in memory flat in the steps.

    On the way back no state of the way down is kept: each pair is computed anew from the one after it by the scheme's
    inverse, and one step at a time is backpropagated through. Gradients reach `x`, the floating-point tensors of the
    two conditions, and the parameters of `modules`; they are those of full backpropagation but for the rounding that
    the scheme's way up multiplies. They cost the rows of the way down, those of the way up, and those of the way down
    again with gradients; where one step's activations are what fills the memory, `zigzag.sample(checkpoint=True)`,
    which keeps a state a step and runs each step twice, is the cheaper choice.

    Args:
        eps_fn, cond, uncond, guidance, batched: as in `zigzag.inversion.invert`. Dropout and whatever else makes a call
            differ from the next has to be off; conditions must not be changed before the backward pass.
        x: `(B, …)`, noise as `solver.noise` makes it.
        solver, scheme, generator, accuracy, dtype: as in `invert`; the scheme is `EDICT`, `OBELM` or `Rex`. The noise
            of stochastic steps is kept, one a step.
        modules: whose parameters the predictor reads; by default those of `eps_fn`, if it is a module.

    Returns:
        `(B, …)` in the dtype of `x`.

    Raises:
        TypeError, ValueError: before the first model call, as `invert`, and for a scheme that is not reversible.
        RuntimeError: in the backward pass, where the predictor reads parameters that `modules` does not have.
    """
    check_state(x)
    check_solver(solver, scheme)
    if not isinstance(scheme, Reversible):
        raise TypeError(f"scheme must be EDICT, OBELM or Rex, which are exact by algebra, got {scheme!r}")
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"modules must be torch modules, got {type(module).__name__}")
    check_generator(generator, len(x))
    carried = state_dtype_of(x, dtype)
    check_accuracy(scheme, solver, carried, accuracy)
    noises = draw_noises(solver, x.detach().to(carried), generator)
    if not modules and isinstance(eps_fn, nn.Module):
        modules = (eps_fn,)
    parameters = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    given, tree = pytree.tree_flatten((cond, uncond))
    differentiable = [k for k, leaf in enumerate(given) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def settled(leaves: Sequence[Tensor]) -> Settled:
        """The model, with these in the place of the conditions' floating-point leaves."""
        replaced = dict(zip(differentiable, leaves, strict=True))
        new_cond, new_uncond = pytree.tree_unflatten([replaced.get(k, leaf) for k, leaf in enumerate(given)], tree)
        return settle(eps_fn, x, solver, new_cond, new_uncond, guidance, batched)

    leaves = [given[k] for k in differentiable]
    settled(leaves)
    way = _Way(solver, scheme, noises, settled, len(leaves), carried)
    sample: Tensor = _Down.apply(way, x, *leaves, *parameters)  # type: ignore[no-untyped-call]
    return sample.to(x.dtype)


class _Way(NamedTuple):
    """What the two passes share."""

    solver: Solver
    scheme: Reversible
    noises: Tensor | None
    settled: Any
    conditions: int
    dtype: torch.dtype

    def run(self, leaves: Sequence[Tensor]) -> tuple[Run, Settled]:
        settled: Settled = self.settled(leaves)
        return settled.run(self.solver, self.noises), settled


class _Down(torch.autograd.Function):
    """The way down, of which the last pair alone is kept."""

    @staticmethod
    def forward(ctx: Any, way: _Way, x: Tensor, *inputs: Tensor) -> Tensor:
        leaves, scheme = inputs[: way.conditions], way.scheme
        run, settled = way.run(leaves)
        pair = answered(scheme.start(run, x.to(way.dtype)), settled.model)
        for i in range(scheme.first, len(way.solver)):
            pair = answered(scheme.forward(run, i, *pair), settled.model)
        ctx.way, ctx.autocast = way, _autocast(x.device.type)
        ctx.save_for_backward(x, *pair, *inputs)
        return pair[0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        way: _Way = ctx.way
        x, *pair_and_inputs = ctx.saved_tensors
        pair, inputs = (pair_and_inputs[0], pair_and_inputs[1]), pair_and_inputs[2:]
        leaves = [leaf.detach().requires_grad_() for leaf in inputs[: way.conditions]]
        with ctx.autocast():
            back = _Back(way, [*leaves, *inputs[way.conditions :]])
            to_x = back(x, pair, (grad, torch.zeros_like(grad)))
        wanted = ctx.needs_input_grad[1:]
        found = [to_x.to(x.dtype), *back.gradients]
        return None, *(g if wants else None for g, wants in zip(found, wanted, strict=True))


class _Back:
    """The backward pass: the pair computed anew from the one after it, and one step's gradients at a time."""

    def __init__(self, way: _Way, read: Sequence[Tensor]) -> None:
        self.way, self.read = way, read
        self.gradients: list[Tensor | None] = [None] * len(read)

    def __call__(self, x: Tensor, pair: Pair, cotangents: Pair) -> Tensor:
        scheme = self.way.scheme
        run, settled = self.way.run(self.read[: self.way.conditions])
        for i in reversed(range(scheme.first, len(self.way.solver))):
            with torch.no_grad():
                pair = answered(scheme.inverse(run, i, *pair), settled.model)
            to_x, to_y = self._through(lambda run, x, y, i=i: scheme.forward(run, i, x, y), pair, cotangents)
            cotangents = to_x, to_y
        return self._through(scheme.start, (x.to(self.way.dtype),), cotangents)[0]

    def _through(self, step: Callable[..., Asking[Pair]], states: Sequence[Tensor], cotangents: Pair) -> list[Tensor]:
        """The gradients at the states that a step leads from; those of what it reads are added up."""
        before = [state.detach().requires_grad_() for state in states]
        with torch.enable_grad():  # the conditions too: a doubled one is made of the two
            run, settled = self.way.run(self.read[: self.way.conditions])
            after = answered(step(run, *before), settled.model)
        self._check(after, [*before, *self.read])
        wanted = [t for t in self.read if t.requires_grad]
        given = torch.autograd.grad(after, [*before, *wanted], cotangents, allow_unused=True)
        grads = iter(given[len(before) :])
        for k, tensor in enumerate(self.read):
            g = next(grads) if tensor.requires_grad else None
            known = self.gradients[k]
            self.gradients[k] = known if g is None else g if known is None else known + g
        return [torch.zeros_like(t) if g is None else g for t, g in zip(before, given, strict=False)]

    def _check(self, after: Pair, known: Sequence[Tensor]) -> None:
        """Raises RuntimeError where the step reads leaves whose gradients nobody would see."""
        ids, seen = {id(tensor) for tensor in known}, set()
        nodes = [state.grad_fn for state in after]
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) not in ids:
                raise RuntimeError(
                    f"the predictor reads a parameter of shape {tuple(leaf.shape)} that requires a gradient and is not "
                    "of modules=; pass its module, or turn its requires_grad off"
                )
            nodes.extend(following for following, _ in node.next_functions)


def _autocast(device: str) -> Any:
    """The autocast of now, for the backward pass."""
    enabled = torch.is_autocast_enabled(device)
    dtype, cache = torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled()
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cache)
