"""Conditions in buffers of a loop's own, which its steps read, and which new conditions are copied into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.checks import Given, Settled, settle
from zigzag.conditions import MISSING, Conditions, same_leaf
from zigzag.solvers import Solver

__all__ = ["buffered", "check_device", "cloned", "fed", "pairs", "resettling", "sources"]


def buffered(conditions: Conditions) -> Conditions:
    """The conditions of a predictor in copies: of each branch, and of each joined call."""
    return conditions._replace(each=cloned(conditions.each), joined=cloned(conditions.joined))


def cloned(tree: Any) -> Any:
    """A pytree with its tensors copied."""
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def check_device(conditions: Conditions, device: torch.device) -> None:
    """Raises ValueError for a tensor among the conditions that is not on `device`: a graph would keep its value."""
    for branch, condition in conditions.each.items():
        for k, leaf in enumerate(pytree.tree_leaves(condition)):
            if isinstance(leaf, Tensor) and leaf.device != device:
                raise ValueError(
                    f"leaf {k} of {branch} is on {leaf.device}, and x on {device}: a captured step would keep the "
                    f"value that it had at the capture; move it to {device}"
                )


def sources(own: Mapping[str, Any]) -> dict[str, str]:
    """Which condition each branch is fed with that has none of its own: that of the strong role.

    A role's predictor has copies of the conditions that it shares with the strong role, which are fed with those.

    Args:
        own: what was passed for the branches of the other roles; MISSING for nothing.
    """
    return {branch: branch.rpartition("_")[2] for branch, value in own.items() if value is MISSING}


def fed(
    conditions: Iterable[Conditions], fed_by: Mapping[str, str], given: Mapping[str, Any]
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """By name each buffer that new conditions go to, with what is to be copied into it; nothing is copied yet.

    Args:
        conditions: of each predictor, in buffers. fed_by: the `sources` of branches.
        given: by name; MISSING for what stays.

    Raises:
        ValueError: for conditions of another structure, shape or dtype, and for those of a branch that has none.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, new in given.items():
        if new is MISSING:
            continue
        of = [(its, branch) for its in conditions for branch in its.each if fed_by.get(branch, branch) == name]
        if not of:
            raise ValueError(f"{name} was not passed when this loop was made; make a new loop for it")
        found[name] = []
        for its, branch in of:
            found[name] += pairs(name, its.each[branch], new)
            for call, joined in its.joined.items():
                if branch in call:
                    found[name] += pairs(name, _part(joined, call.index(branch), len(call)), new)
    return found


def pairs(name: str, old: Any, new: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of a pytree of buffers, each with that of a new one.

    Raises:
        ValueError: for another structure, shape or dtype, and for another leaf that is no tensor.
    """
    old_leaves, old_tree = pytree.tree_flatten(old)
    new_leaves, new_tree = pytree.tree_flatten(new)
    if old_tree != new_tree:
        raise ValueError(f"{name} must have the structure that this loop was made for, {old_tree}, got {new_tree}")
    for k, (a, b) in enumerate(zip(old_leaves, new_leaves, strict=True)):
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            if a.shape != b.shape or a.dtype != b.dtype:
                kinds = f"{tuple(a.shape)} {a.dtype}, got {tuple(b.shape)} {b.dtype}"
                raise ValueError(
                    f"leaf {k} of {name} must be as this loop was made for, {kinds}; make a new loop for it"
                )
            yield a, b
        elif not same_leaf(a, b):
            raise ValueError(f"leaf {k} of {name} is no tensor, and must stay {a!r}, got {b!r}; make a new loop for it")


def _part(tree: Any, k: int, parts: int) -> Any:
    """The `k`-th of the conditions that were joined, as views."""
    return pytree.tree_map(lambda leaf: leaf.chunk(parts)[k] if isinstance(leaf, Tensor) else leaf, tree)


def resettling(
    x: Tensor, solver: Solver, method: Any, given: Sequence[Given]
) -> tuple[Callable[..., Settled], tuple[Given, ...]]:
    """`settle` for new scales, and what it is given: the conditions by marks in their place, which hold no memory."""
    marks: dict[int, object] = {id(MISSING): MISSING}

    def marked(role: Given) -> Given:
        cond, uncond = (marks.setdefault(id(value), object()) for value in (role.cond, role.uncond))
        return role._replace(cond=cond, uncond=uncond)

    return partial(settle, x.to("meta"), solver, method, batched=False), tuple(marked(role) for role in given)
