"""`zigzag generate` by a learned model, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
pytest.importorskip("PIL")
from PIL import Image

from support.painters import painter
from zigzag import Standard, ZSampling, sample
from zigzag.cli import generate_learned as module
from zigzag.cli import main
from zigzag.solvers import DPMSolver
from zigzag.zoo import learned

PROMPT = "a red circle left of a blue square"


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> learned.LearnedModel:
    """In the place of the trained one, with which nothing here has to do."""
    made = painter()
    monkeypatch.setattr(module, "load", lambda name, device: made)
    return made


def generate(out: Path, *more: str, prompt: str = PROMPT) -> int:
    given = ["generate", "--model", "shapes-dit", "--prompt", prompt, "--out", str(out)]
    return main([*given, "--steps", "3", *more])


def sidecars(out: Path) -> dict[str, Any]:
    return {path.stem.split("-")[-1]: json.loads(path.read_text()) for path in out.glob("*.json")}


def test_it_writes_the_standard_and_the_zigzag_image_enlarged(tmp_path: Path, model: learned.LearnedModel) -> None:
    assert generate(tmp_path, "--method", "z", "--strong", "2") == 0
    assert len(list(tmp_path.iterdir())) == 4
    assert {name: content["rows"] for name, content in sidecars(tmp_path).items()} == {"standard": 6, "zsampling": 12}
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(42))
    cond, uncond = model.encode(PROMPT), model.encode("")
    x = sample(model.eps_fn, noise, model.solver(3), Standard(), cond=cond, uncond=uncond, strong=2.0)
    (path,) = tmp_path.glob("*standard.png")
    image = Image.open(path)
    assert image.size == (256, 256)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(256, 256, 3)
    expected = (255 * model.decode(x)[0]).round().permute(1, 2, 0)
    assert all(torch.equal(pixels[k::8, k::8], expected.byte()) for k in (0, 7))


def test_a_solver_by_name_takes_the_steps_and_stands_in_the_command(
    tmp_path: Path, model: learned.LearnedModel
) -> None:
    generate(tmp_path / "one", "--method", "z", "--solver", "ddim:eta=1", "--lambda", "1")
    generator = torch.Generator().manual_seed(42)
    solver = DPMSolver.on(model.solver(3), order=1, sde=True)
    noise = solver.noise((1, 3, 32, 32), generator=generator)
    given = {"cond": model.encode(PROMPT), "uncond": model.encode(""), "strong": 2.0, "generator": generator}
    x = sample(model.eps_fn, noise, solver, ZSampling(steps=1), **given)
    (path,) = (tmp_path / "one").glob("*zsampling.png")
    pixels = module.enlarged(model.decode(x)).numpy()
    assert Image.open(path).tobytes() == pixels.tobytes()
    command = sidecars(tmp_path / "one")["zsampling"]["command"]
    main([*command[1:], "--out", str(tmp_path / "two")])
    assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_the_checker_says_whether_a_caption_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {}
    for wrong in (None, "a circle"):
        made = painter(wrong)
        monkeypatch.setattr(module, "load", lambda name, device, made=made: made)
        for prompt in (PROMPT, "circle red"):
            out = tmp_path / f"{wrong} {prompt}"
            generate(out, "--method", "z2", "--strong", "1", "--weak", "1", prompt=prompt)
            printed = capsys.readouterr().out
            said[wrong, prompt] = [printed.count(mark) for mark in ("wrote", "✓", "✗")]
            right = {content["right"] for content in sidecars(out).values()}
            assert right == ({None} if prompt == "circle red" else {wrong is None})
    assert said[None, PROMPT] == [2, 2, 0]
    assert said["a circle", PROMPT] == [2, 0, 2]
    assert said[None, "circle red"] == said["a circle", "circle red"] == [2, 0, 0]


def test_what_is_there_is_skipped_and_other_settings_overwrite_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path, "--method", "z")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    generate(tmp_path, "--method", "z")
    assert capsys.readouterr().out.count("skipped /") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    next(tmp_path.glob("*zsampling.json")).unlink()
    generate(tmp_path, "--method", "z")
    printed = capsys.readouterr().out
    assert (printed.count("skipped /"), printed.count("wrote /")) == (1, 1)
    generate(tmp_path, "--method", "z2")  # the standard image is there
    generate(tmp_path, "--method", "z2", "--strong", "3")
    assert len(list(tmp_path.glob("*.png"))) == 5
    monkeypatch.setattr(module, "recorded", lambda: {"shapes-dit": {"sha256": "of other weights"}})
    generate(tmp_path, "--method", "standard")
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_the_command_in_a_sidecar_makes_the_image_again(tmp_path: Path) -> None:
    generate(tmp_path / "one", "--method", "resampling", "--rounds", "2")
    for sidecar in (tmp_path / "one").glob("*.json"):
        command = json.loads(sidecar.read_text())["command"]
        main([*command[1:], "--out", str(tmp_path / "two")])
        again = (tmp_path / "two" / sidecar.name).with_suffix(".png")
        assert again.read_bytes() == sidecar.with_suffix(".png").read_bytes()


def test_the_defaults_are_those_of_the_kind_of_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from zigzag.cli import generate_pipeline as pipelines

    given: dict[str, Any] = {}
    for kind in (module, pipelines):
        monkeypatch.setattr(kind, "check_device", lambda *args, **more: None, raising=False)
        monkeypatch.setattr(kind, "generate", lambda s, prompts, *rest, **more: given.update({s.model: (s, prompts)}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    main(["generate", "--model", "some/pipeline"])
    for name, scale in (("shapes-unet", 4.0), ("shapes-dit", 2.0)):
        main(["generate", "--model", name, "--method", "z2"])
        s, prompts = given[name]
        assert s == module.Settings(name, scale, 0.0, 20, 42, "cpu")
        assert prompts == module.PROMPTS
    s, prompts = given["some/pipeline"]
    assert s == pipelines.Settings("some/pipeline", 5.5, 0.0, 50, 1024, 42, "cuda", "float16", "keep")
    assert prompts == pipelines.PROMPTS


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("--prompt", "a red cat"),
            "unknown word 'cat' in the prompt 'a red cat'; the words known are: a, and, of, circle",
        ),
        (("--prompt", " "), "prompt must not be empty"),
        (("--prompt", "a a a a a a a a a"), "at most 8"),
        (("--image-size", "64"), "--image-size means nothing to shapes-dit"),
        (("--dtype", "float32"), "--dtype means nothing to shapes-dit"),
        (("--scheduler", "ddim"), "--scheduler means nothing to shapes-dit"),
        (("--solver", "3s"), "solver must be one of ddim, ddpm"),
        (("--weak-prompt", "a circle"), "--weak-prompt means nothing to shapes-dit"),
        (("--weak-adapter", "style=1"), "--weak-adapter means nothing to shapes-dit"),
        (("--steps", "0"), "steps"),
        (("--strong", "nan"), "strong"),
        (("--device", "warp"), "device"),
        (("--method", "z2", "--span", "2"), "--span"),
        (("--lambda-step", "9"), "steps"),
    ],
)
def test_bad_input_is_one_line_and_no_image(
    more: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(name: str, device: str) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(module, "load", never)
    with pytest.raises(SystemExit) as exit:
        generate(tmp_path / "out", *more)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and said in error
    assert not (tmp_path / "out").exists()
