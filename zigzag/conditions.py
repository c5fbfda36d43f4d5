"""The two conditions of a walk, and both as the one of a doubled batch."""

from __future__ import annotations

import warnings
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["MISSING", "Conditions", "doubled_condition"]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""The default of `uncond`: no condition was passed. (`None` is a legitimate one: many models take it as the null.)"""


class Conditions(NamedTuple):
    """The two conditions, and both as the one of a doubled batch; MISSING where there is none."""

    cond: Any
    uncond: Any
    doubled: Any

    def renewed(self) -> Conditions:
        """The same, with the doubled one made anew of the two as they are now."""
        return self._replace(doubled=_concatenate(self.uncond, self.cond, None))


def doubled_condition(cond: object, uncond: object, batch: int, batched: bool | str) -> Any:
    """`uncond` and `cond` as one condition of a doubled batch, unconditional first; MISSING where two calls are made.

    Raises:
        ValueError: for `batched=True` and conditions that cannot be doubled, saying which leaf.
    """
    if batched is False:
        return MISSING
    try:
        return _concatenate(uncond, cond, batch if batched == "auto" else None)
    except ValueError as error:
        if batched == "auto":
            if isinstance(error, _OtherBatch):
                warnings.warn(f"the two branches run as two calls: {error}", stacklevel=5)
            return MISSING
        raise ValueError(f"batched=True, but {error}; use batched=False or 'auto'") from None


def _concatenate(uncond: object, cond: object, batch: int | None) -> Any:
    # With a batch (the rule of 'auto') every leaf must be a tensor with that batch; without one (batched=True) other
    # leaves pass where both conditions have the same.
    leaves_u, tree_u = pytree.tree_flatten(uncond)
    leaves_c, tree_c = pytree.tree_flatten(cond)
    if tree_u != tree_c:
        raise ValueError(f"uncond and cond differ in structure: {tree_u} and {tree_c}")
    if batch is not None and not leaves_c:
        raise ValueError("the conditions hold no tensors")
    doubled = []
    for k, (u, c) in enumerate(zip(leaves_u, leaves_c, strict=True)):
        if isinstance(u, Tensor) and isinstance(c, Tensor):
            if batch is not None and u.shape == c.shape and u.ndim and u.shape[0] != batch:
                raise _OtherBatch(
                    f"leaf {k} of uncond and cond has shape {tuple(u.shape)}, whose first dimension is not the batch "
                    f"of {batch}; expand it, or pass batched=False"
                )
            if u.shape != c.shape or u.ndim == 0:
                raise ValueError(f"leaf {k} of uncond and cond has shapes {tuple(u.shape)} and {tuple(c.shape)}")
            if u.dtype != c.dtype or u.device != c.device:
                kinds = f"{u.dtype} on {u.device} and {c.dtype} on {c.device}"
                raise ValueError(f"leaf {k} of uncond and cond is {kinds}")
            doubled.append(torch.cat([u, c]))
        elif batch is None and _same(u, c):
            doubled.append(c)
        else:
            raise ValueError(f"leaf {k} of uncond and cond is {u!r} and {c!r}, which are not tensors to concatenate")
    return pytree.tree_unflatten(doubled, tree_c)


class _OtherBatch(ValueError):
    """Conditions that could be doubled, were they of the batch of the state."""


def _same(u: object, c: object) -> bool:
    try:
        return u is c or bool(u == c)
    except (RuntimeError, ValueError):
        return False
