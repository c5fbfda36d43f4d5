"""The detector of a rendered scene is the scene."""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

import pytest
import torch
from torch import Tensor

from zigzag.zoo.shapes import CATEGORIES, COLOURS, SHAPES, Scene, Thing, draw_caption, draw_scene, render
from zigzag.zoo.shapes.scenes import GROUND, PEAK, SIZES, place

pytest.importorskip("scipy")
from zigzag.zoo.shapes.detector import detect


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = Random(seed)
    return [draw_scene(draw_caption(category, rng), rng) for category in CATEGORIES for _ in range(count)]


def check_reading(read: Callable[[Tensor], list[Scene]], drawn: list[Scene]) -> None:
    """As many things, of the same shapes and colours, their centres within 0.15 pixels and sizes within 3 %."""
    for found, scene in zip(read(render(drawn)), drawn, strict=True):
        assert len(found) == len(scene)
        for thing, true in zip(found, sorted(scene, key=lambda thing: (thing.y, thing.x)), strict=True):
            assert (thing.shape, thing.colour) == (true.shape, true.colour)
            assert abs(thing.x - true.x) < 0.15 and abs(thing.y - true.y) < 0.15
            assert abs(thing.size / true.size - 1) < 0.03


def test_the_detector_of_a_rendered_scene_is_the_scene() -> None:
    check_reading(detect, scenes(100))


def test_the_check_of_the_reading_refuses_wrong_readings() -> None:
    drawn = scenes(5)
    mutants: list[Callable[[Tensor], list[Scene]]] = [
        lambda images: detect(images.flip(1)),  # blue, green, red
        lambda images: detect(images.flip(3)),
        lambda images: [scene[:1] for scene in detect(images)],
        lambda images: detect(images.mT),
    ]
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check_reading(mutant, drawn)


@pytest.mark.parametrize("size", SIZES)
def test_every_shape_in_every_colour_is_read_at_the_smallest_and_the_largest_size(size: float) -> None:
    rng = Random(0)
    drawn: list[Scene] = []
    for shape in SHAPES:
        for colour in COLOURS:
            for _ in range(10):
                at = place([(shape, colour)], rng)[0]
                drawn.append((Thing(shape, colour, min(max(at.x, 7), 25), min(max(at.y, 8), 25), size),))
    check_reading(detect, drawn)


def test_a_little_noise_and_softer_colours_change_neither_shapes_nor_colours() -> None:
    drawn = scenes(20)
    images = render(drawn)
    noisy = images + 0.04 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    pale = GROUND + 0.8 * (images - GROUND) + 0.03
    for altered in (noisy, pale, noisy.clamp(0, 1)):
        for found, scene in zip(detect(altered), drawn, strict=True):
            assert sorted((t.shape, t.colour) for t in found) == sorted((t.shape, t.colour) for t in scene)


def test_an_empty_image_shows_nothing_and_a_batch_may_be_empty() -> None:
    assert detect(render([()])) == [()]
    assert detect(torch.zeros(0, 3, 32, 32)) == []


def test_specks_are_nothing_and_bright_blobs_that_are_no_shape_are_other() -> None:
    image = torch.full((1, 3, 32, 32), GROUND)
    image[0, 0, 4:7, 4:7] = PEAK  # nine pixels
    assert detect(image) == [()]
    image[0, 1, 20:22, 2:30] = PEAK  # a bar
    (found,) = detect(image)
    assert [(thing.shape, thing.colour) for thing in found] == [("other", "green")]


def test_things_of_different_colours_that_touch_are_two_and_of_one_colour_are_one() -> None:
    def pair(colour: str) -> list[str]:
        scene = (Thing("square", "red", 10.5, 16, 4), Thing("square", colour, 10.5 + 7.09, 16, 4))
        return [thing.shape for thing in detect(render([scene]))[0]]

    assert pair("blue") == ["square", "square"]
    assert len(pair("red")) == 1


def test_what_is_no_batch_of_images_is_refused() -> None:
    for shape in ((3, 32, 32), (1, 1, 32, 32), (1, 3, 16, 16)):
        with pytest.raises(ValueError, match=r"images must be \(B, 3, 32, 32\)"):
            detect(torch.zeros(shape))


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r"the detector needs scipy: pip install 'zigzag-diffusion\[shapes\]'"):
        detect(render([()]))
