"""`zigzag invert` by a learned model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from zigzag.cli.generate_learned import ENLARGED, enlarged, judge
from zigzag.cli.jobs import check_device
from zigzag.evaluation.edits import Edited, edit, kept
from zigzag.evaluation.schemes import parse_scheme
from zigzag.guidance.base import finite
from zigzag.inversion import Inverted, save
from zigzag.inversion import load as load_inverted
from zigzag.support.commands import one_line
from zigzag.support.extras import require
from zigzag.support.files import check_writable, replacing, write_json
from zigzag.support.machine import versions
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
    guidance: float
    edit_guidance: float | None
    inverted: Path | None
    seed: int
    device: str

    def __post_init__(self) -> None:
        for name in ("guidance", "edit_guidance"):
            if getattr(self, name) is not None:
                finite(name.replace("_", "-"), getattr(self, name))
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not all(text.strip() for text in (self.prompt, *self.edit)):
            raise ValueError("prompt and edit must not be empty")
        if self.image is not None and self.inverted is not None:
            raise ValueError(f"image and inverted are one too many: {self.inverted} has its own state")
        parse_scheme(self.scheme)
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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = edit(
            model, images.to(s.device), [s.prompt], [[text] for text in s.edit], parse_scheme(s.scheme), steps=s.steps,
            guidance=s.guidance, edit_guidance=s.edit_guidance, seed=s.seed, inverted=inverted,
        )  # fmt: skip
    report = _report(s, found, original, [str(warning.message) for warning in caught])
    pictures = {"reconstruction": found.reconstruction}
    if original is not None:
        pictures = {"original": original, **pictures}
    for k, image in enumerate(found.edits, 1):
        pictures["edit" if len(found.edits) == 1 else f"edit-{k}"] = image
    for name, image in pictures.items():
        with replacing(out / f"{name}.png") as temporary:
            pil.fromarray(enlarged(image).numpy()).save(temporary, format="PNG")
    save(found.inverted, out / "inversion.safetensors")
    write_json(out / "report.json", report)
    with replacing(out / "report.txt") as temporary:
        temporary.write_text(_text(report), encoding="utf-8")
    say(_text(report).rstrip())
    say(f"wrote {', '.join(f'{name}.png' for name in pictures)}, inversion.safetensors and report to {out}")
    return report


def _original(s: Settings, pil: Any) -> Tensor:
    """The image of the file, or the scene drawn, `(1, 3, 32, 32)` in [0, 1]."""
    if s.image is None:
        return render([draw_scene(parse(s.prompt), Random(s.seed))])
    try:
        with pil.open(s.image) as file:
            image = file.convert("RGB")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # what a damaged file raises is of many kinds
        raise ValueError(f"image {s.image} cannot be read: {one_line(error)}") from error
    by = {SIDE: 1, ENLARGED * SIDE: ENLARGED}.get(image.width)
    if by is None or image.height != image.width:
        large = ENLARGED * SIDE
        raise ValueError(
            f"image {s.image} must be of {SIDE}×{SIDE} pixels, or {large}×{large} as zigzag writes them, got "
            f"{image.width}×{image.height}"
        )
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width, 3)
    return torch.nn.functional.avg_pool2d(pixels.permute(2, 0, 1)[None].float() / 255, by)


def _report(s: Settings, found: Edited, original: Tensor | None, warned: list[str]) -> dict[str, Any]:
    inverted: Inverted = found.inverted
    how = inverted.report
    assert how is not None
    back = found.reconstruction
    reference = back if original is None else original.to(back.device)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(s).items()}
    return {
        **settings,
        "scheme": repr(inverted.scheme),
        "rows of the inversion": how.rows,
        "deviation of the noise": float(how.deviation[0]),
        "growth of rounding": how.growth,
        "residual": None if how.residual is None else float(how.residual.max()),
        "converged": None if how.converged is None else bool(how.converged[0]),
        "original": None if original is None else {"right": judge(s.prompt, original)},
        "reconstruction": {
            "right": judge(s.prompt, back.cpu()),
            "off by at most": None if original is None else float((back - reference).abs().max()),
        },
        "edits": [
            {"prompt": text, "right": judge(text, image.cpu()), "kept": kept(reference, image)}
            for text, image in zip(s.edit, found.edits, strict=True)
        ],
        "warnings": warned,
        "versions": f"{versions()}, diffusers {version('diffusers')}",
    }


_MARKS = {None: "", True: "  ✓ as the prompt says", False: "  ✗ not what the prompt says"}


def _text(report: dict[str, Any]) -> str:
    """The report in lines."""
    growth, residual = report["growth of rounding"], report["residual"]
    how = [
        f"{report['rows of the inversion']} rows up",
        f"deviation of the noise {report['deviation of the noise']:.3f}",
    ]
    how += [] if growth is None else [f"growth of rounding {growth:.3g}"]
    how += [] if residual is None else [f"residual {residual:.2g}"]
    lines = [
        f"{report['model']}, {report['steps']} steps, w = {report['guidance']:g}: {report['scheme']}; {'; '.join(how)}"
    ]
    if report["original"] is not None:
        lines.append(f"original        {report['prompt']}{_MARKS[report['original']['right']]}")
    off = report["reconstruction"]["off by at most"]
    said = "" if off is None else f"  (off by {off:.1e} at most)"
    lines.append(f"reconstruction  {report['prompt']}{_MARKS[report['reconstruction']['right']]}{said}")
    for edited in report["edits"]:
        lines.append(
            f"edit            {edited['prompt']}{_MARKS[edited['right']]}  ({edited['kept']:.1%} of pixels kept)"
        )
    lines += [f"warning: {text}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"
