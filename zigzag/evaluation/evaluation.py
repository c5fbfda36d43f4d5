"""Evaluates samplers on a learned model, cell by cell, so that a stop loses no finished one and any engine may run."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zigzag.evaluation import verdicts
from zigzag.evaluation.accuracy import batches
from zigzag.evaluation.cells import Loaded, Worker, each_once
from zigzag.evaluation.engines import Shard, complete, left_of
from zigzag.evaluation.keys import decides, names
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.verdict_cells import Block, LearnedWorker, VerdictCell
from zigzag.evaluation.verdicts import Verdict
from zigzag.support.files import check_writable
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import CATEGORIES, detect

__all__ = ["Evaluation", "Result", "Trial", "fingerprint"]


VERSION = 4  # to be raised by whoever changes what the same sampler, block and weights draw, or how it is kept


@dataclass(frozen=True)
class Trial:
    """What samplers are tried on.

    Attributes:
        prompts: how many, shared evenly among the categories. seed: of prompts and noise.
        amp: matrix products in bfloat16.
    """

    prompts: int = 600
    seed: int = 0
    amp: bool = False

    def __post_init__(self) -> None:
        if self.prompts < len(CATEGORIES):
            raise ValueError(f"prompts must be at least {len(CATEGORIES)}, one a category, got {self.prompts}")

    def batches(self) -> Iterator[tuple[str, int, list[str]]]:
        """The batches: a category, the index of its first prompt, and the prompts. They are always the same ones."""
        return batches(self.prompts, self.seed)


@dataclass(frozen=True)
class Result:
    """What came of a sampler: the verdicts of all trials, and the seconds that a sample took, detector included; of the
    processor on a CPU, by the clock on a GPU.
    """

    verdicts: list[Verdict]
    seconds: float


class Evaluation:
    """The verdicts on one model, kept in a folder.

    The work is cut into cells (`zigzag.evaluation.cells`): a sampler on a batch of prompts. Each has a file of its own
    in `folder/verdicts`, of JSON lines: what was evaluated, then a line for each sample; and one in `folder/timings`,
    of its seconds, which no rerun reproduces. They are written whole when the batch is done: whenever the process
    stops, the next one goes on after the last finished batch. More prompts go on from the batches of fewer.

    Args:
        model: the model. folder: where the files are.
        worker: what loads the same model elsewhere; by default it is taken along.
    """

    def __init__(self, model: LearnedModel, folder: Path, worker: Worker | None = None) -> None:
        self.model, self.folder = model, folder
        self.worker = Loaded(model) if worker is None else worker
        self.weights = fingerprint(model.network)
        if old := verdicts.others(folder / "verdicts", VERSION):
            warnings.warn(
                f"{folder / 'verdicts'} has {old} files of another version of zigzag; they are left as they are, and "
                "what they were made for is sampled anew",
                stacklevel=2,
            )

    @classmethod
    def of(cls, worker: LearnedWorker, folder: Path) -> Evaluation:
        """That of the model that a worker loads, once for this process; raises as `LearnedWorker.load`."""
        model = worker.load()
        return cls(model, folder, replace(worker, held=model))

    def run(
        self, samplers: Iterable[Sampler], trials: Sequence[Trial], progress: bool = False, engine: str | None = None
    ) -> dict[Sampler, Result]:
        """The result of each sampler; what is on record is not sampled again.

        Args:
            engine: as in `zigzag.evaluation.engines.run`.

        Raises:
            ValueError: before the first model call, for a sampler out of range or a damaged file.
            ImportError: without scipy, naming the extra that brings it.
            Failed: after the others are done, for batches that failed every time.
        """
        planned = self.cells(samplers, trials)
        self.complete(planned, progress, engine)
        return {sampler: self.result(cells) for sampler, cells in planned.items()}

    def run_shard(
        self,
        samplers: Iterable[Sampler],
        trials: Sequence[Trial],
        shard: Shard,
        progress: bool = False,
        engine: str | None = None,
    ) -> str:
        """Samples a shard of what is not on record, and says what is left; raises as `run`."""
        planned = self.cells(samplers, trials)
        return left_of(self.complete(planned, progress, engine, shard), shard, "the table")

    def complete(
        self,
        planned: Mapping[Sampler, Sequence[VerdictCell]],
        progress: bool = False,
        engine: str | None = None,
        shard: Shard | None = None,
    ) -> list[VerdictCell]:
        """Runs the cells of `cells`, each once; returns all of them. Raises as `run`."""
        # Samplers that differ in name alone share their files, and so their cells.
        cells = each_once(cell for every in planned.values() for cell in every)
        if not all(cell.done() for cell in cells):
            self.prepare()
        complete(cells, engine, shard, progress)
        return cells

    def cells(self, samplers: Iterable[Sampler], trials: Sequence[Trial]) -> dict[Sampler, list[VerdictCell]]:
        """The cells of each sampler, done or not.

        Raises:
            ValueError: for a sampler out of range, and a damaged file of timings.
        """
        found: dict[Sampler, list[VerdictCell]] = {}
        for sampler in samplers:
            rows = sampler.expected_rows(self.model.solver)
            heads = {amp: self.head(sampler, amp) for amp in dict.fromkeys(trial.amp for trial in trials)}
            for text in sampler.prompts.values():
                self.model.encode([text])  # an unknown word is said now
            found[sampler] = [
                VerdictCell(
                    self.worker, sampler, Block(trial.seed, category, start, tuple(texts)), trial.amp,
                    heads[trial.amp], self.folder, rows,
                )
                for trial in dict.fromkeys(trials)
                for category, start, texts in trial.batches()
            ]  # fmt: skip
            for cell in found[sampler]:
                cell.seconds()
        return found

    def result(self, cells: Sequence[VerdictCell]) -> Result:
        """What is on record of cells.

        Raises:
            ValueError: for a damaged file.
        """
        times = [cell.seconds() for cell in cells]
        count = sum(n for n, _ in times)
        seconds = sum(s for _, s in times) / count if count else math.nan  # the verdicts alone were there
        return Result([verdict for cell in cells for verdict in cell.verdicts()], seconds)

    def prepare(self) -> None:
        """Fails now, where a batch that was sampled could not be judged or written."""
        detect(torch.zeros(1, *self.model.shape, device="cpu"))
        for name in ("verdicts", "timings"):
            check_writable(self.folder / name)

    def head(self, sampler: Sampler, amp: bool = False) -> dict[str, Any]:
        """All that verdicts depend on but the device and the block of prompts, as JSON: with that, the first line of
        a file.

        "sampler" has the names, for readers; what a file is kept by is the rest, of which "decides" is the moves, the
        steps and the guidance themselves (`zigzag.evaluation.keys`): a method whose `path` was edited has another file.
        """
        what = {"model": self.model.name, "weights": self.weights, "amp": amp}
        how = decides(sampler, self.model.solver(sampler.steps))
        return {"version": VERSION, **what, "sampler": names(sampler), "decides": how}


def fingerprint(network: torch.nn.Module) -> str:
    """The SHA-256 of a network's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
