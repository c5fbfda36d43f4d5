"""Images of a learned model inverted, and brought back under other prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zigzag.inversion import Inverted, Scheme, invert, reconstruct, telling_last
from zigzag.zoo.learned import LearnedModel

__all__ = ["MOVED", "Edited", "edit", "kept"]

MOVED = 0.1  # of a channel in [0, 1]: more than that, and a pixel is another


@dataclass(frozen=True)
class Edited:
    """What came of images `(B, 3, 32, 32)` in [0, 1].

    Attributes:
        inverted: the inversion, with its report. reconstruction: the images under the prompts of the inversion.
        edits: under each of the others.
    """

    inverted: Inverted
    reconstruction: Tensor
    edits: tuple[Tensor, ...]


def edit(
    model: LearnedModel,
    images: Tensor,
    prompts: Sequence[str],
    edits: Sequence[Sequence[str]],
    scheme: Scheme,
    *,
    steps: int = 20,
    guidance: float = 1.0,
    edit_guidance: float | None = None,
    seed: int = 0,
    inverted: Inverted | None = None,
) -> Edited:
    """Inverts images on the grid of the model, and reconstructs them under their prompts and under others.

    States are carried in float64. The model is told time 0 where a scheme asks it at the last knot.

    Args:
        prompts: one an image. edits: lists of prompts, one an image each.
        guidance: scale w of the inversion, and of the edits, unless `edit_guidance` is another.
        seed: of the noise that a scheme draws. inverted: an inversion made before, in place of one of the images.

    Raises:
        ValueError: for an unknown word, and as `invert` and `reconstruct`.
    """
    solver = telling_last(model.solver(steps), 0)
    cond, uncond = model.encode(prompts), model.encode([""] * len(prompts))
    others = [model.encode(texts) for texts in edits]
    if inverted is None:
        inverted = invert(
            model.eps_fn, model.image_to_state(images), solver, scheme, cond=cond, uncond=uncond, guidance=guidance,
            generator=torch.Generator().manual_seed(seed), dtype=torch.float64,
        )  # fmt: skip
    scale = guidance if edit_guidance is None else edit_guidance
    asked = [(cond, guidance), *((other, scale) for other in others)]
    reconstruction, *edited = [
        model.decode(reconstruct(model.eps_fn, inverted, solver, cond=c, uncond=uncond, guidance=w)) for c, w in asked
    ]
    return Edited(inverted, reconstruction, tuple(edited))


def kept(before: Tensor, after: Tensor, where: Tensor | None = None) -> float:
    """The share of pixels that no channel moved by more than `MOVED`, of images `(B, 3, H, W)` in [0, 1].

    Args:
        where: `(B, H, W)`, the pixels that count; by default all.
    """
    same = (after - before).abs().amax(1) <= MOVED
    return float((same if where is None else same[where]).double().mean())
