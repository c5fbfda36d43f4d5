"""Frames of a video that a pipeline knows, and whose prediction it makes of them itself, without its model's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["known_frames"]


def known_frames(
    p: Tensor, q: Tensor, guided: Tensor, sample: Tensor, explained: Callable[[Tensor, Tensor, Tensor, Tensor], bool]
) -> Tensor | None:
    """Which rows of `(B, C, F, H, W)` are of frames that the pipeline knows, `(…, 1)`; None where there are none.

    Those are the first frames, of which none is `explained` by what the model gives for it; the next one is.
    """
    if guided.ndim != 5 or not guided.shape == sample.shape == p.shape == q.shape:
        return None
    frames, count = guided.shape[2], 0
    for each in zip(*(torch.split(x, 1, 2) for x in (p, q, guided, sample)), strict=True):
        if explained(*each):
            break
        count += 1
    if not 0 < count < frames:
        return None
    known = torch.arange(frames, device=guided.device) < count
    return known[:, None, None].expand(*guided.shape[:-1], 1)
