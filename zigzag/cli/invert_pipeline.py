"""`zigzag invert` by any pipeline of diffusers that `attach` leads up and down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.attach import attach
from zigzag.adapters.diffusers.images import encode_image
from zigzag.adapters.diffusers.ways import Inversion, Reconstruction
from zigzag.cli.invert_report import check_inverting, open_image, pictures, report_of, warned, write
from zigzag.cli.jobs import check_pipeline
from zigzag.evaluation.pictures import pillow, to_tensor
from zigzag.evaluation.pipelines import load_pipeline, scale_of, scheduled, silenced
from zigzag.evaluation.schemes import parse_scheme
from zigzag.support.files import check_writable

__all__ = ["Settings", "run"]


@dataclass(frozen=True)
class Settings:
    """All that the images depend on: the options of the command.

    Raises:
        ValueError: for settings out of range, an unknown scheme and an empty prompt, and without an image.
    """

    model: str
    image: Path | None
    prompt: str
    edit: tuple[str, ...]
    scheme: str
    steps: int
    strong: float
    edit_strong: float | None
    seed: int
    device: str
    dtype: str
    scheduler: str

    def __post_init__(self) -> None:
        check_inverting(self)
        if self.image is None:
            raise ValueError(f"image is missing: {self.model} draws no scenes; pass --image")
        check_pipeline(self)


def run(s: Settings, out: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Writes original, reconstruction and edits (`.png`), `inversion.safetensors`, and the report (`report.json`,
    `report.txt`), each all at once; and says what the report says. States are carried in float64.

    Returns:
        The report.

    Raises:
        ValueError: for an image that cannot be read, or of a size that the pipeline cannot take; for a scheduler that
            does not suit the scheme, and a pipeline that cannot be led up.
        OSError: for a model that cannot be loaded, saying why; for a folder that cannot be written.
    """
    assert s.image is not None
    original = open_image(s.image, pillow())
    check_writable(out)
    with silenced(True):
        pipe = load_pipeline(s)
    pipe.set_progress_bar_config(disable=True)
    z0 = encode_image(pipe, original)
    sizes = {"height": original.height, "width": original.width, "num_inference_steps": s.steps}

    def call(method: Any, prompt: str, w: float, **more: Any) -> tuple[Any, Any]:
        generator = torch.Generator().manual_seed(s.seed)
        with scheduled(pipe, s.scheduler, s.steps), attach(pipe, method, generator=generator) as run:
            return run, pipe(prompt=prompt, **sizes, **scale_of(pipe, w), **more)

    with warned() as said:
        way, _ = call(
            Inversion(parse_scheme(s.scheme), dtype=torch.float64), s.prompt, s.strong, latents=z0,
            output_type="latent",
        )  # fmt: skip
    down, w = Reconstruction(way.inverted), s.strong if s.edit_strong is None else s.edit_strong
    asked = [(s.prompt, s.strong), *((text, w) for text in s.edit)]
    back, *edits = (call(down, text, scale)[1].images[0] for text, scale in asked)
    report = report_of(
        s, way.inverted, to_tensor(original), to_tensor(back), [to_tensor(image) for image in edits], said, _unjudged
    )
    write(out, pictures(original, back, edits), way.inverted, report, say)
    return report


def _unjudged(prompt: str, image: Tensor) -> bool | None:
    return None
