"""The renderer draws what the scene says: areas, centres, colours, and things that do not touch."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zigzag.zoo.shapes import COLOURS, SHAPES, Thing, render
from zigzag.zoo.shapes.scenes import EDGE, GAP, GROUND, PEAK, SIDE, SIZES, coverage, place

Cover = Callable[[str, Tensor, Tensor, Tensor], Tensor]
PIXELS = torch.arange(SIDE, dtype=torch.float64) + 0.5


def check_area_and_centre(cover: Cover, shape: str, x: float, y: float, size: float) -> None:
    """∑ coverage = π·size² and its centre is (x, y), to the error of treating an edge in a pixel as straight.

    An edge is wrong by at most the corner that its pixel's half diagonal leaves, 0.1 of a pixel, with a sign that
    varies along the outline; a fiftieth of the area and a tenth of a pixel are generous.
    """
    at = [torch.tensor([v], dtype=torch.float64) for v in (x, y, size)]
    over = cover(shape, *at)[0]
    assert over.shape == (SIDE, SIDE) and over.min() >= 0 and over.max() <= 1
    area = over.sum().item()
    assert abs(area / (math.pi * size**2) - 1) < 0.03
    assert abs((over.sum(0) * PIXELS).sum().item() / area - x) < 0.1
    assert abs((over.sum(1) * PIXELS).sum().item() / area - y) < 0.1


@given(st.sampled_from(SHAPES), st.floats(10, 22), st.floats(10, 22), st.floats(*SIZES))
def test_a_shape_has_the_area_of_its_disc_and_its_centre_at_the_point_given(
    shape: str, x: float, y: float, size: float
) -> None:
    check_area_and_centre(coverage, shape, x, y, size)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_check_of_area_and_centre_refuses_wrong_drawings(shape: str) -> None:
    mutants: list[Cover] = [
        lambda s, x, y, size: coverage(s, x, y, 1.05 * size),
        lambda s, x, y, size: coverage(s, x + 0.5, y, size),  # pixel corners taken for pixel centres
        lambda s, x, y, size: coverage(s, y, x, size),
    ]
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check_area_and_centre(mutant, shape, 12.3, 17.8, 4.0)


def test_each_shape_has_its_own_symmetries() -> None:
    """About the middle of the image: a circle and a square are unchanged by a quarter turn, a triangle by a mirror."""
    middle, size = torch.tensor([16.0]), torch.tensor([4.4])
    drawn = {shape: coverage(shape, middle, middle, size)[0] for shape in SHAPES}
    for shape in ("circle", "square"):
        torch.testing.assert_close(drawn[shape].rot90(), drawn[shape])
    torch.testing.assert_close(drawn["triangle"].flip(1), drawn["triangle"])
    assert (drawn["triangle"].flip(0) - drawn["triangle"]).abs().max() > 0.5
    # On the diagonal the corner of the square lies outside the circle of the same area.
    assert drawn["square"][12, 12] > 0.8 and drawn["circle"][12, 12] < 0.2


def test_edges_are_anti_aliased() -> None:
    """A square whose edge covers 0.3 of a column of pixels lights it by 0.3."""
    half = math.sqrt(math.pi) / 2 * 4
    over = coverage("square", *(torch.tensor([v], dtype=torch.float64) for v in (10.3 + half, 16.0, 4.0)))
    torch.testing.assert_close(over[0, 16, 9:12], torch.tensor([0.0, 0.7, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("colour", COLOURS)
def test_the_middle_of_a_thing_has_its_colour_and_the_corner_the_ground(colour: str) -> None:
    image = render([(Thing("circle", colour, 15, 17, 4),)])[0]
    expected = torch.tensor(COLOURS[colour]) * (PEAK - GROUND) + GROUND
    torch.testing.assert_close(image[:, 17, 15], expected)
    torch.testing.assert_close(image[:, 0, 0], torch.full((3,), GROUND))


def test_a_later_thing_hides_an_earlier_one() -> None:
    red, blue = Thing("square", "red", 16, 16, 4), Thing("square", "blue", 16, 16, 4)
    torch.testing.assert_close(render([(red, blue)])[0, :, 16, 16], torch.tensor([GROUND, GROUND, PEAK]))
    torch.testing.assert_close(render([(blue, red)])[0, :, 16, 16], torch.tensor([PEAK, GROUND, GROUND]))


def test_a_batch_is_its_scenes_one_by_one_and_an_empty_scene_is_the_ground() -> None:
    rng = Random(0)
    scenes = [place([(rng.choice(SHAPES), rng.choice(list(COLOURS))) for _ in range(n)], rng) for n in range(5)]
    images = render(scenes)
    assert images.shape == (5, 3, SIDE, SIDE) and images.dtype == torch.float32
    for scene, image in zip(scenes, images, strict=True):
        assert torch.equal(render([scene])[0], image)
    assert torch.equal(images[0], torch.full((3, SIDE, SIDE), GROUND))
    assert render([]).shape == (0, 3, SIDE, SIDE)


@given(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4), st.integers(0, 2**32))
def test_things_lie_within_the_image_and_apart(shapes: list[str], seed: int) -> None:
    scene = place([(shape, "red") for shape in shapes], Random(seed))
    assert [thing.shape for thing in scene] == shapes
    for k, thing in enumerate(scene):
        left, top, right, bottom = thing.box
        assert SIZES[0] <= thing.size <= SIZES[1]
        assert min(left, top) >= EDGE - 1e-9 and max(right, bottom) <= SIDE - EDGE + 1e-9
        for other in scene[:k]:
            l2, t2, r2, b2 = other.box
            assert l2 - right >= GAP or left - r2 >= GAP or t2 - bottom >= GAP or top - b2 >= GAP


def test_what_a_box_says_is_where_the_coverage_ends() -> None:
    for shape in SHAPES:
        thing = Thing(shape, "red", 15.2, 16.7, 4.1)
        over = coverage(shape, *(torch.tensor([v]) for v in (thing.x, thing.y, thing.size)))[0]
        left, top, right, bottom = thing.box
        # A pixel lights where an edge comes within half a pixel of its centre; past a corner, somewhat less.
        columns, rows = (over.sum(0) > 0).nonzero().flatten(), (over.sum(1) > 0).nonzero().flatten()
        assert abs(columns.min().item() - math.floor(left)) <= 1 and abs(columns.max().item() - math.floor(right)) <= 1
        assert abs(rows.min().item() - math.floor(top)) <= 1 and abs(rows.max().item() - math.floor(bottom)) <= 1


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="shape must be one of circle"):
        coverage("star", *(torch.ones(1),) * 3)
    with pytest.raises(ValueError, match="12 things do not fit"):
        place([("circle", "red")] * 12, Random(0))
