"""`zigzag invert` by a learned model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from zigzag.cli.generate_learned import ENLARGED, enlarged, judge
from zigzag.cli.invert_report import check_inverting, open_image, pictures, report_of, warned, write
from zigzag.cli.jobs import check_device
from zigzag.evaluation.edits import edit
from zigzag.evaluation.schemes import parse_scheme
from zigzag.inversion import load as load_inverted
from zigzag.support.extras import require
from zigzag.support.files import check_writable
from zigzag.zoo.learned import load
from zigzag.zoo.shapes import draw_scene, parse, render, tokenize
from zigzag.zoo.shapes.scenes import SIDE

__all__ = ["Settings", "run"]


@dataclass(frozen=True)
class Settings:
    """All that the images depend on: the options of the command.

    Raises:
        ValueError: for settings out of range, an unknown scheme, an empty prompt or a word that the grammar does not
            have; for an image beside an inversion.
    """

    model: str
    weights: Path | None
    image: Path | None
    prompt: str
    edit: tuple[str, ...]
    scheme: str
    steps: int
    strong: float
    edit_strong: float | None
    inverted: Path | None
    seed: int
    device: str

    def __post_init__(self) -> None:
        check_inverting(self)
        if self.image is not None and self.inverted is not None:
            raise ValueError(f"image and inverted are one too many: {self.inverted} has its own state")
        tokenize([self.prompt, *self.edit])
        if self.image is None and self.inverted is None:
            parse(self.prompt)  # a scene is drawn of it
        check_device(self.device, instead="--device cpu")


def run(s: Settings, out: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Writes original, reconstruction and edits (`.png`, enlarged), `inversion.safetensors`, and the report
    (`report.json`, `report.txt`), each all at once; and says what the report says.

    Returns:
        The report.

    Raises:
        ValueError: for a file that is no inversion, or one of another model or grid; weights of another model; an image
            of another size. OSError: for files that cannot be read, and a folder that cannot be written.
        ImportError: without Pillow, diffusers, safetensors or scipy, naming the extra that brings them.
    """
    pil = require("PIL.Image", "images need Pillow", "shapes")
    original = None if s.inverted is not None else _original(s, pil)
    judge(s.prompt, torch.zeros(1, 3, SIDE, SIDE))  # scipy is asked for before anything is inverted
    check_writable(out)
    model = load(s.model, s.weights, s.device)
    inverted = None if s.inverted is None else load_inverted(s.inverted, shape=(1, *model.shape), device=s.device)
    images = original if original is not None else torch.zeros(1, *model.shape)
    with warned() as said:
        found = edit(
            model, images.to(s.device), [s.prompt], [[text] for text in s.edit], parse_scheme(s.scheme), steps=s.steps,
            guidance=s.strong, edit_guidance=s.edit_strong, seed=s.seed, inverted=inverted,
        )  # fmt: skip
    back, *edits = (image.cpu() for image in (found.reconstruction, *found.edits))
    report = report_of(s, found.inverted, original, back, edits, said, judge)
    every = pictures(original, back, edits)
    files = {name: pil.fromarray(enlarged(image).numpy()) for name, image in every.items()}
    write(out, files, found.inverted, report, say)
    return report


def _original(s: Settings, pil: Any) -> Tensor:
    """The image of the file, or the scene drawn, `(1, 3, 32, 32)` in [0, 1]."""
    if s.image is None:
        return render([draw_scene(parse(s.prompt), Random(s.seed))])
    image = open_image(s.image, pil)
    by = {SIDE: 1, ENLARGED * SIDE: ENLARGED}.get(image.width)
    if by is None or image.height != image.width:
        large = ENLARGED * SIDE
        raise ValueError(
            f"image {s.image} must be of {SIDE}×{SIDE} pixels, or {large}×{large} as zigzag writes them, got "
            f"{image.width}×{image.height}"
        )
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, 3)
    return torch.nn.functional.avg_pool2d(pixels.permute(2, 0, 1)[None].float() / 255, by)
