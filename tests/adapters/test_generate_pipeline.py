"""`zigzag generate` on a tiny pipeline in a folder, as a user runs it."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch

from zigzag.cli import main

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

PROMPT = "A Red dog, ../../etc/passwd\x00 & more"


def generate(folder: Path, out: Path, *more: str, prompt: str = PROMPT) -> int:
    small = ("--steps", "4", "--image-size", "16", "--device", "cpu", "--dtype", "float32")
    return main(["generate", "--model", str(folder), "--prompt", prompt, "--out", str(out), *small, *more])


def test_it_writes_the_standard_and_the_zigzag_image_with_their_sidecars(folder: Path, tmp_path: Path) -> None:
    assert generate(folder, tmp_path, "--method", "z") == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == 4 and all(set(n) <= set(string.ascii_lowercase + string.digits + "-.") for n in names)
    content = {p.stem.split("-")[-1]: json.loads(p.read_text()) for p in tmp_path.glob("*.json")}
    assert content["standard"]["prompt"] == content["zsampling"]["prompt"] == PROMPT
    # λ = T − 1 = 3, and a pipeline runs both branches at every call: 4 doubled calls, and 2 more at each zigzag.
    assert (content["standard"]["rows"], content["zsampling"]["rows"]) == (8, 20)


def test_the_standard_image_is_that_of_the_plain_pipeline(folder: Path, tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    generate(folder, tmp_path, "--method", "standard", prompt="a dog")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    plain = pipe(
        "a dog", height=16, width=16, num_inference_steps=4, guidance_scale=5.5,
        generator=torch.Generator().manual_seed(42),
    ).images[0]  # fmt: skip
    (image,) = tmp_path.glob("*.png")
    assert ImageChops.difference(Image.open(image).convert("RGB"), plain.convert("RGB")).getbbox() is None


def test_what_is_there_is_skipped_and_what_lacks_its_sidecar_is_made_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(folder, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    generate(folder, tmp_path)
    assert capsys.readouterr().out.count("skipped /") == 2
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before
    next(tmp_path.glob("*zsampling.json")).unlink()
    generate(folder, tmp_path)
    out = capsys.readouterr().out
    assert (out.count("skipped /"), out.count("wrote /")) == (1, 1)
    assert set(tmp_path.iterdir()) == set(before)


def test_other_settings_overwrite_nothing(folder: Path, tmp_path: Path) -> None:
    for more in ((), ("--strong", "3"), ("--seed", "7"), ("--method", "z2"), ("--t-max", "2")):
        generate(folder, tmp_path, *more)
    # The standard image is common to the runs that differ in their method alone.
    assert len(list(tmp_path.glob("*standard.png"))) == 3
    assert len(list(tmp_path.glob("*.png"))) == 8


@pytest.mark.parametrize(
    "more", [("--method", "z", "--released", "--lambda-step", "2"), ("--method", "z2"), ("--method", "resampling")]
)
def test_the_command_in_a_sidecar_makes_the_image_again(folder: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    generate(folder, tmp_path / "one", *more)
    (sidecar,) = (p for p in (tmp_path / "one").glob("*.json") if "standard" not in p.name)
    command = json.loads(sidecar.read_text())["command"]
    assert command[0] == "zigzag"
    main([*command[1:], "--out", str(tmp_path / "two")])
    again = (tmp_path / "two" / sidecar.name).with_suffix(".png")
    assert again.read_bytes() == sidecar.with_suffix(".png").read_bytes()


@pytest.mark.parametrize("prompt", ["-dog", "--help", "a=b"])
def test_a_prompt_may_look_like_an_option(folder: Path, tmp_path: Path, prompt: str) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"\ufeff{prompt}\n", encoding="utf-8")
    small = ["--steps", "2", "--image-size", "16", "--device", "cpu", "--dtype", "float32"]
    given = ["generate", "--model", str(folder), "--prompt-file", str(prompts), "--out", str(tmp_path / "one")]
    main([*given, *small, "--weak=-1e-05"])
    for sidecar in (tmp_path / "one").glob("*.json"):
        content = json.loads(sidecar.read_text())
        assert content["prompt"] == prompt
        main([*content["command"][1:], "--out", str(tmp_path / "two")])
        assert (tmp_path / "two" / sidecar.name).exists()


def test_a_file_without_prompts_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.txt").write_text("\n \n")
    with pytest.raises(SystemExit):
        main(["generate", "--model", str(folder), "--prompt-file", str(tmp_path / "none.txt")])
    assert "holds no prompt" in capsys.readouterr().err


def test_a_folder_that_changed_is_another_model(folder: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(folder, model)
    generate(model, tmp_path / "out", "--method", "standard")
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes())  # as good as trained again
    generate(model, tmp_path / "out", "--method", "standard")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def with_scheduler(folder: Path, model: Path, name: str, **config: Any) -> Path:
    """A copy of the pipeline in `folder` with another scheduler."""
    import shutil

    shutil.copytree(folder, model)
    getattr(diffusers, name).from_config(str(model / "scheduler"), **config).save_pretrained(model / "scheduler")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", name]}))
    return model


@pytest.mark.parametrize("name", ["PNDMScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_pipeline_keeps_its_scheduler_unless_told_otherwise(folder: Path, tmp_path: Path, name: str) -> None:
    config = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    model, named = with_scheduler(folder, tmp_path / "model", name, **config), {}
    for more in ((), ("--scheduler", "ddim")):
        generate(model, tmp_path / "out", *more, prompt="a dog")
    for path in (tmp_path / "out").glob("*zsampling.json"):
        content = json.loads(path.read_text())
        named[content["scheduler"]] = content["scheduler_config"]["_class_name"], content["rows"]
    more_rows = 2 if name == "PNDMScheduler" else 0  # the two calls of its first step, made twice, for one
    assert named == {"keep": (name, 20 + 2 * more_rows), "ddim": ("DDIMScheduler", 20)}


def test_a_scheduler_that_cannot_be_led_is_said_with_what_to_pass(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_scheduler(folder, tmp_path / "model", "DDPMScheduler", thresholding=True)
    with pytest.raises(SystemExit):
        generate(model, tmp_path / "out", prompt="a dog")
    error = capsys.readouterr().err.splitlines()[-1]
    assert "thresholding=True clamps" in error and error.endswith("or pass --scheduler ddim")


@pytest.mark.parametrize(
    ("kind", "config", "steps", "made", "spacing"),
    [
        ("DDIMScheduler", {"timestep_spacing": "leading"}, 7, "DDIMScheduler", "leading"),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, 50, "DDIMScheduler", "trailing"),
        ("DDIMScheduler", {"timestep_spacing": "trailing"}, 7, "DDIMScheduler", "leading"),
        ("DPMSolverMultistepScheduler", {"timestep_spacing": "linspace"}, 20, "DDIMScheduler", "leading"),
        ("DPMSolverMultistepScheduler", {"solver_order": 2}, 20, "DDIMScheduler", "leading"),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, 30, "DDIMScheduler", "leading"),
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
            20,
            "FlowMatchEulerDiscreteScheduler",
            None,
        ),
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 20, "FlowMatchEulerDiscreteScheduler", None),
    ],
)
def test_the_scheduler_that_takes_over_has_steps_with_an_inverse(
    kind: str, config: dict[str, Any], steps: int, made: str, spacing: str | None
) -> None:
    from zigzag.adapters.diffusers import solver_from_scheduler
    from zigzag.evaluation.pipelines import first_order

    # As from a file of the hub, where every key stands written out.
    before = getattr(diffusers, kind)(**config)
    before = type(before).from_config({**before.config, "_use_default_values": []})
    after = first_order(before, steps)
    assert type(after).__name__ == made
    assert spacing is None or after.config.timestep_spacing == spacing
    assert after.config.get("shift", 3.0) == 3.0
    assert len(solver_from_scheduler(after, steps)) == steps


def test_z_image_counts_its_scale_from_one() -> None:
    from zigzag.evaluation.pipelines import scale_of

    pipe = diffusers.ZImagePipeline.__new__(diffusers.ZImagePipeline)
    assert scale_of(pipe, 5.5) == {"guidance_scale": 4.5}


def test_prompts_come_from_a_file_too(folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a dog\n\na cat\n")
    generate(folder, tmp_path / "out", "--prompt-file", str(prompts), "--method", "standard", prompt="a cat")
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--steps", "0"), "steps"),
        (("--image-size", "17"), "image-size"),
        (("--dtype", "int8"), "dtype"),
        (("--device", "warp"), "device"),
        (("--scheduler", "euler"), "scheduler"),
        (("--method", "z2", "--span", "2"), "--span"),
        (("--lambda-step", "9"), "steps"),
        (("--prompt", " "), "prompt"),
        (("--weak", "nan"), "weak"),
        (("--prompt-file", "nowhere.txt"), "nowhere.txt"),
        (("--model", "nobody/no-such-model"), "model_index.json"),
    ],
)
def test_bad_input_is_one_line_and_no_image(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as exit:
        generate(folder, tmp_path / "out", *more)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and said in error.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    "lost", ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: str) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / lost).unlink()
    with pytest.raises(SystemExit):
        generate(tmp_path / "model", tmp_path / "out")
    error = capsys.readouterr().err.splitlines()[-1]
    # diffusers asks for weights by the name of the older format where it finds neither.
    assert Path(lost).stem in error
