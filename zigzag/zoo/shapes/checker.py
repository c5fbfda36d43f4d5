"""Whether a caption holds of things, those of a scene or those that the detector found in an image."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from torch import Tensor

from zigzag.zoo.shapes.detector import detect
from zigzag.zoo.shapes.grammar import Caption, Noun, parse
from zigzag.zoo.shapes.scenes import COLOURS, Scene, Thing, place

__all__ = ["MARGIN", "check", "draw_scene", "holds"]

MARGIN = 2.0  # pixels
_CLEAR = 2.0  # pixels more than the margin, in scenes drawn for a caption: no caption is shown by a borderline case


def holds(caption: Caption, things: Sequence[Thing], margin: float = MARGIN) -> bool:
    """Whether the things are exactly those that the caption names, at the place it says.

    The position is judged on the dominant axis: "left of" holds where the first centre is to the left of the second
    by more than `margin` pixels, and by `margin` more than it is above or below it.
    """
    if caption.count > 1:
        return len(things) == caption.count and all(_is(thing, caption.nouns[0]) for thing in things)
    if len(things) != len(caption.nouns):
        return False
    orders = (things, things[::-1]) if len(things) == 2 else (things,)
    return any(
        all(map(_is, order, caption.nouns)) and (caption.relation is None or _related(caption.relation, order, margin))
        for order in orders
    )


def _is(thing: Thing, noun: Noun) -> bool:
    return thing.shape == noun.shape and noun.colour in (None, thing.colour)


def _related(relation: str, things: Sequence[Thing], margin: float) -> bool:
    dx, dy = things[0].x - things[1].x, things[0].y - things[1].y
    along, across = {"left of": (-dx, dy), "right of": (dx, dy), "above": (-dy, dx), "below": (dy, dx)}[relation]
    return along > abs(across) + margin


def draw_scene(caption: Caption, rng: Random) -> Scene:
    """A scene at random of which the caption holds, clearly; what it leaves open (colours, places, sizes) is random."""
    while True:
        nouns = caption.nouns * caption.count
        scene = place([(noun.shape, noun.colour or rng.choice(tuple(COLOURS))) for noun in nouns], rng)
        if holds(caption, scene, MARGIN + _CLEAR):
            return scene


def check(prompts: Sequence[str], images: Tensor) -> list[bool]:
    """Whether each image `(B, 3, SIDE, SIDE)` in [0, 1] shows what its prompt says.

    Raises:
        ValueError: for a prompt that is no caption, or unless there is a prompt for every image.
        ImportError: without scipy, naming the extra that brings it.
    """
    wanted = [parse(prompt) for prompt in prompts]
    if len(wanted) != len(images):
        raise ValueError(f"prompts must be one per image: {len(wanted)} prompts, {len(images)} images")
    return [holds(caption, things) for caption, things in zip(wanted, detect(images), strict=True)]
