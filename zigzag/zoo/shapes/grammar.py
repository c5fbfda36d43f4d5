"""Captions of scenes, after GenEval's six categories: what may be said, and in which words.

    caption  = noun | number plural | noun "and" noun | noun relation noun
    noun     = "a" [colour] shape
    number   = "two" | "three" | "four"
    relation = "left of" | "right of" | "above" | "below"

A caption says *all* that a scene shows: "a red circle" is false of a scene with a second thing in it.
Source of the categories: Ghosh et al. 2023 (GenEval), Table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

import torch
from torch import Tensor

from zigzag.zoo.shapes.scenes import COLOURS, SHAPES

__all__ = [
    "CATEGORIES",
    "LENGTH",
    "WORDS",
    "Caption",
    "Noun",
    "alterations",
    "captions",
    "draw_caption",
    "parse",
    "tokenize",
]

CATEGORIES = ("single object", "two objects", "counting", "colours", "position", "attribution")
NUMBERS = {"two": 2, "three": 3, "four": 4}
RELATIONS = ("left of", "right of", "above", "below")
_PLURALS = tuple(f"{shape}s" for shape in SHAPES)
# Words that can stand in for each other in a caption.
_CLASSES: tuple[tuple[str, ...], ...] = (
    SHAPES,
    _PLURALS,
    tuple(COLOURS),
    tuple(NUMBERS),
    ("left", "right"),
    ("above", "below"),
)
WORDS: tuple[str, ...] = ("a", "and", "of", *(word for words in _CLASSES for word in words))
LENGTH = 8  # words of the longest caption, "a red circle left of a blue square"


@dataclass(frozen=True)
class Noun:
    """A shape, of a colour or of any (None)."""

    shape: str
    colour: str | None = None

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}" if self.colour else f"a {self.shape}"


@dataclass(frozen=True)
class Caption:
    """What a caption says; `str` of it is the caption.

    Attributes:
        nouns: one or two. count: how many there are of a lone noun, 1 to 4.
        relation: where the first noun is from the second, or None if the caption does not say.
    """

    nouns: tuple[Noun, ...]
    count: int = 1
    relation: str | None = None

    def __str__(self) -> str:
        if self.count > 1:
            number = {value: word for word, value in NUMBERS.items()}[self.count]
            return f"{number} {self.nouns[0].shape}s"
        return f" {self.relation or 'and'} ".join(map(str, self.nouns))

    @property
    def category(self) -> str:
        """The one of `CATEGORIES` that it belongs to."""
        if self.count > 1:
            return "counting"
        if self.relation:
            return "position"
        coloured = any(noun.colour for noun in self.nouns)
        if len(self.nouns) == 1:
            return "colours" if coloured else "single object"
        return "attribution" if coloured else "two objects"


def _words(text: str) -> list[str]:
    words = text.lower().split()
    if unknown := [word for word in words if word not in WORDS]:
        raise ValueError(f"unknown word {unknown[0]!r} in the prompt {text!r}; the words known are: {', '.join(WORDS)}")
    return words


def parse(text: str) -> Caption:
    """What a caption says.

    Raises:
        ValueError: for a word that the grammar does not have, listing those it has, and for a text that is no caption.
    """
    plain = " ".join(_words(text))
    match plain.split():
        case [number, plural] if number in NUMBERS and plural in _PLURALS:
            return Caption((Noun(plural.removesuffix("s")),), count=NUMBERS[number])
    if noun := _noun(plain):
        return Caption((noun,))
    for link in ("and", *RELATIONS):
        left, _, right = plain.partition(f" {link} ")
        if (first := _noun(left)) and (second := _noun(right)):
            return Caption((first, second), relation=None if link == "and" else link)
    raise ValueError(
        f"the prompt {text!r} is no caption; captions are like 'a circle', 'a circle and a square', 'three circles', "
        "'a red circle', 'a circle left of a square', 'a red circle and a blue square'"
    )


def _noun(text: str) -> Noun | None:
    match text.split():
        case ["a", colour, shape] if colour in COLOURS and shape in SHAPES:
            return Noun(shape, colour)
        case ["a", shape] if shape in SHAPES:
            return Noun(shape)
    return None


def captions(category: str) -> list[Caption]:
    """Every caption of a category in which the nouns differ in shape, and in colour if both have one.

    Raises:
        ValueError: for another category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"category must be one of {', '.join(CATEGORIES)}, got {category!r}")
    plain = [Noun(shape) for shape in SHAPES]
    coloured = [Noun(shape, colour) for shape in SHAPES for colour in COLOURS]
    if category == "single object":
        return [Caption((noun,)) for noun in plain]
    if category == "colours":
        return [Caption((noun,)) for noun in coloured]
    if category == "counting":
        return [Caption((noun,), count=count) for noun in plain for count in NUMBERS.values()]
    if category == "two objects":
        return [Caption(pair) for pair in _pairs(plain)]
    if category == "attribution":
        return [Caption(pair) for pair in _pairs(coloured)]
    return [Caption(pair, relation=r) for pair in _pairs(plain) + _pairs(coloured) for r in RELATIONS]


def _pairs(nouns: Sequence[Noun]) -> list[tuple[Noun, Noun]]:
    return [(a, b) for a in nouns for b in nouns if a.shape != b.shape and (a.colour is None or a.colour != b.colour)]


def draw_caption(category: str, rng: Random) -> Caption:
    """A caption of a category at random; in "position", half of them name the colours.

    Raises:
        ValueError: for another category.
    """
    every = _captions_once(category)
    if category == "position":
        named = rng.random() < 0.5
        every = [caption for caption in every if (caption.nouns[0].colour is not None) == named]
    return rng.choice(every)


_captions_once = cache(captions)


def alterations(caption: Caption) -> list[Caption]:
    """Every caption that differs from this one in a single word."""
    words = str(caption).split()
    return [
        parse(" ".join([*words[:k], other, *words[k + 1 :]]))
        for k, word in enumerate(words)
        for kind in _CLASSES
        if word in kind
        for other in kind
        if other != word
    ]


def tokenize(texts: Sequence[str]) -> Tensor:
    """Texts as word numbers, int64 `(B, LENGTH)`: 0 where a text has ended, `1 + WORDS.index(word)` before.

    The empty text is the null condition.

    Raises:
        ValueError: for a word that the grammar does not have, listing those it has, and for a text that is too long.
    """
    rows = []
    for text in texts:
        words = _words(text)
        if len(words) > LENGTH:
            raise ValueError(f"the prompt {text!r} has {len(words)} words, at most {LENGTH} can be read")
        rows.append([1 + WORDS.index(word) for word in words] + [0] * (LENGTH - len(words)))
    return torch.tensor(rows, dtype=torch.int64, device="cpu").reshape(-1, LENGTH)
