"""The authors' released pipeline (data/sdxl-tiny), reproduced by today's SDXL pipeline with `attach`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from zigzag import Standard, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach


DATA = Path(__file__).parent.parent / "data" / "sdxl-tiny"
META = json.loads((DATA / "meta.json").read_text())
CASES = META["cases"]
WANTED = 2e-5  # as in test_golden.py


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return pytest.importorskip("safetensors.torch").load_file(DATA / "latents.safetensors")


@pytest.fixture(scope="module")
def pipe() -> Any:
    unet = diffusers.UNet2DConditionModel(**META["unet_config"]).eval()
    unet.load_state_dict(pytest.importorskip("safetensors.torch").load_file(DATA / "unet.safetensors"))
    scheduler = diffusers.DDIMScheduler(**{k: v for k, v in META["scheduler"].items() if not k.startswith("_")})
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4, 4), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=scheduler, text_encoder=None, text_encoder_2=None, tokenizer=None,
        tokenizer_2=None, add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: Any, golden: dict[str, Tensor], case: dict[str, float]) -> Tensor:
    out = pipe(
        prompt_embeds=golden["prompt_embeds"], negative_prompt_embeds=golden["negative_prompt_embeds"],
        pooled_prompt_embeds=golden["pooled"], negative_pooled_prompt_embeds=golden["negative_pooled"],
        latents=golden["x_T"], num_inference_steps=int(case["steps"]), guidance_scale=case["g1"], height=16, width=16,
        output_type="latent",
    )  # fmt: skip
    return out.images


def distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@pytest.mark.parametrize("name", list(CASES))
def test_the_released_pipeline_is_reproduced(name: str, pipe: Any, golden: dict[str, Tensor]) -> None:
    """Within 2e-5 of their final latent, in as many doubled calls; with the exact inverse it is another sampler."""
    case = CASES[name]
    zigzag = bool(case.get("lam"))

    def method(released: bool) -> Standard | ZSampling:
        if case.get("std"):
            return Standard()
        return ZSampling(steps=int(case["lam"]), rounds=int(case["T_max"]), released=released)

    with attach(pipe, method(released=True), weak=case.get("g2", 0.0)) as attached:
        x = run(pipe, golden, case)
    assert distance(x, golden[name]) <= WANTED
    assert attached.rows == 2 * case["model_calls"]
    with attach(pipe, method(released=False), weak=case.get("g2", 0.0)):
        exact = run(pipe, golden, case)
    assert (distance(exact, golden[name]) > 0.1) == zigzag
