"""Tiny random LTX-2 pipelines: video and sound, each a state of its own."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from swept_parts import pil
from tiny_unets import embeds, quiet, shake


def ltx2() -> tuple[Any, dict[str, Any]]:
    """The pipeline, and how it is called."""
    dims = {"num_attention_heads": 2, "audio_num_attention_heads": 2, "audio_attention_head_dim": 4}
    net = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, patch_size=1, patch_size_t=1, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_cross_attention_dim=8, num_layers=1, caption_channels=16,
        rope_double_precision=False, rope_type="split", **dims,
    )  # fmt: skip
    sizes = {"attention_head_dim": 8, "num_layers": 1, "num_learnable_registers": None, "num_attention_heads": 2}
    sides = {f"{side}_connector_{name}": size for side in ("video", "audio") for name, size in sizes.items()}
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=1, connector_rope_base_seq_len=8, rope_theta=10000.0,
        rope_double_precision=False, causal_temporal_positioning=False, rope_type="split", **sides,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,), decoder_block_out_channels=(8,), layers_per_block=(1,),
        decoder_layers_per_block=(1, 1), spatio_temporal_scaling=(True,), decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False), downsample_type=("spatial",), upsample_residual=(False,),
        upsample_factor=(1,), patch_size=1, patch_size_t=1,
    )  # fmt: skip
    sound = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=None, resolution=32, latent_channels=2,
        dropout=0.0, mid_block_add_attention=False, mel_bins=8,
    )  # fmt: skip
    pipe = diffusers.LTX2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae, audio_vae=sound, text_encoder=None,
        tokenizer=None, connectors=shake(connectors, 3), transformer=shake(net), vocoder=None,
    )  # fmt: skip
    c, u = embeds(1, 16)
    call = {
        "prompt_embeds": c, "negative_prompt_embeds": u, "prompt_attention_mask": torch.ones(1, 5),
        "negative_prompt_attention_mask": torch.ones(1, 5), "guidance_scale": 4.0, "audio_guidance_scale": 3.0,
        "stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0, "audio_stg_scale": 0.0,
        "audio_modality_scale": 1.0, "audio_guidance_rescale": 0.0, "use_cross_timestep": False, "height": 32,
        "width": 32, "num_frames": 3, "frame_rate": 25.0, "num_inference_steps": 6, "output_type": "latent",
        "spatio_temporal_guidance_blocks": None, "return_dict": False,
    }  # fmt: skip
    return quiet(pipe), call


# What stays of a video that is given, as tokens of its own or in place of the first ones: kept, or shown beside.
GIVEN: dict[str, Any] = {
    "LTX2ImageToVideoPipeline": lambda: {"image": pil(32), "image_crf": 0},
    "LTX2ConditionPipeline": lambda: {"conditions": [ltx2_given("Video", pil(32), crf=0)]},
    "LTX2InContextPipeline": lambda: {"reference_conditions": [ltx2_given("Reference", [pil(32)] * 3)]},
    "LTX2HDRPipeline": lambda: {"reference_conditions": [ltx2_given("Reference", [pil(32)] * 3)]},
}


def ltx2_given(kind: str, frames: Any, **more: Any) -> Any:
    """A condition of a pipeline's."""
    from diffusers.pipelines.ltx2 import pipeline_ltx2_condition, pipeline_ltx2_ic_lora

    module = {"Video": pipeline_ltx2_condition, "Reference": pipeline_ltx2_ic_lora}[kind]
    return getattr(module, f"LTX2{kind}Condition")(frames=frames, **more)


def ltx2_form(name: str, given: bool = True) -> tuple[Any, dict[str, Any]]:
    """Another pipeline class on those parts, with a video that it is given, or without, where it needs none."""
    pipe, call = ltx2()
    cls = getattr(diffusers, name)
    taken, takes = (inspect.signature(method).parameters for method in (cls.__init__, cls.__call__))
    parts = {key: part for key, part in pipe.components.items() if key in taken}
    call = {key: value for key, value in call.items() if key in takes} | (GIVEN[name]() if given else {})
    return quiet(cls(**parts)), call
