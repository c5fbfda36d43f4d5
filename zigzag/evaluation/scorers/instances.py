"""Instances of things in images, by a Mask2Former of transformers: what is where, and how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from zigzag.evaluation.scorers.pixels import normalised, resized

__all__ = ["Instance", "instances", "shown_to_detector"]

SHORTER, LONGER, MULTIPLE = 800, 1333, 32  # pixels of the sides that it is shown
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False)
class Instance:
    """A thing in an image.

    Attributes:
        thing: its class. score: how sure, in [0, 1]. mask: its pixels, bool `(H, W)`.
        box: left, top, right and bottom edge of them, in pixels.
    """

    thing: str
    score: float
    mask: Tensor
    box: tuple[float, float, float, float]


def shown_to_detector(image: Tensor, shorter: int = SHORTER, longer: int = LONGER) -> tuple[Tensor, Tensor]:
    """An image `(3, H, W)` as Mask2Former is shown it, a batch of one, and which of the pixels are its own.

    The shorter side becomes `shorter`, or less where the longer one would be over `longer`; both are filled up, below
    and to the right, to a multiple of 32.
    """
    h, w = image.shape[-2:]
    side = min(shorter, longer * min(h, w) / max(h, w))
    height, width = (round(side), int(side * w / h)) if h <= w else (int(side * h / w), round(side))
    shown = normalised(resized(image[None], height, width, "bilinear"), MEAN, STD)
    own = torch.ones(1, height, width, dtype=torch.int64, device=image.device)
    sides = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    return pad(shown, sides), pad(own, sides)


@torch.no_grad()
def instances(model: Any, image: Tensor, least: float = 0.0, most: int = 100, shorter: int = SHORTER) -> list[Instance]:
    r"""What a Mask2Former sees in an image `(3, H, W)` in [0, 1], the surest first.

    Of the pairs of a query and a class, the `most` likeliest; the mask of each is where its logit is positive, and its
    score

    .. math:: p(\text{class}) \cdot \operatorname{mean}_{\text{mask}} \operatorname{sigmoid}(\text{logit})

    Source: Cheng et al. 2022, the inference of instances in the released code.

    Args:
        model: a `Mask2FormerForUniversalSegmentation`. least: the score that an instance is above.
        shorter: the side that it is shown, in pixels.
    """
    shown, own = shown_to_detector(image, shorter)
    said = model(pixel_values=shown, pixel_mask=own)
    names: dict[int, str] = model.config.id2label
    likely = said.class_queries_logits[0].softmax(1)[:, :-1]  # the last one is "nothing"
    p, where = likely.flatten().topk(min(most, likely.numel()))
    query, kind = where // likely.shape[1], where % likely.shape[1]
    # From the network's resolution to what it was shown, and without the filling to the image.
    height, width = int(own[0, :, 0].sum()), int(own[0, 0].sum())
    logits = _scaled(said.masks_queries_logits[0], shown.shape[-2:])[:, :height, :width]
    logits = _scaled(logits, image.shape[-2:])[query]
    inside = logits > 0
    scores = p * (logits.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    return [
        Instance(names[int(kind[n])], float(scores[n]), inside[n], _box(inside[n]))
        for n in scores.argsort(descending=True).tolist()
        if scores[n] > least  # that of an empty mask is 0
    ]


def _scaled(masks: Tensor, size: Any) -> Tensor:
    return interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]


def _box(mask: Tensor) -> tuple[float, float, float, float]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
