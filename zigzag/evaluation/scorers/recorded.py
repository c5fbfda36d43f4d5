"""Scores on record, by which whoever has the weights sees that they are the right ones, and are asked as published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor

from zigzag.evaluation.prompts import Check, Prompt
from zigzag.evaluation.scorers.base import Scorer
from zigzag.zoo.shapes import Scene, Thing, render

__all__ = ["PROBES", "Record", "differences", "probe_images", "recorded"]

_SCENES: tuple[Scene, ...] = (
    (Thing("circle", "red", 10.0, 16.0, 4.8), Thing("square", "blue", 23.0, 16.0, 4.8)),
    (Thing("triangle", "green", 16.0, 15.0, 4.8),),
)
_BALL = (Check("sports ball", 1),)  # for the judge of GenEval, which is asked of prompts with checks alone
PROBES = tuple(
    Prompt(text, "single_object", _BALL) for text in ("a red circle left of a blue square", "a green triangle")
)
"""The prompts of the images that scores are on record of."""


def probe_images() -> Tensor:
    """The images that scores are on record of, `(2, 3, 512, 512)`: two scenes of shapes, each pixel drawn 16 × 16."""
    return render(_SCENES).repeat_interleave(16, 2).repeat_interleave(16, 3)


@dataclass(frozen=True)
class Record:
    """What is on record of a score.

    Attributes:
        weights: as `Scorer.weights` says them. scores: of the images under their own prompts, then under the others'.
        tolerance: by how much a machine may differ. source: which code said so, of which version.
    """

    weights: str
    scores: tuple[float, ...]
    tolerance: float
    source: str


def recorded() -> dict[str, Record]:
    """What is on record, by the names of the scores. So far nothing: no weights could be had where this was written."""
    text = files("zigzag.evaluation.scorers").joinpath("recorded.json").read_text(encoding="utf-8")
    return {name: Record(**{**said, "scores": tuple(said["scores"])}) for name, said in json.loads(text).items()}


def differences(score: Scorer) -> tuple[tuple[float, ...], str]:
    """The scores of the images under their own prompts, then under the others', and what is to be said of them."""
    texts, images = [prompt.text for prompt in PROBES], probe_images()
    said = tuple(score([*texts, *texts[::-1]], torch.cat([images, images])).tolist())
    record = recorded().get(score.name)
    if record is None:
        return said, "nothing is on record of it"
    off = max(abs(a - b) for a, b in zip(said, record.scores, strict=True))
    same = "the same weights" if record.weights == score.weights() else f"other weights, {record.weights}"
    verdict = "agrees with" if off <= record.tolerance else "DIFFERS from"
    return said, f"{verdict} what {record.source} said, by {off:.2g} of {record.tolerance:.2g} ({same})"
