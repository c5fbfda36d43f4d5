"""A world of coloured shapes: scenes, captions, and a detector and checker that judge images of it exactly."""

from zigzag.zoo.shapes.checker import check, draw_scene, holds
from zigzag.zoo.shapes.detector import detect
from zigzag.zoo.shapes.grammar import CATEGORIES, WORDS, Caption, Noun, alterations, draw_caption, parse, tokenize
from zigzag.zoo.shapes.scenes import COLOURS, SHAPES, Scene, Thing, render

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "SHAPES",
    "WORDS",
    "Caption",
    "Noun",
    "Scene",
    "Thing",
    "alterations",
    "check",
    "detect",
    "draw_caption",
    "draw_scene",
    "holds",
    "parse",
    "render",
    "tokenize",
]
