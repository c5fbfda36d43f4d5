"""Evaluates samplers on a learned model, batch by batch, so that a stop loses no finished batch."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from zigzag.evaluation import verdicts
from zigzag.evaluation.accuracy import batches, noise
from zigzag.evaluation.keys import decides, names
from zigzag.evaluation.named import label
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.verdicts import Verdict
from zigzag.moves import Invert
from zigzag.support.files import check_writable, write_json
from zigzag.support.progress import rows_bar
from zigzag.trace import Record, Trace
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import CATEGORIES, detect, holds, parse

__all__ = ["Evaluation", "Result", "Trial", "fingerprint"]


VERSION = 3  # to be raised by whoever changes what the same sampler, trial and weights draw


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

    `folder/verdicts` has a file of JSON lines for each sampler and trial: what was evaluated, then a line for each
    sample. `folder/timings` has the seconds of its batches, which no rerun reproduces. Both are replaced after every
    batch: whenever the process stops, the next one goes on after the last finished batch.
    """

    def __init__(self, model: LearnedModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        self.weights = fingerprint(model.network)
        if old := verdicts.others(folder / "verdicts", VERSION):
            warnings.warn(
                f"{folder / 'verdicts'} has {old} files of another version of zigzag; they are left as they are, and "
                "what they were made for is sampled anew",
                stacklevel=2,
            )

    def run(
        self, samplers: Iterable[Sampler], trials: Sequence[Trial], progress: bool = False
    ) -> dict[Sampler, Result]:
        """The result of each sampler; what is on record is not sampled again.

        Raises:
            ValueError: before the first model call, for a sampler out of range or a damaged file.
            ImportError: without scipy, naming the extra that brings it.
        """
        # Samplers that differ in name alone share a file, and so a cell.
        known: dict[Path, _Cell] = {}
        cells: dict[Sampler, list[_Cell]] = {}
        for sampler in samplers:
            made = [self._cell(sampler, trial) for trial in dict.fromkeys(trials)]
            cells[sampler] = [known.setdefault(cell.path, cell) for cell in made]
        left = sum(cell.missing for cell in known.values())
        if left:
            self._prepare()
        with rows_bar(left, progress) as tick:
            for every in cells.values():
                for cell in every:
                    cell.complete(tick)
        return {sampler: _result(every) for sampler, every in cells.items()}

    def _prepare(self) -> None:
        """Fails now, where a batch that was sampled could not be judged or written."""
        detect(torch.zeros(1, *self.model.shape, device="cpu"))
        for name in ("verdicts", "timings"):
            check_writable(self.folder / name)

    def head(self, sampler: Sampler, trial: Trial) -> dict[str, Any]:
        """All that verdicts depend on but the device, as JSON; the first line of their file.

        "sampler" has the names, for readers; what the file is kept by is the rest, of which "decides" is the moves, the
        steps and the guidance themselves (`zigzag.evaluation.keys`): a method whose `path` was edited has another file.
        """
        what = {"model": self.model.name, "weights": self.weights, "trial": asdict(trial)}
        how = decides(sampler, self.model.solver(sampler.steps))
        return {"version": VERSION, **what, "sampler": names(sampler), "decides": how}

    def _cell(self, sampler: Sampler, trial: Trial) -> _Cell:
        head = self.head(sampler, trial)
        what = {key: value for key, value in head.items() if key != "sampler"}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        kind = label(sampler.method, options=False).lower().replace("²", "2").replace(" ", "-")
        stem = f"{self.model.name}-{kind}-{sampler.steps}-{digest[:12]}"
        return _Cell(self.model, sampler, trial, head, self.folder, stem)


class _Cell:
    """A sampler and a trial, with what is on record of them."""

    def __init__(
        self, model: LearnedModel, sampler: Sampler, trial: Trial, head: dict[str, Any], folder: Path, stem: str
    ) -> None:
        self.model, self.sampler, self.trial, self.head = model, sampler, trial, head
        self.path, self.timings = folder / "verdicts" / f"{stem}.jsonl", folder / "timings" / f"{stem}.json"
        self.verdicts = verdicts.read(self.path, head)
        self.seconds: dict[str, tuple[int, float]] = {}
        if self.timings.exists():
            try:
                self.seconds = json.loads(self.timings.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{self.timings} is no file of timings: {error}; remove it") from error
        self.missing = sampler.expected_rows(model.solver) * (trial.prompts - len(self.verdicts))
        if sampler.weak_prompt is not None:
            model.encode([sampler.weak_prompt])  # an unknown word is said now

    def complete(self, tick: Callable[[int], object]) -> None:
        """Samples the batches that are not on record."""
        # On a CPU the processor's time, which other processes do not lengthen; a GPU's work is not in it.
        clock = time.process_time if self.model.device.type == "cpu" else time.perf_counter
        for category, start, texts in self.trial.batches():
            keys = {(self.trial.seed, category, start + k) for k in range(len(texts))}
            others = [v for v in self.verdicts if v.key not in keys]
            if len(others) + len(keys) == len(self.verdicts):
                continue
            begin = clock()
            new = self._batch(category, start, texts)
            self.seconds[f"{category} {start}"] = len(new), clock() - begin
            self.verdicts = others + new
            write_json(self.timings, self.seconds)
            verdicts.write(self.path, self.head, self.verdicts)
            tick(round(sum(v.rows for v in new)))

    def _batch(self, category: str, start: int, texts: list[str]) -> list[Verdict]:
        trial, device = self.trial, self.model.device
        x = noise(category, start, start + len(texts), trial.seed).to(device)
        # On the CPU, so that the noise of a Renoise is the same on every device; seeded for the batch.
        generator = torch.Generator().manual_seed(Random(f"path {trial.seed} {category} {start}").getrandbits(63))
        trace = Trace()
        with _rows_of(self.model) as asked, torch.autocast(device.type, torch.bfloat16, enabled=trial.amp):
            images = self.sampler.draw(self.model, texts, x, generator, trace)
        delta, tau1, tau2 = (_sums([getattr(r, name) for r in _tops(trace)]) for name in ("delta", "tau1", "tau2"))
        known = [math.nan] * len(texts) if trace.beta is None else trace.beta.cpu().double().tolist()
        betas = [beta if math.isfinite(beta) else None for beta in known]
        # By the calls that ran: a sampler of one's own need not fill the trace. Those of another network it tells.
        rows = sum(asked) // len(texts) if sum(asked) % len(texts) == 0 else sum(asked) / len(texts)
        rows = rows if self.sampler.weak_fn is None else trace.rows
        found = []
        for k, (text, things) in enumerate(zip(texts, detect(images.cpu()), strict=True)):
            seen = [f"{thing.colour} {thing.shape}" for thing in things]
            found.append(
                Verdict(
                    trial.seed, category, start + k, text, holds(parse(text), things), seen, rows,
                    delta=delta and delta[0][k], tau1=tau1 and tau1[0][k] / tau1[1], tau2=tau2 and tau2[0][k] / tau2[1],
                    beta=betas[k],
                )
            )  # fmt: skip
        return found


def _result(cells: Sequence[_Cell]) -> Result:
    times = [seconds for cell in cells for seconds in cell.seconds.values()]
    count = sum(n for n, _ in times)
    seconds = sum(s for _, s in times) / count if count else math.nan  # the verdicts alone were there
    return Result([v for cell in cells for v in cell.verdicts], seconds)


@contextmanager
def _rows_of(model: LearnedModel) -> Iterator[list[int]]:
    """The rows of each call of the network, as they come."""
    asked: list[int] = []
    handle = model.network.register_forward_pre_hook(lambda network, given: asked.append(len(given[0])))
    try:
        yield asked
    finally:
        handle.remove()


def _tops(trace: Trace) -> list[Record]:
    """The records but of those inversions that another goes on from: a zigzag errs by what it is off at its top."""
    nexts = [record.move for record in trace.records[1:]]
    return [r for r, move in zip_longest(trace.records, nexts) if not isinstance(move, Invert)]


def _sums(values: Sequence[Tensor | None]) -> tuple[list[float], int] | None:
    """The sum, by sample, of the values that there are, and how many there are; None if there is none."""
    given = [value for value in values if value is not None]
    return (torch.stack(given).cpu().double().sum(0).tolist(), len(given)) if given else None


def fingerprint(network: torch.nn.Module) -> str:
    """The SHA-256 of a network's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
