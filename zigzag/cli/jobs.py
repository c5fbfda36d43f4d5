"""Images by prompt and method, each named by all that it depends on, so that what is there need not be made again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from zigzag import __version__
from zigzag.evaluation.named import METHODS
from zigzag.guidance.base import finite
from zigzag.methods import Method, Standard
from zigzag.support.files import check_writable, replacing, slug, write_json

__all__ = [
    "SCHEDULERS", "Drawn", "Job", "check_device", "check_pipeline", "check_sampling", "check_size", "missing", "plan",
    "stoppable",
]  # fmt: skip

SCHEDULERS = ("keep", "ddim")  # the pipeline's own, or DDIM in the place of a diffusion model's


@dataclass(frozen=True)
class Job:
    """One image, to be written as `<slug>-<hash>-<method>.png`, with a sidecar of the same name in JSON.

    Attributes:
        settings: a dataclass whose fields are options of `zigzag generate`. files: what tells one version of the
            model's files from another, as JSON takes it.
    """

    settings: Any
    prompt: str
    method: Method
    folder: Path
    files: Sequence[Any]

    @property
    def given(self) -> dict[str, Any]:
        """The settings by name, without those that were not given."""
        return {name: value for name, value in asdict(self.settings).items() if value is not None and value != ()}

    @cached_property
    def image(self) -> Path:
        """Where it goes."""
        what = {**self.given, "prompt": self.prompt, "method": repr(self.method), "files": self.files}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        return self.folder / f"{slug(self.prompt)}-{digest}-{type(self.method).__name__.lower()}.png"

    def done(self) -> bool:
        """Whether image and sidecar are there."""
        return self.image.exists() and self.image.with_suffix(".json").exists()

    def command(self) -> list[str]:
        """The command line that makes this image (and the standard one beside it) again."""
        names = {kind: name for name, kind in METHODS.items()}
        # One word an option: a prompt, or a number, may begin with a dash.
        words = ["zigzag", "generate", f"--prompt={self.prompt}", f"--method={names[type(self.method)]}"]
        for name, value in self.given.items():
            words += [f"--{name.replace('_', '-')}={each}" for each in (value if isinstance(value, tuple) else [value])]
        given = {f.name: getattr(self.method, f.name) for f in fields(self.method)}  # type: ignore[arg-type]
        for name, value in given.items():
            option = "--lambda" if name == "steps" else f"--{name}"
            if value is not None and value is not False and (name != "strength" or value != 1):
                words.append(option if value is True else f"{option}={value}")
        return words

    def write(self, image: Any, packages: Mapping[str, str], **more: Any) -> None:
        """Writes a PIL image, then its sidecar: settings, versions, the command, and `more`."""
        content = {
            **self.given,
            "prompt": self.prompt,
            "method": repr(self.method),
            "command": self.command(),
            **more,
            "versions": {
                "zigzag": __version__,
                "torch": torch.__version__,
                **packages,
                "python": platform.python_version(),
            },
        }
        with replacing(self.image) as temporary:
            image.save(temporary, format="PNG")
        write_json(self.image.with_suffix(".json"), content)


@dataclass(frozen=True)
class Drawn:
    """An image, and what is said of it.

    Attributes:
        image: as PIL has it. rows: model rows that ran. more: for its sidecar.
    """

    image: Any
    rows: int
    more: Mapping[str, Any]


def plan(settings: Any, prompts: Sequence[str], method: Method, folder: Path, files: Sequence[Any]) -> list[Job]:
    """For each prompt the job of standard sampling and that of `method`, each once.

    Raises:
        ValueError: for an empty prompt, and for a number of steps that the method does not take.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise ValueError("prompt must not be empty")
    tuple(method.path(settings.steps))  # whose errors are said now
    methods = [Standard()] if method == Standard() else [Standard(), method]
    return [Job(settings, prompt, m, folder, files) for prompt in dict.fromkeys(prompts) for m in methods]


def missing(jobs: Sequence[Job], say: Callable[[str], None]) -> Iterator[Job]:
    """The jobs that are not done yet; of the others it is said."""
    for job in jobs:
        if job.done():
            say(f"skipped {job.image}: it is there")
        else:
            yield job


@contextmanager
def stoppable(jobs: Sequence[Job]) -> Iterator[None]:
    """While jobs are done: a folder that cannot be written is noticed before a model is loaded, and a stop says what
    is there.

    Raises:
        OSError: if the folder cannot be made or written.
        KeyboardInterrupt: when interrupted, with the text.
    """
    folder = jobs[0].folder
    check_writable(folder)
    try:
        yield
    except KeyboardInterrupt:
        done = sum(job.done() for job in jobs)
        kept = f"{done} of {len(jobs)} images are in {folder}, and the same command makes the others"
        raise KeyboardInterrupt(kept) from None


def check_sampling(settings: Any) -> None:
    """Says whether the scales and the number of steps can be.

    Raises:
        ValueError: if they cannot.
    """
    finite("strong", settings.strong)
    if settings.weak is not None:
        finite("weak", settings.weak)
    if settings.steps < 1:
        raise ValueError(f"steps must be at least 1, got {settings.steps}")


def check_size(size: int) -> None:
    """Says whether a pipeline's images can be of a height and width.

    Raises:
        ValueError: if they cannot.
    """
    if size < 8 or size % 8:
        raise ValueError(f"image-size must be a positive multiple of 8, got {size}")


def check_pipeline(settings: Any) -> None:
    """Says whether a pipeline's scheduler, dtype and device can be.

    Raises:
        ValueError: if they cannot.
    """
    if settings.scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler must be 'ddim' or 'keep', got {settings.scheduler!r}")
    if settings.dtype not in ("float32", "float16", "bfloat16"):
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {settings.dtype!r}")
    check_device(settings.device, instead="--device cpu --dtype float32")


def check_device(name: str, instead: str) -> None:
    """Says whether a device is to be had.

    Raises:
        ValueError: if it is not, with the options to pass `instead`.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be such as 'cuda' or 'cpu', got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name} is not to be had here; pass {instead}")
