"""The cell of a pipeline: a sampler on a block of prompts, its images written as PNG."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zigzag.adapters.diffusers.attach import attach
from zigzag.adapters.diffusers.schedulers import solver_from_scheduler
from zigzag.evaluation.cells import Worker, clock_of, decided
from zigzag.evaluation.named import label
from zigzag.evaluation.pictures import pillow, to_picture, to_tensor
from zigzag.evaluation.pipelines import load_pipeline, scale_of, scheduled, silenced, size_of
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.verdict_cells import known_betas
from zigzag.guidance import CFG
from zigzag.matched import matched_cfg
from zigzag.methods import Method, Standard
from zigzag.moves import Denoise, Move
from zigzag.solvers import StepInfo
from zigzag.support.files import replacing, slug, write_json
from zigzag.trace import Trace

__all__ = ["Asked", "Damaged", "ImageCell", "PipelineWorker", "PlainSteps", "matched_to"]


class Damaged(ValueError):
    """What is on record is not what was written."""


@dataclass(frozen=True)
class PipelineWorker:
    """Loads a pipeline: of a folder or the hub, in a dtype, onto a device."""

    model: str
    dtype: str
    device: str

    def load(self) -> Any:
        """The pipeline; raises as `zigzag.evaluation.pipelines.load_pipeline`."""
        with silenced(True):
            pipe = load_pipeline(self)
        pipe.set_progress_bar_config(disable=True)
        return pipe


class Asked(NamedTuple):
    """A prompt, and how many of the same text stand before it: each has noise of its own."""

    text: str
    before: int = 0


@dataclass(frozen=True)
class PlainSteps:
    """A step from each knot to the next, guided by the rule of the plain role."""

    def path(self, T: int) -> tuple[Move, ...]:
        """The moves."""
        return tuple(Denoise(i, i + 1, plain=True) for i in range(T))


def matched_to(pipe: Any, method: Method, strong: float, weak: Any) -> CFG:
    """`zigzag.matched_cfg` on the steps of a pipeline's scheduler, which are read when its loop has set them."""
    made: list[CFG] = []

    def matched(step: StepInfo) -> Any:
        if not made:
            made.append(matched_cfg(method, solver_from_scheduler(pipe.scheduler), strong, weak))
        return made[0].at(step)

    return CFG(matched)


