"""The accuracy of standard sampling: right for a model that knows, and on noise of its own for every prompt."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("scipy")
from support.painters import painter
from zigzag.evaluation.accuracy import Score, accuracy, noise, prompts, table, wilson
from zigzag.zoo.shapes import CATEGORIES


def test_a_model_that_draws_what_it_is_told_is_always_right() -> None:
    scores = accuracy(painter(), count=32, steps=2, scale=1.0)
    assert list(scores) == list(CATEGORIES)
    assert [score.count for score in scores.values()] == [6, 6, 5, 5, 5, 5]
    assert all(score.right == score.count for score in scores.values())


def test_a_model_that_draws_one_thing_only_is_right_about_that() -> None:
    scores = accuracy(painter("a red circle"), count=30, steps=2, scale=1.0)
    wanted = {c: sum(p in ("a circle", "a red circle") for p in prompts(c, 5)) for c in CATEGORIES}
    assert {category: score.right for category, score in scores.items()} == wanted
    with pytest.raises(ValueError, match="count must be at least 6, got 5"):
        accuracy(painter(), count=5)


def test_noise_and_prompts_are_those_of_the_seed_and_the_number() -> None:
    whole = noise("position", 0, 5, seed=1)
    assert torch.equal(whole[2:4], noise("position", 2, 4, seed=1))
    assert not torch.equal(whole, noise("position", 0, 5, seed=2))
    assert not torch.equal(whole, noise("counting", 0, 5, seed=1))
    assert prompts("position", 9, 1)[:4] == prompts("position", 4, 1) != prompts("position", 4, 2)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17, 857), Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    got = wilson(Score(right, count))
    assert got == pytest.approx((low, high), abs=5e-5)


def test_the_interval_holds_the_share_and_nothing_that_is_no_share() -> None:
    for count in range(1, 700):
        for right in {0, 1, count // 2, count - 1, count}:
            low, high = wilson(score := Score(right, count))
            assert 0 <= low <= score.share <= high <= 1, score


def test_the_table_has_the_categories_and_the_whole() -> None:
    text = table({"position": Score(1, 4), "counting": Score(3, 4)})
    assert "position" in text and "25.0%" in text and "75.0%" in text
    assert text.splitlines()[-1].split()[:3] == ["overall", "8", "50.0%"]
