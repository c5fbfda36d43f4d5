"""Reading an image back into things: segmentation by colour, connected components, shape by geometry."""

from __future__ import annotations

import torch
from torch import Tensor

from zigzag.support.extras import require
from zigzag.zoo.shapes.scenes import COLOURS, GROUND, PEAK, SHAPES, SIDE, Scene, Thing, coverage

__all__ = ["detect"]

LEAST_AREA = 12  # pixels; half of the smallest thing in a scene
LEAST_FIT = 0.6  # overlap with the ideal outline below which a component is no shape


def detect(images: Tensor) -> list[Scene]:
    """The things in each image `(B, 3, SIDE, SIDE)` in [0, 1], from top to bottom.

    A pixel belongs to a thing where the brightest channel has risen half of the way from the ground to the peak; its
    colour is the nearest in direction from the ground. Each connected component (8 neighbours) of one colour with at
    least `LEAST_AREA` pixels is a thing. Its area and centre are sums over the anti-aliased rise in the component and
    a border of one pixel. Its shape is the one whose outline, drawn with that area and centre, overlaps the rise most
    (soft intersection over union), or "other" where none overlaps by `LEAST_FIT`.

    Raises:
        ValueError: for another shape of images.
        ImportError: without scipy, naming the extra that brings it.
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"images must be (B, 3, {SIDE}, {SIDE}), got {tuple(images.shape)}")
    lit = (images.detach().cpu().double() - GROUND) / (PEAK - GROUND)
    rise = lit.amax(1).clamp(0, 1)
    directions = torch.tensor(list(COLOURS.values()), dtype=torch.float64, device="cpu")
    directions = directions / directions.norm(dim=1, keepdim=True)
    nearest = torch.einsum("kc,bchw->bkhw", directions, lit).argmax(1)
    nearest = nearest.masked_fill(rise < 0.5, -1)

    owners, colours, masks = _components(nearest)
    scenes: list[list[Thing]] = [[] for _ in images]
    if owners:
        soft = rise[owners] * masks
        shapes, x, y, size = _shapes(soft)
        for k, b in enumerate(owners):
            scenes[b].append(Thing(shapes[k], colours[k], x[k], y[k], size[k]))
    return [tuple(sorted(things, key=lambda thing: (thing.y, thing.x))) for things in scenes]


def _components(nearest: Tensor) -> tuple[list[int], list[str], Tensor]:
    """Of each component: its image, its colour, and its pixels with a border of one, `(N, SIDE, SIDE)`."""
    ndimage = require("scipy.ndimage", "the detector needs scipy", "shapes")
    names = list(COLOURS)
    owners, colours, masks = [], [], []
    block = torch.ones(3, 3, dtype=torch.bool, device="cpu").numpy()
    for b, image in enumerate(nearest.numpy()):
        for k in set(image[image >= 0].tolist()):
            labels, count = ndimage.label(image == k, block)
            for label in range(1, count + 1):
                mask = labels == label
                if mask.sum() >= LEAST_AREA:
                    owners.append(b)
                    colours.append(names[k])
                    # The border holds the edge's faint half, but never the bright pixels of a neighbour.
                    border = ndimage.binary_dilation(mask, block) & (image < 0)
                    masks.append(torch.from_numpy(mask | border))
    return owners, colours, torch.stack(masks) if masks else torch.empty(0, SIDE, SIDE, device="cpu")


def _shapes(soft: Tensor) -> tuple[list[str], list[float], list[float], list[float]]:
    """Shape, centre and size of each component from its anti-aliased pixels `(N, SIDE, SIDE)`."""
    centres = torch.arange(SIDE, dtype=soft.dtype, device="cpu") + 0.5
    area = soft.sum((1, 2))
    x, y = (soft.sum(1) * centres).sum(1) / area, (soft.sum(2) * centres).sum(1) / area
    size = (area / torch.pi).sqrt()
    ideal = torch.stack([coverage(shape, x, y, size) for shape in SHAPES])
    fit = torch.minimum(ideal, soft).sum((2, 3)) / torch.maximum(ideal, soft).sum((2, 3))
    best = [SHAPES[k] if f >= LEAST_FIT else "other" for f, k in zip(*(v.tolist() for v in fit.max(0)), strict=True)]
    return best, x.tolist(), y.tolist(), size.tolist()
