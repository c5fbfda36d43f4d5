"""The arguments and the outputs of a model call, by rows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from numbers import Integral, Number
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

__all__ = ["Layout", "check_told", "form_of", "rows_of", "sums_of", "total_of"]

TOLD: Final = (Number, str, bytes, type(None), torch.dtype, torch.device, slice)
ROWS: Final = object()  # in the place of a tensor of rows
AS_INTEGERS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def rows_of(
    args: Sequence[Any], kwargs: Mapping[str, Any], at: slice, *, rows: int, listed: bool
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The rows `at` of arguments of so many: of each tensor that has them in dimension 0. All else is given whole.

    listed: whether the state comes as a list of a tensor for each row; so do other arguments then.
    """

    def split(leaf: Any) -> bool:
        return _has_rows(leaf, rows, listed)

    taken: tuple[Sequence[Any], Mapping[str, Any]] = pytree.tree_map(
        lambda leaf: leaf[at] if split(leaf) else leaf, (args, kwargs), is_leaf=split
    )
    return taken


class Layout(NamedTuple):
    """How a model's output is made of rows.

    Attributes:
        shapes: a row of each tensor. dtypes: theirs. listed: whether they come as lists of a tensor for each row.
        tree: of the whole output. others: its leaves that are no rows, the same for any number of them.
    """

    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    listed: bool
    tree: Any
    others: tuple[Any, ...]

    @classmethod
    def of(cls, output: Any, rows: int, listed: bool) -> tuple[Layout, list[Tensor]]:
        """That of the output of a call of so many rows, and its tensors.

        Raises:
            ValueError: for an output that is not made of rows.
        """
        leaves, tree = pytree.tree_flatten(output, is_leaf=lambda leaf: _has_rows(leaf, rows, listed))
        split = [_has_rows(leaf, rows, listed) for leaf in leaves]
        for leaf, its in zip(leaves, split, strict=True):
            if not its and isinstance(leaf, Tensor):
                raise ValueError(
                    f"a tensor {tuple(leaf.shape)} came out for {rows} rows, which cannot be put together of the "
                    "shares of ranks"
                )
        found = [torch.stack(x) if isinstance(x, list) else x for x, its in zip(leaves, split, strict=True) if its]
        others = tuple(ROWS if its else leaf for leaf, its in zip(leaves, split, strict=True))
        return cls(tuple(x.shape[1:] for x in found), tuple(x.dtype for x in found), listed, tree, others), found

    @property
    def bytes(self) -> list[int]:
        """Of a row of each tensor."""
        return [shape.numel() * dtype.itemsize for shape, dtype in zip(self.shapes, self.dtypes, strict=True)]

    def allocate(self, rows: int, device: torch.device) -> list[Tensor]:
        """Tensors for so many rows."""
        pairs = zip(self.shapes, self.dtypes, strict=True)
        return [torch.empty((rows, *shape), dtype=dtype, device=device) for shape, dtype in pairs]

    def output(self, tensors: Sequence[Any]) -> Any:
        """The whole, of its tensors of rows."""
        left = iter(tensors)
        return pytree.tree_unflatten([next(left) if leaf is ROWS else leaf for leaf in self.others], self.tree)


def form_of(name: str, tree: Any) -> tuple[str, str]:
    """What calls of one form have in common, and what is told apart beyond that. The same on every rank.

    The first is all but the numbers in tensors and those that are no integers, as a time may be told, of which no shape
    depends; the second has these.
    """
    leaves, structure = pytree.tree_flatten(tree)
    told = [f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else repr(x) for x in leaves]
    broken = [isinstance(x, Number) and not isinstance(x, Integral) for x in leaves]
    form = ["number" if its else each for its, each in zip(broken, told, strict=True)]
    return f"{name} {zlib.crc32(repr(structure).encode())} {form}", str(told)


def check_told(name: str, tree: Any) -> None:
    """Raises ValueError for an argument that is no tensor and no value, such as a cache of keys and values."""
    for leaf in pytree.tree_leaves(tree):
        if not isinstance(leaf, (Tensor, *TOLD)):
            raise ValueError(
                f"{name} is called with a {type(leaf).__name__}, of which it is not known what has rows, and what it "
                "keeps in it from call to call: its rows cannot be split over ranks; pass tensors"
            )


def sums_of(trees: Sequence[Any]) -> list[Tensor]:
    """The sums of all bits of the tensors, a number for each, by which ranks tell whether they were given the same."""
    leaves = [leaf for leaf in pytree.tree_leaves(trees) if isinstance(leaf, Tensor) and leaf.numel()]
    return [_integers(leaf.detach()).sum(dtype=torch.int64) for leaf in leaves]


def total_of(sums: Sequence[Tensor]) -> int:
    """Their sum, of 64 bits: each in its place, so that two that changed places make another."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for k, part in enumerate(sums):
        by_device.setdefault(part.device, []).append(part * (2 * k + 1))
    total = sum(int(torch.stack(parts).sum()) for parts in by_device.values())
    return (total + 2**63) % 2**64 - 2**63


def _integers(x: Tensor) -> Tensor:
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return x.contiguous().view(AS_INTEGERS[x.dtype.itemsize])


def _has_rows(leaf: Any, rows: int, listed: bool) -> bool:
    if isinstance(leaf, Tensor):
        return leaf.ndim > 0 and len(leaf) == rows
    return listed and isinstance(leaf, list) and len(leaf) == rows and all(isinstance(x, Tensor) for x in leaf)
