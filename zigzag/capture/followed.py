"""Conditions that their caller writes to between two runs of a loop that has copies of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.weak import TensorWeakRef

from zigzag.model import mark

__all__ = ["Followed"]


class Followed:
    """The tensors that were passed as conditions last, and the buffers that have their values.

    They are held weakly: what the caller lets go of is freed, and its values stay in the buffers. Of a view that is
    held of which it is one: a write to either counts in both, and callers drop views of what they go on writing to.
    """

    def __init__(self) -> None:
        self._copies: dict[str, list[_Copy]] = {}

    def copy(self, new: Mapping[str, Sequence[tuple[Tensor, Tensor]]]) -> None:
        """Copies what is new, by name, into its buffers, and of the rest what was written to since it was copied.

        It asks version counters, on the host, and waits for nothing.

        Raises:
            ValueError: for a tensor that has another shape by now.
        """
        for name, found in new.items():
            self._copies[name] = [_Copy(name, buffer, value) for buffer, value in found]
        for copies in self._copies.values():
            for copy in copies:
                copy.renew()


class _Copy:
    """A buffer, and whose values it has; none before the first `renew`."""

    def __init__(self, name: str, buffer: Tensor, value: Tensor) -> None:
        self.name, self.buffer, base = name, buffer, value._base
        self.strided: tuple[Sequence[int], Sequence[int], int] | None = None
        if base is not None and type(base) in (Tensor, nn.Parameter) and _kind(base) == _kind(value):
            self.strided = value.shape, value.stride(), int(value.storage_offset())
            value = base
        self.held = TensorWeakRef(value)
        self.mark: object = None

    def renew(self) -> None:
        value = self.held()
        if value is None or (now := mark(value)) == self.mark:
            return
        if self.strided is not None:
            value = value.as_strided(*self.strided)
        if value.shape != self.buffer.shape:
            raise ValueError(
                f"a tensor of {self.name} was resized since it was passed, from {tuple(self.buffer.shape)} to "
                f"{tuple(value.shape)}; make a new loop for it"
            )
        self.buffer.copy_(value)
        self.mark = now


def _kind(x: Tensor) -> tuple[torch.dtype, torch.layout, bool, bool]:
    """What a view has to have in common with what it is a view of, to be made anew by its strides."""
    return x.dtype, x.layout, x.is_conj(), x.is_neg()
