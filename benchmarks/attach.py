"""What `attach` costs: a tiny SDXL pipeline by itself, and with a method attached that makes as many model calls.

    python benchmarks/attach.py [--json FILE]

All of `pipe(…)` is timed, up to the latents, and for the attached run the entering and leaving of the block as well.
The runs alternate within one process; the figure is the median ratio of neighbouring runs. The model is small, so that
what is added around its calls weighs more than it ever will on a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers as untyped
import torch
from common import arguments, in_turns, median, ratio, write
from torch import Tensor

from zigzag import Standard, Z2Sampling
from zigzag.adapters.diffusers import attach

diffusers: Any = untyped
STEPS = 20


def tiny_sdxl() -> tuple[Any, Callable[[], Tensor]]:
    """An SDXL pipeline with random weights, and a call of it on 32×32 latents."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=2, sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80, cross_attention_dim=64,
    )  # fmt: skip
    pipe = unet_pipeline(unet)
    embeds, pooled, latents = torch.randn(2, 1, 77, 64), torch.randn(2, 1, 32), torch.randn(1, 4, 32, 32)

    def call() -> Tensor:
        images: Tensor = pipe(
            prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], pooled_prompt_embeds=pooled[0],
            negative_pooled_prompt_embeds=pooled[1], latents=latents, num_inference_steps=STEPS, guidance_scale=5.5,
            output_type="latent",
        ).images  # fmt: skip
        return images

    return pipe, call


def unet_pipeline(unet: Any) -> Any:
    """SDXL's pipeline around a U-Net of its kind, else Stable Diffusion's; the VAE decodes nothing, no text encoder."""
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    parts: dict[str, Any] = {"vae": vae, "unet": unet, "scheduler": scheduler, "text_encoder": None, "tokenizer": None}
    if unet.config.addition_embed_type == "text_time":
        pipe = diffusers.StableDiffusionXLPipeline(
            **parts, text_encoder_2=None, tokenizer_2=None, add_watermarker=False
        )
    else:
        pipe = diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def attached(pipe: Any, call: Callable[[], Tensor], method: Any) -> Callable[[], Tensor]:
    """The same call with a method attached."""

    def run() -> Tensor:
        with attach(pipe, method):
            return call()

    return run


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    args = arguments(__doc__, runs=20, clock=True).parse_args()
    runs = 3 if args.quick else args.runs

    results: list[dict[str, Any]] = []
    pipe, plain = tiny_sdxl()
    assert torch.equal(attached(pipe, plain, Standard())(), plain())  # the same work is timed
    for method in (Standard(), Z2Sampling(warmup=5)):
        mine, other = in_turns([attached(pipe, plain, method), plain], runs, clock=args.clock)
        of = ratio(mine, other)
        ms = [median(seconds, per=1e-3) for seconds in (mine, other)]
        results.append({"method": type(method).__name__, "attached_ms": ms[0], "plain_ms": ms[1], "ratio": of})
        print(f"{type(method).__name__:<12}attached / plain = {of}   ({ms[0]:.0f} / {ms[1]:.0f} ms)")
    print(f"tiny SDXL, {STEPS} steps, {runs} runs each, {args.clock} clock")
    write(args.json, results, packages=["diffusers"])


if __name__ == "__main__":
    main()
