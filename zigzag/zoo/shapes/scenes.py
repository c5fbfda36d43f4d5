"""A procedural world: coloured circles, squares and triangles on a dark ground, drawn with anti-aliased edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

__all__ = ["COLOURS", "GROUND", "PEAK", "SHAPES", "SIDE", "Scene", "Thing", "coverage", "place", "render"]

SIDE = 32
GROUND, PEAK = 0.1, 0.9
SHAPES = ("circle", "square", "triangle")
# The corners of the colour cube, but black and white: each is GROUND or PEAK in every channel.
COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
SIZES = (3.2, 4.8)
HOST: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are
GAP, EDGE = 2.0, 0.5  # the least distance in pixels between two things, and from a thing to the edge

# Half the side of a square, and of the base of an equilateral triangle, with the area of the disc of radius 1.
SQUARE = math.sqrt(math.pi) / 2
TRIANGLE = math.sqrt(math.pi / math.sqrt(3))


@dataclass(frozen=True)
class Thing:
    """One thing in a scene, or found in an image.

    Attributes:
        shape: one of `SHAPES` (or "other", where an image shows something that is none of them).
        colour: one of `COLOURS`.
        x, y: the centre of its area in pixels, from the left and from the top edge of the image.
        size: the radius in pixels of the disc of the same area.
    """

    shape: str
    colour: str
    x: float
    y: float
    size: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge, in pixels."""
        if self.shape == "triangle":
            half, third = TRIANGLE * self.size, TRIANGLE * self.size / math.sqrt(3)
            return self.x - half, self.y - 2 * third, self.x + half, self.y + third
        half = self.size * (SQUARE if self.shape == "square" else 1)
        return self.x - half, self.y - half, self.x + half, self.y + half


Scene = tuple[Thing, ...]


def coverage(shape: str, x: Tensor, y: Tensor, size: Tensor) -> Tensor:
    r"""How much of each pixel a shape covers: `(N, SIDE, SIDE)` in [0, 1] for `x`, `y`, `size` `(N,)`.

    A straight or curved edge at signed distance `s` from the centre of a pixel covers `clamp(1/2 − s, 0, 1)` of it;
    a shape is the product of its edges.

    Raises:
        ValueError: for a shape that is none of `SHAPES`.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    centres = torch.arange(SIDE, dtype=x.dtype, device=x.device) + 0.5
    dx, dy = centres - x[:, None, None], centres[:, None] - y[:, None, None]
    size = size[:, None, None]
    if shape == "circle":
        return _inside(torch.hypot(dx, dy) - size)
    if shape == "square":
        return _inside(dx.abs() - SQUARE * size) * _inside(dy.abs() - SQUARE * size)
    inradius = TRIANGLE * size / math.sqrt(3)  # the three edges of the triangle are at this distance from its centre
    slanted = dx.abs() * (math.sqrt(3) / 2) - dy / 2
    return _inside(dy - inradius) * _inside(slanted - inradius)


def _inside(distance: Tensor) -> Tensor:
    return (0.5 - distance).clamp(0, 1)


def render(scenes: Sequence[Scene]) -> Tensor:
    """The images of scenes, float32 `(B, 3, SIDE, SIDE)` in [0, 1]; a later thing hides an earlier one."""
    images = torch.full((len(scenes), 3, SIDE, SIDE), GROUND, **HOST)
    for layer in range(max(map(len, scenes), default=0)):
        for shape in SHAPES:
            rows = [b for b, scene in enumerate(scenes) if layer < len(scene) and scene[layer].shape == shape]
            if not rows:
                continue
            things = [scenes[b][layer] for b in rows]
            x, y, size = torch.tensor([(thing.x, thing.y, thing.size) for thing in things], **HOST).unbind(1)
            colour = torch.tensor([COLOURS[thing.colour] for thing in things], **HOST) * (PEAK - GROUND) + GROUND
            over = coverage(shape, x, y, size)[:, None]
            images[rows] = torch.lerp(images[rows], colour[:, :, None, None].expand(-1, -1, SIDE, SIDE), over)
    return images


def place(kinds: Sequence[tuple[str, str]], rng: Random) -> Scene:
    """A scene of things of the given shapes and colours, at random places and sizes, none touching another.

    Raises:
        ValueError: where they do not fit (four always do).
    """
    for _ in range(1000):
        scene: list[Thing] = []
        for shape, colour in kinds:
            for _ in range(20):
                thing = _throw(shape, colour, rng)
                if all(_apart(thing, other) for other in scene):
                    scene.append(thing)
                    break
            else:
                break  # begin anew: the things before it leave no room
        if len(scene) == len(kinds):
            return tuple(scene)
    raise ValueError(f"{len(kinds)} things do not fit in a scene")


def _throw(shape: str, colour: str, rng: Random) -> Thing:
    size = rng.uniform(*SIZES)
    left, top, right, bottom = Thing(shape, colour, 0, 0, size).box
    x = rng.uniform(EDGE - left, SIDE - EDGE - right)
    return Thing(shape, colour, x, rng.uniform(EDGE - top, SIDE - EDGE - bottom), size)


def _apart(one: Thing, other: Thing) -> bool:
    left, top, right, bottom = one.box
    left2, top2, right2, bottom2 = other.box
    return max(left2 - right, left - right2, top2 - bottom, top - bottom2) >= GAP
