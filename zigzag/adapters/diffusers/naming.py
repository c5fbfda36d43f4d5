"""From the outputs of a pipeline's model to the two branches of a step, call by call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.branches import Branches, Names, Unexplained, name_branches
from zigzag.adapters.diffusers.known import known_frames
from zigzag.adapters.diffusers.layouts import is_doubled, rows_per_sample, split_branches

__all__ = ["Naming"]


class Naming:
    """Tells the branches of a pipeline apart at the first call where they differ, and names those of every call.

    Rows of the prediction that are 0 there, while the model's are not, are kept by the pipeline (tokens of an image
    that is given): whatever the branch, it hands its own to the scheduler, and there is no gap. Nor is there one where
    it makes the prediction of frames that it knows (Cosmos, of a video that is given).

    Attributes:
        doubled: whether the scheduler is given twice the samples, one half a branch, both to be the same (DiT).
    """

    def __init__(self) -> None:
        self.doubled = False
        self._calls = 0
        self._names: Names | None = None
        self._layout = 0
        self._kept: Tensor | None = None

    def __call__(
        self, outputs: Sequence[Any], guided: Tensor, sample: Tensor, wanted: bool = True
    ) -> tuple[Branches | None, int]:
        """The two branches, where there are two and they are wanted, and the rows per sample that ran.

        Args:
            outputs: of the model. guided: what the pipeline makes of them. sample: the state that it is stepped from.
            wanted: whether the branches are.

        Raises:
            ValueError: for outputs that cannot be followed.
        """
        if not self._calls:
            self.doubled = is_doubled(outputs, guided, sample)
        self._calls += 1
        if self.doubled:
            guided, sample = (x[: len(x) // 2] for x in (guided, sample))
        if not wanted:
            return None, rows_per_sample(outputs, guided)
        laid = split_branches(outputs, guided)
        if (count := len(laid[0])) == 1:
            return None, 1
        if count != 2:
            raise ValueError(
                f"the pipeline evaluates {count} branches a step, and attach follows two, a conditional and an "
                "unconditional one; switch off what takes the others (perturbed-attention or skip-layer guidance)"
            )
        if self._names is None:
            self._name(laid, guided, sample)
        # While the two are equal there is no gap between them and what is made of them.
        pair = Branches(guided, guided)
        if self._names is not None:
            # A first call may give more than the later ones, for which its model's cache answers (Qwen-Image 2.1).
            *parts, m, x = _without(self._kept, *laid[min(self._layout, len(laid) - 1)], guided, sample)
            pair = self._names.of(parts, m, x)
            if self._kept is not None:
                pair = Branches(*(torch.where(self._kept, guided, part) for part in pair))
        return Branches(*(torch.cat([part, part]) for part in pair)) if self.doubled else pair, 2

    def _name(self, laid: Sequence[Sequence[Tensor]], guided: Tensor, sample: Tensor) -> None:
        errors = []
        for layout, kept in _ways(laid, guided, sample):
            try:
                self._names = name_branches(*_without(kept, *laid[layout], guided, sample))
                self._layout, self._kept = layout, kept
                return
            except ValueError as error:
                errors.append(error)
        raise errors[0]


def _ways(laid: Sequence[Sequence[Tensor]], guided: Tensor, sample: Tensor) -> Iterator[tuple[int, Tensor | None]]:
    """Layouts, and what the pipeline may keep in each; what it may know itself, where it is no other."""
    for layout, (p, q) in enumerate(laid):
        yield layout, _kept(p, q, guided)
    for layout, (p, q) in enumerate(laid):
        if (known := known_frames(p, q, guided, sample, _explained)) is not None:
            yield layout, known


def _explained(p: Tensor, q: Tensor, guided: Tensor, sample: Tensor) -> bool:
    try:
        name_branches(p, q, guided, sample)
    except ValueError as error:
        return not isinstance(error, Unexplained)
    return True


def _kept(p: Tensor, q: Tensor, guided: Tensor) -> Tensor | None:
    """Which rows of the last dimension the pipeline keeps, `(…, 1)`; None where it keeps none."""
    if guided.shape[-1] <= 3:
        return None
    kept: Tensor = (guided == 0).all(-1, keepdim=True) & ((p != 0) | (q != 0)).any(-1, keepdim=True)
    return kept if bool(kept.any()) else None


def _without(kept: Tensor | None, *tensors: Tensor) -> list[Tensor]:
    """With 0 in the rows that are kept."""
    return [x if kept is None or x.shape[:-1] != kept.shape[:-1] else x.masked_fill(kept, 0) for x in tensors]