@dataclass(frozen=True, eq=False)
class ImageCell:
    """A sampler on a block of prompts. In `folder/images` it has a PNG for each prompt, and, written last, a JSON file
    of what they depend on, with their hashes, rows and effective scales; in `folder/timings` one of the seconds.

    Attributes:
        sampler: what is sampled; its scales are numbers. prompts, seed: the block.
        head: all that the images depend on but the device and the block, as JSON ("size" is their height and width,
            "scheduler" "keep" or "ddim"), and "sampler", the names.
        rows: model rows that an image is expected to take.
    """

    worker: Worker
    sampler: Sampler
    prompts: tuple[Asked, ...]
    seed: int
    head: Mapping[str, Any]
    folder: Path
    rows: int

    @cached_property
    def content(self) -> dict[str, Any]:
        """The head, with the block."""
        return {**self.head, "seed": self.seed, "prompts": [list(prompt) for prompt in self.prompts]}

    @cached_property
    def digest(self) -> str:
        """The hash of the head but for the names, on which nothing depends, and the block."""
        return decided(self.content)

    @cached_property
    def stem(self) -> str:
        """The name of its files: not of the method, for methods that differ in name alone share them."""
        return f"{slug(self.prompts[0].text)}-{self.sampler.steps}-{self.digest[:12]}"

    @property
    def sidecar(self) -> Path:
        """The file that is written last."""
        return self.folder / "images" / f"{self.stem}.json"

    @property
    def timings(self) -> Path:
        """The file of its seconds."""
        return self.folder / "timings" / f"{self.stem}.json"

    @property
    def cost(self) -> int:
        """Model rows of the block, as expected."""
        return self.rows * len(self.prompts)

    @property
    def about(self) -> str:
        """Method and first prompt."""
        return f"{label(self.sampler.method)}, {self.prompts[0].text!r}"

    def done(self) -> bool:
        """Whether all of it is on record, undamaged."""
        try:
            return self.record() is not None
        except Damaged:
            return False

    def record(self, images: bool = True) -> dict[str, Any] | None:
        """What is on record, or None: the content of the JSON file, whose images are there as they were written.

        Args:
            images: whether these are looked at, too.

        Raises:
            Damaged: if it is not what was written, saying which file.
        """
        if not self.sidecar.exists():
            return None
        try:
            record: dict[str, Any] = json.loads(self.sidecar.read_text(encoding="utf-8"))
            hashes, count = record["sha256"], len(self.prompts)
            if len(hashes) != count or len(record["beta"]) != count or not record["rows"]:
                raise ValueError("it has not all of its block")
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{self.sidecar} is no record of images: {error}") from error
        for path, wanted in zip(self.images if images else (), hashes, strict=images):
            if not path.exists() or _hash(path, *_stamp(path)) != wanted:
                raise Damaged(f"{path} is not the image that was written")
        return record

    @property
    def images(self) -> list[Path]:
        """The files of its images, in the order of the prompts."""
        return [self.sidecar.with_name(f"{self.stem}-{k}.png") for k in range(len(self.prompts))]

    def seconds(self) -> tuple[int, float]:
        """How many images were timed, and their seconds; none where there are no timings."""
        try:
            count, seconds = json.loads(self.timings.read_text(encoding="utf-8"))
            return int(count), float(seconds)
        except (OSError, ValueError, TypeError):  # no rerun reproduces them, and nothing depends on them
            return 0, 0.0

    def tensors(self) -> Tensor:
        """The images on record, `(B, 3, H, W)` in [0, 1]."""
        return torch.cat([to_tensor(pillow().open(path)) for path in self.images])

    def run(self, model: Any) -> None:
        """Samples the block, and writes its files, the record last."""
        clock = clock_of(torch.device(getattr(model, "device", "cpu")))
        trace, begin = Trace(), clock()
        images, rows = self._drawn(model, trace)
        pictures = [to_picture(image) for image in images]
        seconds, hashes = clock() - begin, []
        for path, picture in zip(self.images, pictures, strict=True):
            with replacing(path) as temporary:
                picture.save(temporary, format="PNG")
                hashes.append(hashlib.sha256(temporary.read_bytes()).hexdigest())
        write_json(self.timings, (len(images), seconds))
        more = {"rows": rows, "beta": known_betas(trace, len(images)), "sha256": hashes}
        write_json(self.sidecar, {**self.content, **more})

    def _drawn(self, pipe: Any, trace: Trace) -> tuple[Tensor, int]:
        s = self.sampler
        method: Any = s.method
        roles: dict[str, Any] = {"weak": s.weak}
        scale = self.strong
        if s.matched is not None or (scale < 1 and isinstance(method, Standard)):
            # What a pipeline cannot be told: scales by step, and any below 1. Told 2, it evaluates both branches.
            rule = CFG(scale) if s.matched is None else matched_to(pipe, s.matched, scale, s.weak)
            method, roles, scale = PlainSteps(), {"plain": rule}, 2.0
        call = {
            "prompt": [prompt.text for prompt in self.prompts],
            **size_of(pipe, self.head["size"]),
            "num_inference_steps": s.steps,
            "output_type": "pt",
            "generator": self._generators("noise"),
            **scale_of(pipe, scale),
        }
        path = self._generators("path")
        with (
            scheduled(pipe, self.head["scheduler"], s.steps),
            attach(pipe, method, trace=trace, generator=path, **roles) as run,
        ):
            images = pipe(**call).images
        if images.shape[-2:] != 2 * (self.head["size"],):
            raise ValueError(f"image-size {self.head['size']} was asked, and the pipeline gave {tuple(images.shape)}")
        return images.float(), run.rows

    @property
    def strong(self) -> float:
        """The strong scale, a number."""
        assert isinstance(self.sampler.strong, float)
        return self.sampler.strong

    def _generators(self, use: str) -> list[torch.Generator]:
        """One for each prompt, whatever block it is in; on the host: the same noise on every device."""
        seeds = (Random(f"{use} {self.seed} {before} {text}").getrandbits(63) for text, before in self.prompts)
        return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes with a file: its size, and when it was written."""
    known = path.stat()
    return known.st_size, known.st_mtime_ns


@cache
def _hash(path: Path, size: int, date: int) -> str:
    """The SHA-256 of a file, read once while it is what it was: a bench asks after each stage what is done."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
