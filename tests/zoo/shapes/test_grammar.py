"""The grammar says and reads each caption, and refuses everything else with the words it knows."""

from __future__ import annotations

from random import Random

import pytest
import torch

from zigzag.zoo.shapes import CATEGORIES, WORDS, Caption, Noun, alterations, draw_caption, parse, tokenize
from zigzag.zoo.shapes.grammar import LENGTH, captions

EVERY = [(category, caption) for category in CATEGORIES for caption in captions(category)]


def test_what_is_said_is_what_is_read() -> None:
    """parse ∘ str = identity on every caption, and its category is the one that it was made for."""
    for category, caption in EVERY:
        assert parse(str(caption)) == caption
        assert caption.category == category


def test_captions_are_many_and_none_is_said_twice() -> None:
    texts = [str(caption) for _, caption in EVERY]
    assert len(set(texts)) == len(texts)
    # 3 shapes, 6 colours: 3; 3·2; 3·3; 3·6; 4·(6 + 18·2·5); 18·2·5.
    counts = {category: len(captions(category)) for category in CATEGORIES}
    assert list(counts.values()) == [3, 6, 9, 18, 744, 180]


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a circle", Caption((Noun("circle"),))),
        ("a circle and a square", Caption((Noun("circle"), Noun("square")))),
        ("three triangles", Caption((Noun("triangle"),), count=3)),
        ("a red circle", Caption((Noun("circle", "red"),))),
        ("a circle above a square", Caption((Noun("circle"), Noun("square")), relation="above")),
        (
            "a red circle left of a blue square",
            Caption((Noun("circle", "red"), Noun("square", "blue")), relation="left of"),
        ),
        ("A Red  Circle and a square", Caption((Noun("circle", "red"), Noun("square")))),
    ],
)
def test_examples_are_read(text: str, caption: Caption) -> None:
    assert parse(text) == caption


@pytest.mark.parametrize("reader", [parse, lambda text: tokenize([text])], ids=["parse", "tokenize"])
def test_an_unknown_word_is_answered_with_the_words_known(reader: object) -> None:
    with pytest.raises(ValueError, match="unknown word 'zebra' in the prompt 'a red zebra'") as error:
        reader("a red zebra")  # type: ignore[operator]
    assert all(word in str(error.value) for word in WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "circle",
        "a",
        "red circle",
        "a circle square",
        "two circle",
        "a circles",
        "two red circles",
        "a circle left a square",
        "a circle left of",
        "a circle and two squares",
        "a circle above a square and a triangle",
        "a circle of a square",
    ],
)
def test_what_is_no_caption_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is no caption; captions are like 'a circle'"):
        parse(text)


def test_an_alteration_changes_one_word_and_is_a_caption() -> None:
    for _, caption in EVERY:
        words = str(caption).split()
        found = {str(other) for other in alterations(caption)}
        for other in found:
            assert sum(a != b for a, b in zip(words, other.split(), strict=True)) == 1
        # Each word of content has others to take its place: 2 shapes, 5 colours, 2 numbers, 1 relation.
        nouns = caption.nouns
        expected = 2 * len(nouns) + 5 * sum(noun.colour is not None for noun in nouns)
        assert len(found) == expected + 2 * (caption.count > 1) + (caption.relation is not None)


def test_captions_are_drawn_from_all_of_a_category_with_and_without_colours_in_position() -> None:
    rng = Random(0)
    for category in CATEGORIES:
        drawn = [draw_caption(category, rng) for _ in range(400)]
        assert {caption.category for caption in drawn} == {category}
        if category != "position":
            assert len(set(drawn)) >= min(len(captions(category)), 100)
        else:
            assert 150 < sum(caption.nouns[0].colour is not None for caption in drawn) < 250
    assert draw_caption("counting", Random(3)) == draw_caption("counting", Random(3))
    for call in (captions, lambda category: draw_caption(category, Random(0))):
        with pytest.raises(ValueError, match="category must be one of single object"):
            call("colour")


def test_tokens_tell_texts_apart_and_nothing_is_the_null_condition() -> None:
    texts = [str(caption) for _, caption in EVERY]
    tokens = tokenize(texts)
    assert tokens.shape == (len(texts), LENGTH) and tokens.dtype == torch.int64
    assert len(set(map(tuple, tokens.tolist()))) == len(texts)
    assert tokens.max() == len(WORDS) and tokens.min() == 0
    assert [WORDS[k - 1] for k in tokens[-1].tolist() if k] == texts[-1].split()
    assert torch.equal(tokenize([""]), torch.zeros(1, LENGTH, dtype=torch.int64))
    assert tokenize([]).shape == (0, LENGTH)
    assert max(len(text.split()) for text in texts) == LENGTH
    with pytest.raises(ValueError, match="has 9 words, at most 8"):
        tokenize(["a a a a a a a a a"])
