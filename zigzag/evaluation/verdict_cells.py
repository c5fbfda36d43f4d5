"""The cell of a learned model: a sampler on a block of prompts, every image judged by the checker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zigzag.evaluation import verdicts
from zigzag.evaluation.accuracy import noise
from zigzag.evaluation.cells import Worker, clock_of, decided
from zigzag.evaluation.named import label
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.verdicts import Verdict
from zigzag.moves import Invert
from zigzag.support.files import write_json
from zigzag.trace import Record, Trace
from zigzag.zoo import learned
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import detect, holds, parse

__all__ = ["Block", "LearnedWorker", "VerdictCell"]


@dataclass(frozen=True)
class LearnedWorker:
    """Loads a learned model.

    Attributes:
        name, weights, device: as in `zigzag.zoo.load`.
        held: the model, where this process has it already; it does not travel.
    """

    name: str
    weights: Path | None = None
    device: str = "cpu"
    held: LearnedModel | None = field(default=None, compare=False, repr=False)

    def load(self) -> LearnedModel:
        """The model; raises as `zigzag.zoo.load`."""
        return self.held or learned.load(self.name, self.weights, self.device)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.weights, self.device)


class Block(NamedTuple):
    """Prompts of one category that are sampled together: of which seed they and their noise are, from which number."""

    seed: int
    category: str
    start: int
    prompts: tuple[str, ...]

    @property
    def keys(self) -> set[tuple[int, str, int]]:
        """Those of its verdicts."""
        return {(self.seed, self.category, self.start + k) for k in range(len(self.prompts))}


@dataclass(frozen=True, eq=False)
class VerdictCell:
    """A sampler on a block of prompts. Its file in `folder/verdicts` has what was evaluated, then a line a sample; one
    of the same name in `folder/timings` has how many samples there were, and their seconds.

    Attributes:
        sampler, block: what is sampled. amp: matrix products in bfloat16.
        head: all that the verdicts depend on but the device and the block, as JSON, and "sampler", the names.
        rows: model rows that a sample is expected to take.
    """

    worker: Worker
    sampler: Sampler
    block: Block
    amp: bool
    head: Mapping[str, Any]
    folder: Path
    rows: int

    @cached_property
    def first_line(self) -> dict[str, Any]:
        """The head of its file, with the block."""
        return {**self.head, "block": {**self.block._asdict(), "prompts": list(self.block.prompts)}}

    @cached_property
    def digest(self) -> str:
        """The hash of the head but for the names, on which nothing depends, and the block."""
        return decided(self.first_line)

    @cached_property
    def stem(self) -> str:
        """The name of its files: not of the method, for methods that differ in name alone share them."""
        place = f"{self.block.category.replace(' ', '-')}-{self.block.start}"
        return f"{self.head['model']}-{self.sampler.steps}-{place}-{self.digest[:12]}"

    @property
    def path(self) -> Path:
        """The file of its verdicts."""
        return self.folder / "verdicts" / f"{self.stem}.jsonl"

    @property
    def timings(self) -> Path:
        """The file of its seconds."""
        return self.folder / "timings" / f"{self.stem}.json"

    @property
    def cost(self) -> int:
        """Model rows of the block, as expected."""
        return self.rows * len(self.block.prompts)

    @property
    def about(self) -> str:
        """Method and first prompt."""
        return f"{label(self.sampler.method)}, {self.block.prompts[0]!r}"

    def done(self) -> bool:
        """Whether it is on record; raises ValueError for a damaged file."""
        return bool(self.verdicts())

    def verdicts(self) -> list[Verdict]:
        """Those on record, or none.

        Raises:
            ValueError: if the file is damaged, or of another evaluation.
        """
        found = verdicts.read(self.path, self.first_line)
        if found and {verdict.key for verdict in found} != self.block.keys:
            raise ValueError(f"{self.path} has not the verdicts of its block; remove it to evaluate anew")
        return found

    def seconds(self) -> tuple[int, float]:
        """How many samples were timed, and their seconds; none where the verdicts alone are there.

        Raises:
            ValueError: if the file is damaged.
        """
        if not self.timings.exists():
            return 0, 0.0
        try:
            count, seconds = json.loads(self.timings.read_text(encoding="utf-8"))
            return int(count), float(seconds)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.timings} is no file of timings: {error}; remove it") from error

    def run(self, model: LearnedModel) -> None:
        """Samples and judges the block, and writes its files."""
        clock = clock_of(model.device)
        begin = clock()
        found = self._judged(model)
        write_json(self.timings, (len(found), clock() - begin))
        verdicts.write(self.path, self.first_line, found)

    def _judged(self, model: LearnedModel) -> list[Verdict]:
        (seed, category, start, texts), device = self.block, model.device
        x = noise(category, start, start + len(texts), seed).to(device)
        # On the CPU, so that the noise of a Renoise is the same on every device; seeded for the block.
        generator = torch.Generator().manual_seed(Random(f"path {seed} {category} {start}").getrandbits(63))
        trace = Trace()
        with _rows_of(model) as asked, torch.autocast(device.type, torch.bfloat16, enabled=self.amp):
            images = self.sampler.draw(model, texts, x, generator, trace)
        delta, tau1, tau2 = (_sums([getattr(r, name) for r in _tops(trace)]) for name in ("delta", "tau1", "tau2"))
        # By the calls that ran: a sampler of one's own need not fill the trace. Those of another network it tells.
        rows = sum(asked) // len(texts) if sum(asked) % len(texts) == 0 else sum(asked) / len(texts)
        others = (self.sampler.strong_fn, self.sampler.weak_fn, self.sampler.plain_fn)
        rows = rows if all(fn is None for fn in others) else trace.rows
        betas, found = known_betas(trace, len(texts)), []
        for k, (text, things) in enumerate(zip(texts, detect(images.cpu()), strict=True)):
            seen = [f"{thing.colour} {thing.shape}" for thing in things]
            found.append(
                Verdict(
                    seed, category, start + k, text, holds(parse(text), things), seen, rows,
                    delta=delta and delta[0][k], tau1=tau1 and tau1[0][k] / tau1[1], tau2=tau2 and tau2[0][k] / tau2[1],
                    beta=betas[k],
                )
            )  # fmt: skip
        return found


def known_betas(trace: Trace, count: int) -> list[float | None]:
    """The effective scale of each of `count` samples, where it is known."""
    known = [math.nan] * count if trace.beta is None else trace.beta.cpu().double().tolist()
    return [beta if math.isfinite(beta) else None for beta in known]


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
