"""Scores of images: one a file, each an ordinary function of prompts and images that says what weights it has."""

from zigzag.evaluation.scorers.base import Scorer, checked
from zigzag.evaluation.scorers.named import SCORERS, scorer

__all__ = ["SCORERS", "Scorer", "checked", "scorer"]
