"""`zigzag invert` on a tiny pipeline in a folder, as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")
import diffusers
from PIL import Image, ImageChops

from zigzag.adapters.diffusers import encode_image
from zigzag.cli import main
from zigzag.inversion import load

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

WROTE = {"original.png", "reconstruction.png", "edit.png", "inversion.safetensors", "report.json", "report.txt"}


def picture(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(0))
    Image.frombytes("RGB", size, bytes(noise.byte().flatten().tolist())).save(path)
    return path


def invert(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    small = ("--steps", "4", "--device", "cpu", "--dtype", "float32", "--prompt", "a cat")
    assert main(["invert", "--model", str(folder), "--out", str(out), *small, *more]) == 0
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.parametrize("scheme", ["edit-friendly", "edict"])
def test_what_comes_back_is_what_the_decoder_makes_of_the_image(scheme: str, folder: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "cat.png")
    options = ("--image", str(image), "--edit", "a dog", "--scheme", scheme, "--scheduler", "ddim", "--strong", "2")
    report = invert(folder, tmp_path / "out", *options)
    assert {path.name for path in (tmp_path / "out").iterdir()} == WROTE
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    z0 = encode_image(pipe, Image.open(image))
    with torch.no_grad():
        pixels = pipe.vae.decode(z0 / pipe.vae.config.scaling_factor).sample
    wanted = pipe.image_processor.postprocess(pixels)[0]
    back, edit = (Image.open(tmp_path / f"out/{name}.png").convert("RGB") for name in ("reconstruction", "edit"))
    off = max(high for _, high in ImageChops.difference(back, wanted.convert("RGB")).getextrema())
    assert off <= 1 and ImageChops.difference(back, edit).getbbox() is not None
    assert report["original"]["right"] is None and report["edits"][0]["right"] is None
    # Both branches of a pipeline's own guidance, 4 steps: a row each for one evaluation a step, twice that for two.
    assert report["rows of the inversion"] == {"edit-friendly": 8, "edict": 16}[scheme]
    inverted = load(tmp_path / "out/inversion.safetensors")
    assert inverted.noise.dtype == torch.float64 and inverted.noise.shape == z0.shape


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: [], "image is missing: .* draws no scenes; pass --image"),
        (lambda at: ["--image", picture(at / "a.png", (17, 16))], "must be multiples of .*, got 17x16; resize or crop"),
        (lambda at: ["--image", at / "none.png"], "there is no .*none.png"),
        (lambda at: ["--image", picture(at / "a.png"), "--scheme", "ddim"], "scheme must be one of"),
        (lambda at: ["--image", picture(at / "a.png"), "--scheduler", "pndm"], "scheduler must be 'ddim' or 'keep'"),
        (lambda at: ["--image", picture(at / "a.png"), "--weights", at / "w"], "--weights means nothing to"),
        (lambda at: ["--image", picture(at / "a.png"), "--model", at / "none"], "cannot load model .*none"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    make: Any, says: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        invert(folder, out, *map(str, make(tmp_path)))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and error.startswith("zigzag invert: error: ")
    assert re.search(says, error), error
    assert not out.exists() or not list(out.iterdir())
