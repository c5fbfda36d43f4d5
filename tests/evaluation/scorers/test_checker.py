"""The checker of the world of shapes as a score."""

from __future__ import annotations

from random import Random

import pytest
import torch

from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.scorers.checker import Checker
from zigzag.zoo.shapes import CATEGORIES, check, draw_caption, draw_scene, render

pytest.importorskip("scipy")


def test_its_verdicts_are_the_checkers() -> None:
    rng = Random(0)
    captions = [draw_caption(category, rng) for category in CATEGORIES for _ in range(4)]
    images = render([draw_scene(caption, rng) for caption in captions])
    prompts = [str(caption) for caption in captions]
    score = Checker([Prompt(text) for text in prompts])
    assert score(prompts, images).tolist() == [1.0] * len(prompts)
    others = prompts[4:] + prompts[:4]
    got = score(others, images)
    assert got.tolist() == [float(right) for right in check(others, images)]
    assert got.dtype == torch.float32
    assert not got.all()


def test_a_prompt_that_is_no_caption_is_refused_before_an_image_is_there() -> None:
    with pytest.raises(ValueError, match="unknown word 'dog'"):
        Checker([Prompt("a circle"), Prompt("a dog")])
