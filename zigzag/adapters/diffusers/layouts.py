"""Where the predictions of a model's branches are in its outputs, and how they lie in what the scheduler is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["LAYOUTS", "is_doubled", "rows_per_sample", "shape_of", "split_branches"]


def rows_per_sample(outputs: Sequence[Any], guided: Tensor) -> int:
    """Model rows per sample of the calls that gave `outputs`, for one guided prediction `guided` of all samples."""
    try:
        return len(_parts(outputs, guided))
    except ValueError:  # a layout of the pipeline's own, as of windows of frames
        return -(-sum(len(output) for output in outputs) // len(guided))


def is_doubled(outputs: Sequence[Any], guided: Tensor, sample: Tensor) -> bool:
    """Whether the scheduler is given the guided prediction twice, once for each half of a doubled batch (DiT).

    Its halves are then equal, and so are those of the state; those of the one output are not, unless both branches are
    given the same condition. Then what is given was still computed of the output, and is no part of it, as that of a
    pipeline without guidance would be, called with equal samples.
    """
    output = outputs[0]
    if len(outputs) != 1 or not isinstance(output, Tensor) or output.shape[0] != len(guided) or len(guided) % 2:
        return False
    if output.is_meta:
        return False
    (g, h), (p, q), (x, y) = guided.chunk(2), output.chunk(2), sample.chunk(2)
    if not torch.equal(g, h) or not torch.equal(x, y):
        return False
    part = guided.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
    return not part or not torch.equal(p, q)


def shape_of(output: Any) -> Any:
    """What stands for an output of the model where only its rows count: it holds no memory."""
    return tree_map(lambda part: torch.empty(part.shape, device="meta"), output)


def split_branches(outputs: Sequence[Any], guided: Tensor) -> list[list[Tensor]]:
    """The model's outputs one branch each, in the order in which they were computed, in every layout of `guided`.

    A doubled batch is cut in two; a list is stacked; frames are folded into the batch; tokens are set out in their
    frames. What is left out comes last (channels of a learned variance, tokens of a reference image) or first (a frame
    that is kept as it is, the text in front of an image's tokens, of the branch that has one): by their shapes alone
    these are not told apart, and where both are possible both are given. Where nothing is left out there is one.

    Raises:
        ValueError: for outputs that cannot be laid out like `guided`.
    """
    parts = _parts(outputs, guided)
    laid = [[lay(part, guided) for part in parts] for lay in LAYOUTS]
    found = [[part for part in each if part is not None] for each in laid]
    found = [each for each in found if len(each) == len(parts)]
    if not found:
        raise ValueError(
            f"the model's output, {tuple(parts[0].shape)} a branch, is not laid out like the prediction that the "
            f"pipeline makes of it, {tuple(guided.shape)}: attach cannot follow"
        )
    return found[:1] if all(_folded(part, guided).shape == guided.shape for part in parts) else found


def _parts(outputs: Sequence[Any], guided: Tensor) -> list[Tensor]:
    parts: list[Tensor] = []
    for output in outputs:
        tensor = torch.stack(list(output)) if isinstance(output, list | tuple) else output
        frames = tensor.shape[2] if tensor.ndim == guided.ndim + 1 else 1
        samples = guided.shape[0] // frames
        if not samples or tensor.shape[0] % samples:
            if sum(map(len, outputs)) == len(guided):
                raise ValueError(
                    f"the pipeline hands what its model gives to its scheduler before it guides, {len(outputs)} calls "
                    f"of {len(tensor)} at once: its branches are stepped each, and attach leads one state; use method "
                    "Standard()"
                )
            raise ValueError(
                f"the model's output, {tuple(tensor.shape)}, holds no whole number of the pipeline's samples, "
                f"{tuple(guided.shape)}: attach cannot tell its branches apart"
            )
        parts += tensor.split(samples)
    return parts


def _first(part: Tensor, guided: Tensor) -> Tensor | None:
    """What is left out comes last."""
    part = _folded(part, guided)
    return part[tuple(slice(size) for size in guided.shape)] if _holds(part, guided) else None


def _last(part: Tensor, guided: Tensor) -> Tensor | None:
    """What is left out comes first."""
    part = _folded(part, guided)
    if not _holds(part, guided):
        return None
    return part[tuple(slice(p - g, None) for p, g in zip(part.shape, guided.shape, strict=True))]


def _frames(part: Tensor, guided: Tensor) -> Tensor | None:
    """Tokens `(B, F'·H·W, C)`, the last of whose frames are `(B, C, F, H, W)`."""
    if part.ndim != 3 or guided.ndim != 5 or part.shape[2] != guided.shape[1]:
        return None
    *_, frames, height, width = guided.shape
    whole, rest = divmod(part.shape[1], height * width)
    if rest or whole < frames:
        return None
    return part.mT.reshape(len(part), -1, whole, height, width)[:, :, -frames:]


def _folded(part: Tensor, guided: Tensor) -> Tensor:
    return part.movedim(2, 1).flatten(0, 1) if part.ndim == guided.ndim + 1 else part


def _holds(part: Tensor, guided: Tensor) -> bool:
    return part.ndim == guided.ndim and all(p >= g for p, g in zip(part.shape, guided.shape, strict=True))


LAYOUTS: Final[tuple[Callable[[Tensor, Tensor], Tensor | None], ...]] = (_first, _last, _frames)
