"""`zigzag invert` by a learned model, as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
pytest.importorskip("PIL")
from PIL import Image

from support.painters import painter
from zigzag import DDIM
from zigzag.cli import invert_learned as module
from zigzag.cli import main
from zigzag.evaluation.edits import kept
from zigzag.inversion import EDICT, fresh, load, save
from zigzag.zoo import learned
from zigzag.zoo.shapes import draw_scene, parse, render

PROMPT, EDIT = "a red circle and a blue square", "a red circle and a green square"
WROTE = {"original.png", "reconstruction.png", "edit.png", "inversion.safetensors", "report.json", "report.txt"}


class Counted(learned.LearnedModel):
    """The painter, which knows what it draws and needs no weights, with its rows counted."""

    rows = 0

    def eps_fn(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.rows += len(x)
        return super().eps_fn(x, t, cond)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted("shapes-dit", painter().network)
    monkeypatch.setattr(module, "load", lambda name, weights, device: made)
    return made


def invert(out: Path, *more: str, prompt: str = PROMPT) -> dict[str, Any]:
    given = ["invert", "--model", "shapes-dit", "--prompt", prompt, "--out", str(out), "--steps", "3"]
    assert main([*given, *more]) == 0
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def pixels(path: Path) -> Tensor:
    image = Image.open(path)
    assert image.size == (256, 256) and image.mode == "RGB"
    large = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(256, 256, 3)
    assert torch.equal(large[::8, ::8], large[7::8, 7::8])
    return large[::8, ::8].permute(2, 0, 1)


def scene(text: str, seed: int = 0) -> Tensor:
    """What the painter draws, where the seed is 0."""
    return render([draw_scene(parse(text), Random(seed))])


def test_a_drawn_scene_comes_back_and_its_edit_shows_the_other_prompt(
    tmp_path: Path, model: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    report = invert(tmp_path, "--edit", EDIT)
    assert {path.name for path in tmp_path.iterdir()} == WROTE
    for name, text in (("original", PROMPT), ("reconstruction", PROMPT), ("edit", EDIT)):
        wanted = (255 * scene(text)[0]).round()
        assert float((pixels(tmp_path / f"{name}.png") - wanted).abs().max()) <= 1  # clipped and rounded
    assert report["original"]["right"] and report["reconstruction"]["right"]
    assert report["reconstruction"]["off by at most"] < 1e-6
    (edited,) = report["edits"]
    share = kept(scene(PROMPT), scene(EDIT))
    assert edited == {"prompt": EDIT, "right": True, "kept": pytest.approx(share)} and share < 1
    # Up twice, back and to the edit, a row a step each.
    assert report["rows of the inversion"] == 6 and model.rows == 12
    said, text = capsys.readouterr().out, (tmp_path / "report.txt").read_text()
    assert text in said and text.count("✓ as the prompt says") == 3 and f"({share:.1%} of pixels kept)" in text
    assert "20 steps" not in text and "Recorded(trajectory='naive')" in text


def test_an_image_is_inverted_as_the_scene_that_it_is(tmp_path: Path, model: Counted) -> None:
    """As zigzag writes it, and at its own size."""
    drawn = invert(tmp_path / "drawn", "--edit", EDIT, "--seed", "4")
    small = Image.open(tmp_path / "drawn/original.png").resize((32, 32), Image.Resampling.NEAREST)
    small.save(tmp_path / "small.png")
    for name, path in (("large", tmp_path / "drawn/original.png"), ("small", tmp_path / "small.png")):
        report = invert(tmp_path / name, "--edit", EDIT, "--seed", "4", "--image", str(path))
        for picture in ("original", "reconstruction"):
            known = pixels(tmp_path / "drawn" / f"{picture}.png").int()
            assert (pixels(tmp_path / name / f"{picture}.png").int() - known).abs().max() <= 1
        assert [r["right"] for r in report["edits"]] == [r["right"] for r in drawn["edits"]]


def test_an_inversion_is_taken_up_again_without_another_way_up(tmp_path: Path, model: Counted) -> None:
    first = invert(tmp_path / "first", "--edit", EDIT, "--scheme", "edict")
    rows, file = model.rows, tmp_path / "first/inversion.safetensors"
    report = invert(tmp_path / "again", "--edit", EDIT, "--edit", PROMPT, "--inverted", str(file))
    assert model.rows - rows == 3 * 2 * 3  # three ways down of two evaluations a step
    assert torch.equal(pixels(tmp_path / "again/edit-1.png"), pixels(tmp_path / "first/edit.png"))
    assert torch.equal(pixels(tmp_path / "again/edit-2.png"), pixels(tmp_path / "again/reconstruction.png"))
    assert report["scheme"] == first["scheme"] and "EDICT" in report["scheme"]
    assert report["original"] is None and report["reconstruction"]["off by at most"] is None
    assert not (tmp_path / "again/original.png").exists()
    again = load(tmp_path / "again/inversion.safetensors")
    assert torch.equal(again.noise, load(file).noise)


def test_the_scales_are_those_of_the_ways(tmp_path: Path, model: Counted) -> None:
    invert(tmp_path / "both", "--edit", EDIT, "--strong", "1.5")
    assert model.rows == 2 * 12
    invert(tmp_path / "edit", "--edit", EDIT, "--edit-strong", "1.5")
    assert model.rows == 2 * 12 + 6 + 3 + 6


def test_what_did_not_converge_stands_in_the_report(tmp_path: Path, model: Counted) -> None:
    report = invert(tmp_path, "--scheme", "fixed-point:most=1", "--seed", "4")
    assert report["converged"] is False and report["residual"] > 0
    assert "did not converge for 1 of 1 samples" in report["warnings"][0]
    assert "warning: FixedPoint(" in (tmp_path / "report.txt").read_text()
    assert report["edits"] == []


def inversion(path: Path, steps: int = 3) -> Path:
    """That of another model, on whose grid are other predictions."""
    save(fresh(torch.randn(1, 3, 32, 32), DDIM.stable_diffusion(steps), EDICT()), path)
    return path


def picture(path: Path, size: tuple[int, int] = (100, 80)) -> Path:
    Image.new("RGB", size).save(path)
    return path


def text(path: Path) -> Path:
    path.write_text("a cat")
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda at: ["--image", picture(at / "a.png")], r"must be of 32×32 pixels, or 256×256 .*, got 100×80"),
        (lambda at: ["--image", picture(at / "a.png", (32, 64))], r"must be of 32×32 pixels, .*, got 32×64"),
        (lambda at: ["--image", text(at / "a.png")], r"image .*a.png cannot be read: cannot identify"),
        (lambda at: ["--image", at / "none.png"], r"there is no .*none.png"),
        (lambda at: ["--image", at / "a.png", "--inverted", at / "b"], "image and inverted are one too many"),
        (lambda at: ["--inverted", inversion(at / "i")], "the one is of 'epsilon', the other of 'flow'"),
        (lambda at: ["--inverted", text(at / "i")], "i is not a safetensors file"),
        (lambda at: ["--inverted", at / "none"], "there is no file .*none"),
        (lambda at: ["--scheme", "ddim"], "scheme must be one of direct, .*, got 'ddim'"),
        (lambda at: ["--scheme", "edict:q=1"], "edict has no option 'q'"),
        (lambda at: ["--edit", "a purple circle"], "unknown word 'purple'"),
        (lambda at: ["--edit", " "], "must not be empty"),
        (lambda at: ["--steps", "0"], "steps must be at least 1, got 0"),
        (lambda at: ["--strong", "nan"], "strong must be finite"),
        (lambda at: ["--prompt", "circle red"], "is no caption"),
        (lambda at: ["--dtype", "float16"], "--dtype means nothing to shapes-dit"),
        (lambda at: ["--device", "moon"], "device must be such as"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(
    make: Any, says: str, tmp_path: Path, model: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stop:
        invert(out, *map(str, make(tmp_path)))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and error.startswith("zigzag invert: error: ")
    assert re.search(says, error), error
    assert model.rows == 0 and (not out.exists() or not list(out.iterdir()))


def test_weights_of_another_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path(learned.__file__).parent / "data/shapes-unet.safetensors"
    with pytest.raises(SystemExit):
        invert(tmp_path / "out", "--weights", str(weights))
    assert "weights must be of shapes-dit, got those of 'shapes-unet'" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
