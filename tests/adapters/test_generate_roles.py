"""The roles of `zigzag generate`: other prompts, scales and LoRA strengths for the weak predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from zigzag import ZSampling
from zigzag.cli import main

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

SMALL = ("--steps", "3", "--image-size", "16", "--device", "cpu", "--dtype", "float32")
PROMPT = "a dog"


def generate(model: Path, out: Path, *more: str) -> dict[str, Any]:
    """The zigzag image as bytes of its pixels, with its sidecar."""
    main(["generate", "--model", str(model), "--prompt", PROMPT, "--out", str(out), *SMALL, *more])
    (sidecar,) = out.glob("*-zsampling.json")
    return {**json.loads(sidecar.read_text()), "pixels": pixels(sidecar.with_suffix(".png"))}


def pixels(image: Any) -> bytes:
    from PIL import Image

    opened = Image.open(image) if isinstance(image, Path) else image
    made: bytes = opened.convert("RGB").tobytes()
    return made


def by_hand(model: Path, adapter: Path | None = None, strength: float = 1.0, weak: Any = 0.0, **call: Any) -> bytes:
    """The same by the pipeline itself."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    if adapter is not None:
        pipe.load_lora_weights(str(adapter), adapter_name="style")
        pipe.set_adapters("style", strength)
    given = {"height": 16, "width": 16, "num_inference_steps": 3, "generator": torch.Generator().manual_seed(42)}
    with attach(pipe, ZSampling(), weak=weak):
        return pixels(pipe(PROMPT, **given, **call).images[0])


@pytest.mark.parametrize(
    ("options", "role"),
    [
        (("--weak-guidance", "1"), {"guidance": 1.0}),
        (("--weak-prompt", ""), {"prompt": ""}),
        (("--weak-prompt", "a cat", "--weak-guidance", "2"), {"prompt": "a cat", "guidance": 2.0}),
    ],
)
def test_a_distilled_model_has_a_weak_role(
    options: tuple[str, ...], role: dict[str, Any], flux_folder: Path, tmp_path: Path
) -> None:
    """Of one branch, at true CFG 1: a row a call, three a zigzag."""
    made = generate(flux_folder, tmp_path, *options, "--strong", "1", "--guidance", "4")
    told = {"true_cfg_scale": 1.0, "guidance_scale": 4.0}
    assert made["pixels"] == by_hand(flux_folder, weak=Role(**role), **told)
    assert made["pixels"] != by_hand(flux_folder, weak=Role(guidance=4.0), **told)  # no gap
    assert made["rows"] == 3 + 2 * 2 and "weak" not in made


@pytest.mark.parametrize(
    ("options", "role"),
    [
        (("--weak-prompt", "a cat"), {"prompt": "a cat"}),
        (("--weak-prompt", "a cat", "--weak", "1"), {"prompt": "a cat", "cfg": 1.0}),
        (("--weak-negative-prompt", "a cat", "--weak", "0"), {"negative_prompt": "a cat", "cfg": 0.0}),
    ],
)
def test_a_role_joins_two_branches_as_the_pipeline_or_by_weak(
    options: tuple[str, ...], role: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    made = generate(folder, tmp_path, *options, "--negative-prompt", "blurry")
    told = {"guidance_scale": 5.5, "negative_prompt": "blurry"}
    assert made["pixels"] == by_hand(folder, weak=Role(**role), **told)
    assert made["pixels"] != by_hand(folder, **told)
    assert by_hand(folder, **told) != by_hand(folder, guidance_scale=5.5)  # the negative prompt was told


@pytest.fixture(scope="module")
def style(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights for the tiny pipeline, random ones."""
    peft = pytest.importorskip("peft")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"]), "style")
    torch.manual_seed(1)
    for name, parameter in pipe.unet.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter)
    home = tmp_path_factory.mktemp("style")
    pipe.save_lora_weights(home, unet_lora_layers=peft.get_peft_model_state_dict(pipe.unet, adapter_name="style"))
    return home


def test_lora_strengths_of_both_roles(folder: Path, style: Path, tmp_path: Path) -> None:
    options = ("--adapter", f"style={style}", "--strong-adapter", "style=0.5", "--weak-adapter", "style=-1.5")
    made = generate(folder, tmp_path, *options, "--weak", "1")
    weak = Role(adapters={"style": -1.5}, cfg=1.0)
    assert made["pixels"] == by_hand(folder, style, 0.5, weak, guidance_scale=5.5)
    assert made["pixels"] != by_hand(folder, style, 1.0, weak, guidance_scale=5.5)
    assert made["adapter"] == [f"style={style}"]


def test_other_weights_under_the_same_name_make_another_image(folder: Path, style: Path, tmp_path: Path) -> None:
    options = ("--adapter", f"style={style}", "--method", "standard")
    main(["generate", "--model", str(folder), "--prompt", PROMPT, "--out", str(tmp_path), *SMALL, *options])
    (weights,) = style.iterdir()
    weights.write_bytes(weights.read_bytes())
    main(["generate", "--model", str(folder), "--prompt", PROMPT, "--out", str(tmp_path), *SMALL, *options])
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_the_command_in_a_sidecar_holds_the_roles(flux_folder: Path, tmp_path: Path) -> None:
    made = generate(flux_folder, tmp_path / "one", "--strong", "1", "--weak-guidance", "1", "--weak-prompt", "")
    main([*made["command"][1:], "--out", str(tmp_path / "two")])
    (one,), (two,) = ((tmp_path / name).glob("*-zsampling.png") for name in ("one", "two"))
    assert one.name == two.name and one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--weak-guidance", "nan"), "weak-guidance must be finite"),
        (("--guidance", "3"), "guidance means nothing to StableDiffusionPipeline, whose one scale is strong"),
        (("--weak-guidance", "1"), "the pipeline's model is told no embedded guidance scale"),
        (("--weak-adapter", "style=1"), "weak-adapter 'style' is not loaded: pass --adapter style=PLACE"),
        (("--adapter", "style"), "adapter must be a name, '=' and a place, got 'style'"),
        (("--adapter", "style=nowhere", "--weak-adapter", "style=high"), "'style' must be a number, got 'high'"),
        (("--adapter", "style=a", "--adapter", "style=b"), "adapter names 'style' twice"),
        (("--adapter", "style=no where"), "cannot load adapter style from no where: "),
        (("--solver", "2m"), "--solver means nothing to"),
    ],
)
def test_roles_that_do_not_fit_are_one_line(
    options: tuple[str, ...], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    given = ["generate", "--model", str(folder), "--prompt", PROMPT, "--out", str(tmp_path), *SMALL, *options]
    with pytest.raises(SystemExit) as exit:
        main([*given, "--method", "z"])
    error = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2 and said in error[-1], error
    assert not list(tmp_path.glob("*-zsampling.png"))
