"""The cell of a score: a scorer on the images of another cell, kept beside them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zigzag.evaluation.cells import Worker, hashed
from zigzag.evaluation.image_cells import ImageCell
from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.scorers import Scorer, scorer
from zigzag.support.files import slug, write_json

__all__ = ["ScoreCell", "ScorerWorker"]


@dataclass(frozen=True)
class ScorerWorker:
    """Makes a scorer: `zigzag.evaluation.scorers.scorer` of a text, on a device, for these prompts."""

    text: str
    device: str
    prompts: tuple[Prompt, ...] = ()

    def load(self) -> Scorer:
        """The scorer, with its weights."""
        return scorer(self.text, self.device, self.prompts)


@dataclass(frozen=True, eq=False)
class ScoreCell:
    """A scorer on the images of a cell. Its file in `folder/scores` says which images, by their hashes, so that images
    that were sampled anew are scored anew.

    Attributes:
        scorer: its name. weights: what it says of its weights.
        prompts: of the images, with their checks. drawn: the cell of the images.
    """

    worker: Worker
    scorer: str
    weights: str
    prompts: tuple[Prompt, ...]
    drawn: ImageCell

    @cached_property
    def digest(self) -> str:
        """The hash of the scorer, its weights, what the images depend on, and what they must show."""
        checks = [repr(prompt.checks) for prompt in self.prompts]
        return hashed([self.scorer, self.weights, checks, self.drawn.digest])

    @property
    def path(self) -> Path:
        """Its file."""
        name = f"{self.drawn.stem}-{self.digest[:12]}.json"
        return self.drawn.folder / "scores" / slug(self.scorer) / name

    @property
    def cost(self) -> int:
        """An image is one row of a scorer."""
        return len(self.drawn.prompts)

    @property
    def about(self) -> str:
        """Scorer, method and first prompt."""
        return f"{self.scorer} of {self.drawn.about}"

    def done(self) -> bool:
        """Whether the images on record are scored."""
        return self.scores() is not None

    def scores(self) -> list[float] | None:
        """The scores of the images on record, or None."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            record = json.loads(self.drawn.sidecar.read_text(encoding="utf-8"))
            return [float(score) for score in found["scores"]] if found["images"] == record["sha256"] else None
        except (OSError, ValueError, KeyError, TypeError):  # a score is cheap: what cannot be read is made again
            return None

    def run(self, model: Any) -> None:
        """Scores the images, and writes the file.

        Raises:
            ValueError: for images that are damaged, or a score that is no number.
        """
        record = self.drawn.record()
        if record is None:
            raise ValueError(f"{self.drawn.sidecar} is not there: its images are to be sampled first")
        texts = [prompt.text for prompt in self.prompts]
        scores = [float(score) for score in model(texts, self.drawn.tensors())]
        if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
            raise ValueError(f"{self.scorer} must give a finite number for each of {len(texts)} images, got {scores}")
        what = {"scorer": self.scorer, "weights": self.weights, "cell": self.drawn.digest, "images": record["sha256"]}
        write_json(self.path, {**what, "scores": scores})
