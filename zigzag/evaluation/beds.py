"""What a bench of a pipeline stands on: prompts of a file, and scorers."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zigzag.evaluation.cells import Cell
from zigzag.evaluation.image_cells import Asked, Damaged, ImageCell, PipelineWorker
from zigzag.evaluation.keys import decides, names
from zigzag.evaluation.learned_bed import total
from zigzag.evaluation.pictures import pillow
from zigzag.evaluation.pipelines import files_of
from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.score_cells import ScoreCell, ScorerWorker
from zigzag.evaluation.scored import Scored
from zigzag.methods import Method, Standard
from zigzag.rows import row_bounds
from zigzag.solvers import FlowEuler, Solver
from zigzag.support.files import check_writable

__all__ = ["PipelineBed", "Shown"]

VERSION = 1  # to be raised by whoever changes what the same sampler, block and pipeline draw


@dataclass(frozen=True)
class Shown:
    """All that the images of a pipeline depend on besides sampler, prompts and noise, and the device.

    Attributes:
        model: a folder, or a name on the hub. size: height and width. scheduler: "keep" or "ddim".
    """

    model: str
    size: int
    dtype: str
    scheduler: str
    device: str


class PipelineBed:
    """A pipeline on prompts of a file.

    Args:
        shown: the pipeline. prompts: each at every one of the `seeds`. batch: how many are sampled together.
        scores: the scorers as `zigzag.evaluation.scorers.scorer` takes them. Each is made once now, and let go, so
            that whatever it lacks is said.

    Raises:
        ValueError: without a prompt or a seed, for a batch that is none, two scores of one name, and as `scorer`.
        OSError, ImportError: as `scorer`.
    """

    own: Callable[[int], Solver] | None = None

    def __init__(
        self,
        shown: Shown,
        prompts: Sequence[Prompt],
        seeds: Sequence[int],
        folder: Path,
        scores: Sequence[str] = (),
        batch: int = 1,
    ) -> None:
        if not prompts or not seeds:
            raise ValueError(f"prompts and seeds must be one at least, got {len(prompts)} and {len(seeds)}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        self.shown, self.prompts, self.seeds = shown, tuple(prompts), list(dict.fromkeys(seeds))
        self.folder, self.batch = folder, batch
        workers = [ScorerWorker(text, shown.device, self.prompts) for text in dict.fromkeys(scores)]
        # One after another: two of them may be more than a device holds.
        made = [(_named(worker), worker) for worker in workers]
        self.weights = {name: weights for (name, weights), _ in made}
        self._scorers = {name: worker for (name, _), worker in made}
        if len(self._scorers) < len(made):
            raise ValueError(f"scores must have names of their own, got {', '.join(name for (name, _), _ in made)}")
        self.scorers: Sequence[str] = tuple(self._scorers)
        self.files = [
            [Path(path).relative_to(Path(shown.model).resolve()).as_posix(), size, date]
            for path, size, date in files_of(Path(shown.model))
        ]
        settings = {key: value for key, value in asdict(shown).items() if key != "device"}
        self.about: Mapping[str, Any] = {
            **settings,
            "prompts": len(prompts),
            "seeds": self.seeds,
            "scorers": self.weights,
        }
        self.note = (
            f"{shown.model}, {shown.size} × {shown.size}, {shown.dtype}, scheduler {shown.scheduler}, "
            f"{len(prompts)} prompts, seed {', '.join(map(str, self.seeds))}"
        )
        seen: Counter[str] = Counter()
        self._asked: list[Asked] = []
        for prompt in prompts:
            self._asked.append(Asked(prompt.text, seen[prompt.text]))
            seen[prompt.text] += 1
        self._cells: dict[Sampler, list[ImageCell]] = {}

    def rows(self, sampler: Sampler) -> int:
        """Model rows that an image is expected to take, at most: a pipeline runs both branches in every call.

        Of a method that is steered by its walk, for want of better, those of standard sampling.
        """
        method = sampler.method if isinstance(sampler.method, Method) else Standard()
        return row_bounds(method, sampler.steps, 2.0, 3.0)[1]

    def cells(self, sampler: Sampler) -> list[ImageCell]:
        """A cell for each seed and block of prompts.

        Raises:
            TypeError: for a strong scale that is no number.
        """
        if sampler not in self._cells:
            self._cells[sampler] = self._made(sampler)
        return self._cells[sampler]

    def _made(self, sampler: Sampler) -> list[ImageCell]:
        if not isinstance(sampler.strong, float):
            raise TypeError(f"strong must be a number, which a pipeline can be told, got {sampler.strong!r}")
        s, rows = self.shown, self.rows(sampler)
        # On any grid: the pipeline's own is not known here, and follows from its files and the steps.
        head = {
            "version": VERSION, "model": s.model, "files": self.files, "size": s.size, "dtype": s.dtype,
            "scheduler": s.scheduler, "sampler": names(sampler),
            "decides": decides(sampler, FlowEuler.uniform(sampler.steps)),
        }  # fmt: skip
        worker = PipelineWorker(s.model, s.dtype, s.device)
        return [
            ImageCell(worker, sampler, tuple(self._asked[start : start + self.batch]), seed, head, self.folder, rows)
            for seed, start in self._blocks()
        ]

    def _blocks(self) -> list[tuple[int, int]]:
        return [(seed, start) for seed in self.seeds for start in range(0, len(self._asked), self.batch)]

    def prepare(self, left: Sequence[Cell]) -> None:
        """Fails now, where an image could not be written; says which images on record are damaged.

        Raises:
            OSError: for a folder that cannot be written, or too little space.
            ImportError: without Pillow.
        """
        pillow()
        for room in ("images", "timings", *(f"scores/{name}" for name in self.scorers)):
            check_writable(self.folder / room)
        cells = [cell for cell in left if isinstance(cell, ImageCell)]
        # As many bytes as pixels have: a PNG of a photograph is about half of that.
        need, free = sum(len(cell.prompts) for cell in cells) * 3 * self.shown.size**2, _free(self.folder)
        if need > free:
            raise OSError(
                f"the images that are left may take {need / 1e9:.1f} GB, and {self.folder} has {free / 1e9:.1f} GB "
                "free: make room, or name another folder with --out"
            )
        for cell in cells:
            try:
                cell.record()
            except Damaged as error:
                warnings.warn(f"{error}; it is sampled again", stacklevel=2)

    def scoring(self, cells: Sequence[Cell]) -> list[Cell]:
        """A cell for each scorer and cell of images that is done."""
        own = [cell for cell in cells if isinstance(cell, ImageCell)]
        starts = [start for _, start in self._blocks()]
        return [
            self._score(name, cell, start)
            for cell, start in zip(own, starts, strict=True)
            if cell.done()
            for name in self.scorers
        ]

    def _score(self, name: str, cell: ImageCell, start: int) -> ScoreCell:
        prompts = self.prompts[start : start + len(cell.prompts)]
        return ScoreCell(self._scorers[name], name, self.weights[name], prompts, cell)

    def timed(self, cells: Sequence[Cell]) -> tuple[int, float, float]:
        """Images, rows and seconds of what was timed."""
        own = [cell for cell in cells if isinstance(cell, ImageCell)]
        found = [(cell, _record(cell)) for cell in own]
        return total([(*cell.seconds(), record["rows"]) for cell, record in found if record is not None])

    def scored(self, cells: Sequence[Cell]) -> list[Scored]:
        """What is on record of cells of one sampler, all of which are done."""
        found: list[Scored] = []
        own = [cell for cell in cells if isinstance(cell, ImageCell)]
        for cell, (seed, start) in zip(own, self._blocks(), strict=True):
            if (record := _record(cell)) is None:
                raise ValueError(f"{cell.sidecar} is not there, or damaged")
            kept = {name: self._score(name, cell, start).scores() for name in self.scorers}
            for k in range(len(cell.prompts)):
                prompt = self.prompts[start + k]
                scores = {name: values[k] for name, values in kept.items() if values is not None}
                found.append(
                    Scored(start + k, seed, prompt.category, prompt.text, record["rows"], record["beta"][k], scores)
                )
        return found


def _named(worker: ScorerWorker) -> tuple[str, str]:
    """The name of a scorer, and what it says of its weights."""
    made = worker.load()
    return made.name, made.weights()


def _record(cell: ImageCell) -> dict[str, Any] | None:
    """What is on record of a cell; that its images are whole was seen when it was asked whether it is done."""
    try:
        return cell.record(images=False)
    except Damaged:
        return None


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
