"""A caption holds of exactly the things that it names, at the place it says."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from zigzag.zoo.shapes import CATEGORIES, Scene, Thing, check, draw_caption, draw_scene, holds, parse, render
from zigzag.zoo.shapes.__main__ import measure
from zigzag.zoo.shapes.checker import MARGIN

pytest.importorskip("scipy")

RED = Thing("circle", "red", 8, 16, 4)
BLUE = Thing("square", "blue", 24, 17, 4)
TRIANGLES: Scene = tuple(Thing("triangle", "cyan", x, y, 3.5) for x, y in ((8, 8), (24, 8), (16, 24)))


@pytest.mark.parametrize(
    ("things", "true", "false"),
    [
        ([RED], ["a circle", "a red circle"], ["a square", "a blue circle", "two circles", "a circle and a square"]),
        (
            [RED, BLUE],
            [
                "a circle and a square",
                "a square and a circle",
                "a red circle and a blue square",
                "a red circle and a square",
                "a circle left of a square",
                "a blue square right of a red circle",
            ],
            [
                "a circle",
                "a red circle",
                "a circle and a circle",
                "a blue circle and a red square",
                "two circles",
                "a circle right of a square",
                "a circle above a square",
                "a circle below a square",
                "a square left of a circle",
                "a blue circle left of a red square",
            ],
        ),
        (TRIANGLES, ["three triangles"], ["two triangles", "four triangles", "three circles", "a triangle"]),
        ([*TRIANGLES, RED], [], ["three triangles", "four triangles", "a red circle"]),
        ([Thing("other", "red", 8, 8, 4)], [], ["a circle", "a square", "a triangle"]),
        ([], [], ["a circle", "two circles", "a circle and a square"]),
    ],
)
def test_what_holds_and_what_does_not(things: Sequence[Thing], true: list[str], false: list[str]) -> None:
    for order in (things, things[::-1]):
        assert {text: holds(parse(text), order) for text in true + false} == dict.fromkeys(true, True) | dict.fromkeys(
            false, False
        )


@pytest.mark.parametrize(
    ("relation", "dx", "dy"), [("left of", -1, 0), ("right of", 1, 0), ("above", 0, -1), ("below", 0, 1)]
)
def test_the_position_is_judged_on_the_dominant_axis_with_a_margin(relation: str, dx: int, dy: int) -> None:
    """With the offset `along` the axis and `across` it, the relation holds iff along > |across| + margin."""
    caption = parse(f"a circle {relation} a square")
    for along in (-6.0, 0.0, MARGIN, MARGIN + 0.1, 6.0, 12.0):
        for across in (-7.0, -1.0, 0.0, 1.0, 3.9, 4.1, 9.0):
            x, y = 16 + along * dx + across * dy, 16 + along * dy + across * dx
            things = [Thing("circle", "red", x, y, 4), Thing("square", "red", 16, 16, 4)]
            assert holds(caption, things) == (along > abs(across) + MARGIN)


def test_of_four_relations_at_most_one_holds() -> None:
    rng = Random(0)
    for _ in range(300):
        things = [Thing(shape, "red", rng.uniform(4, 28), rng.uniform(4, 28), 4) for shape in ("circle", "square")]
        true = [r for r in ("left of", "right of", "above", "below") if holds(parse(f"a circle {r} a square"), things)]
        assert len(true) <= 1


def test_the_scene_drawn_for_a_caption_shows_it_clearly() -> None:
    rng = Random(0)
    for category in CATEGORIES:
        for _ in range(50):
            caption = draw_caption(category, rng)
            assert holds(caption, draw_scene(caption, rng), margin=MARGIN + 1)


@pytest.mark.parametrize("category", CATEGORIES)
def test_on_rendered_scenes_true_captions_are_held_and_altered_ones_rejected(category: str) -> None:
    """At least 99.5 % each; `python -m zigzag.zoo.shapes` measures the same on 10,000 scenes."""
    accepted, rejected, false = measure(category, 300, seed=1)
    assert accepted >= 0.995 * 300
    assert false >= 300 and rejected >= 0.995 * false


def test_images_are_checked_against_their_prompts() -> None:
    images = render([(RED,), (RED, BLUE)])
    assert check(["a red circle", "a circle left of a square"], images) == [True, True]
    assert check(["a blue circle", "a circle above a square"], images) == [False, False]
    with pytest.raises(ValueError, match="prompts must be one per image: 1 prompts, 2 images"):
        check(["a circle"], images)
    with pytest.raises(ValueError, match="unknown word 'zebra'"):
        check(["a circle", "a zebra"], images)
