"""The conditions of a predictor by branch, and those of branches that share a call as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["MISSING", "Conditions", "same_leaf", "share_calls"]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""The default of `uncond`: no condition was passed. (`None` is a legitimate one: many models take it as the null.)"""


class Conditions(NamedTuple):
    """The conditions of one predictor, and in which calls it evaluates what is asked for.

    Attributes:
        each: by branch. calls: for each set of branches that is asked for, the branches of every call.
        joined: of each call for more than one branch the one condition, batch after batch.
    """

    each: Mapping[str, Any]
    calls: Mapping[tuple[str, ...], Sequence[tuple[str, ...]]]
    joined: Mapping[tuple[str, ...], Any]

    def renewed(self) -> Conditions:
        """The same, joined anew from the conditions as they are now."""
        return self._replace(joined={call: _concatenate(_named(self.each, call), None) for call in self.joined})


def share_calls(
    each: Mapping[str, Any], asked: Iterable[tuple[str, ...]], batch: int, batched: bool | str
) -> Conditions:
    """One call for all branches of a set, where `batched` allows it; with "auto" else one for those that are alike.

    Args:
        each: the conditions by branch. asked: the sets of branches that are asked for. batch, batched: as in `walk`.

    With "auto" it warns, once, where expanding conditions to the batch would join them.

    Raises:
        ValueError: for `batched=True` and conditions that cannot be joined, saying which leaf.
    """
    calls: dict[tuple[str, ...], Sequence[tuple[str, ...]]] = {(): ()}  # a rule may need none of its branches
    joined: dict[tuple[str, ...], Any] = {}
    unfit: list[_OtherBatch] = []

    def join(branches: tuple[str, ...]) -> bool:
        if branches not in joined and len(branches) > 1 and batched is not False:
            try:
                joined[branches] = _concatenate(_named(each, branches), batch if batched == "auto" else None)
            except ValueError as error:
                if batched != "auto":
                    raise ValueError(f"batched=True, but {error}; use batched=False or 'auto'") from None
                if isinstance(error, _OtherBatch):
                    unfit.append(error)
        return branches in joined

    for branches in asked:
        calls[branches] = [branches] if join(branches) else _together(branches, join)
    made = {call for its in calls.values() for call in its}
    if unfit:
        most = max(map(len, calls.values()))
        warnings.warn(f"the branches run as {'two' if most == 2 else most} calls: {unfit[0]}", stacklevel=5)
    return Conditions(each, calls, {call: cond for call, cond in joined.items() if call in made})


def _together(branches: Iterable[str], join: Callable[[tuple[str, ...]], bool]) -> list[tuple[str, ...]]:
    """The branches in calls, each in the first that it can join; what is alike to one of a call is to all of it."""
    calls: list[tuple[str, ...]] = []
    for name in branches:
        k = next((k for k, call in enumerate(calls) if join((*call, name))), len(calls))
        calls[k : k + 1] = [(*calls[k], name) if k < len(calls) else (name,)]
    return calls


def _named(each: Mapping[str, Any], call: Sequence[str]) -> dict[str, Any]:
    return {name: each[name] for name in call}


def _concatenate(conditions: Mapping[str, Any], batch: int | None) -> Any:
    # With a batch (the rule of 'auto') every leaf must be a tensor with that batch; without one (batched=True) other
    # leaves pass where all conditions have the same.
    names = " and ".join(conditions)
    (leaves, *others), (tree, *trees) = zip(*map(pytree.tree_flatten, conditions.values()), strict=True)
    if any(other != tree for other in trees):
        raise ValueError(f"{names} differ in structure: {' and '.join(map(str, (tree, *trees)))}")
    if batch is not None and not leaves:
        raise ValueError("the conditions hold no tensors")
    joined, unfit = [], None
    for k, each in enumerate(zip(leaves, *others, strict=True)):
        if batch is not None and (told := _other_batch(k, conditions, each, batch)) is not None:
            unfit = unfit or told  # raised at the end: another leaf may keep them apart all the same
        else:
            joined.append(_joined(k, names, each, batch))
    if unfit is not None:
        raise _OtherBatch(f"{unfit}, or pass batched=False")
    return pytree.tree_unflatten(joined, tree)


def _joined(k: int, names: str, each: Sequence[Any], batch: int | None) -> Any:
    if all(isinstance(leaf, Tensor) for leaf in each):
        if len({leaf.shape for leaf in each}) > 1 or each[0].ndim == 0:
            raise ValueError(f"leaf {k} of {names} has shapes {' and '.join(str(tuple(leaf.shape)) for leaf in each)}")
        if len({(leaf.dtype, leaf.device) for leaf in each}) > 1:
            kinds = " and ".join(f"{leaf.dtype} on {leaf.device}" for leaf in each)
            raise ValueError(f"leaf {k} of {names} is {kinds}")
        return torch.cat(list(each))
    if batch is None and all(same_leaf(each[0], leaf) for leaf in each):
        return each[-1]
    raise ValueError(f"leaf {k} of {names} is {' and '.join(map(repr, each))}, which are not tensors to concatenate")


def _other_batch(k: int, conditions: Mapping[str, Any], each: Sequence[Any], batch: int) -> str | None:
    """What to say of leaves that could be joined, were they of the batch; None for others.

    That is leaves of one shape, or single rows beside others that have the batch. What differs elsewhere (in the length
    of a text, say), or in other numbers, is meant to be evaluated apart.
    """
    if not all(isinstance(leaf, Tensor) and leaf.ndim for leaf in each):
        return None
    if len({(leaf.dtype, leaf.device, leaf.shape[1:]) for leaf in each}) > 1:
        return None
    shapes, sizes = [tuple(leaf.shape) for leaf in each], {leaf.shape[0] for leaf in each}
    of = f"leaf {k} of {' and '.join(conditions)}"
    if sizes == {batch}:
        return None
    if len(sizes) == 1:
        return f"{of} has shape {shapes[0]}, whose first dimension is not the batch of {batch}; expand it"
    if sizes != {1, batch}:
        return None
    to = f".expand({', '.join([str(batch), *('-1' for _ in shapes[0][1:])])})"
    wanted = [
        f"{name}{to}" if isinstance(condition, Tensor) else f"leaf{to} as leaf {k} of {name}"
        for (name, condition), shape in zip(conditions.items(), shapes, strict=True)
        if shape[0] == 1
    ]
    told = " and ".join(map(str, shapes))
    return f"{of} has shapes {told}, and not the batch of {batch} first in each; pass {' and '.join(wanted)}"


class _OtherBatch(ValueError):
    """Conditions that could be joined, were they of the batch of the state."""


def same_leaf(a: Any, b: Any) -> bool:
    """Whether two leaves that are no tensors say the same: arrays number by number, and NaN is NaN."""
    if a is b:
        return True
    if getattr(a, "shape", None) != getattr(b, "shape", None):
        return False
    try:
        equal = (a == b) | ((a != a) & (b != b))
        return bool(equal.all() if hasattr(equal, "all") else equal)
    except (RuntimeError, TypeError, ValueError):
        return False
