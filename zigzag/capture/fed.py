"""Conditions in buffers of a loop's own, which its steps read, and which new conditions are copied into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.conditions import MISSING, Conditions

__all__ = ["buffered", "feed", "sources"]


def buffered(conditions: Conditions) -> Conditions:
    """The conditions of a predictor in copies: of each branch, and of each joined call."""
    return conditions._replace(each=_cloned(conditions.each), joined=_cloned(conditions.joined))


def sources(own: Mapping[str, Any]) -> dict[str, str]:
    """Which condition each branch is fed with that has none of its own: that of the strong role.

    A role's predictor has copies of the conditions that it shares with the strong role, which are fed with those.

    Args:
        own: what was passed for the branches of the other roles; MISSING for nothing.
    """
    return {branch: branch.rpartition("_")[2] for branch, value in own.items() if value is MISSING}


def feed(conditions: Iterable[Conditions], fed_by: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Copies new conditions into the buffers.

    Args:
        conditions: of each predictor, in buffers. fed_by: the `sources` of branches.
        given: by name; MISSING for what stays.

    Raises:
        ValueError: for conditions of another structure, shape or dtype, and for those of a branch that has none.
    """
    for name, new in given.items():
        if new is MISSING:
            continue
        fed = False
        for its in conditions:
            for branch, old in its.each.items():
                if fed_by.get(branch, branch) == name:
                    _copied_into(name, old, new)
                    for call, joined in its.joined.items():
                        if branch in call:
                            _copied_into(name, _part(joined, call.index(branch), len(call)), new)
                    fed = True
        if not fed:
            raise ValueError(f"{name} was not passed when this loop was made; make a new loop for it")


def _cloned(tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, tree)


def _part(tree: Any, k: int, parts: int) -> Any:
    """The `k`-th of the conditions that were joined, as views."""
    return pytree.tree_map(lambda leaf: leaf.chunk(parts)[k] if isinstance(leaf, Tensor) else leaf, tree)


def _copied_into(name: str, old: Any, new: Any) -> None:
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
            a.copy_(b)
        elif a is not b and a != b:
            raise ValueError(f"leaf {k} of {name} is no tensor, and must stay {a!r}, got {b!r}; make a new loop for it")
