"""Tiny pipelines of long videos, of edits and of refinements, for the sweep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import numpy as np
import swept_nets as nets
import transformers
from swept import Swept
from swept_more_videos import IMAGE, UNTOLD, changed, clip_seen
from swept_parts import NO_GAP, Words, again, case, clip_text, of_family, of_parts, pil
from swept_videos import guided, unipc
from tiny_dits import flow
from tiny_more import ltx
from tiny_paths import picture
from tiny_sound import ltx2
from tiny_unets import Case, ddim, embeds, noise, shake

SIZE, WAN = nets.SIZE, nets.WAN


def pyramid(scheduler: Any = diffusers.HeliosScheduler, side: int = 32, **config: Any) -> Case:
    """Two stages, each of which is a loop on a grid of its own."""
    one = nets.helios()
    config = {"stage_range": [0, 1 / 2, 1], "stages": 2, "use_dynamic_shifting": True, "gamma": 0.3} | config
    one.pipe.components["scheduler"] = scheduler(**config)
    one.call |= {"pyramid_num_inference_steps_list": [3, 3], "num_latent_frames_per_chunk": 2}
    one.call |= {"history_sizes": [4, 2, 1], "num_frames": 5, "height": side, "width": side}
    return one


def easyanimate_ddim() -> Case:
    one = nets.easyanimate()
    one.pipe.components["scheduler"] = ddim()
    return one


def motif() -> Case:
    net = diffusers.MotifVideoTransformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1, num_single_layers=1,
        patch_size=1, text_embed_dim=16, rope_axes_dim=(4, 4, 4),
    )  # fmt: skip
    return case(net, nets.wan_vae(), flow(), num_frames=5, **SIZE, **nets.MASKS)


def projected() -> dict[str, Any]:
    """A guider that remembers the gaps of earlier calls."""
    return {"guider": diffusers.AdaptiveProjectedGuidance(4.0, eta=0.5, adaptive_projected_guidance_momentum=0.1)}


def chrono() -> Case:
    net = diffusers.ChronoEditTransformer3DModel(
        **WAN | {"in_channels": 12}, image_dim=16, rope_max_seq_len=32, rope_temporal_skip_len=8
    )
    return case(net, nets.wan_vae(), flow(), num_frames=9, **SIZE)


def reasoning() -> Case:
    """It cuts its latents, and what its scheduler remembers, of which there is nothing in a step of first order."""
    one = chrono()
    one.pipe.components["scheduler"] = diffusers.UniPCMultistepScheduler.from_config(unipc().config, solver_order=1)
    one.call |= {"enable_temporal_reasoning": True, "num_temporal_reasoning_steps": 3, "num_inference_steps": 5}
    return one


def t5() -> Any:
    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=100)
    return shake(transformers.T5EncoderModel(config), 3)


def long_ltx() -> Swept:
    """Two windows, each of which is a loop."""
    one = ltx()
    parts = {name: one.pipe.components[name] for name in ("vae", "transformer")}
    parts |= {"text_encoder": t5(), "tokenizer": Words(), "scheduler": diffusers.LTXEulerAncestralRFScheduler()}
    call = {name: one.call[name] for name in ("height", "width", "guidance_scale")}
    call |= {"prompt": "red|blue", "negative_prompt": "green", "sigmas": [1.0, 0.7, 0.4, 0.0]}
    call |= {"num_frames": 25, "temporal_tile_size": 24, "temporal_overlap": 8}
    return of_parts("LTXI2VLongMultiPromptPipeline", call, parts)


def distilled(name: str, **more: Any) -> Swept:
    """LTX-2.5, with keyframes of its own."""
    from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

    pipe, call = ltx2()
    cls = getattr(diffusers, name)
    taken, takes = (inspect.signature(method).parameters for method in (cls.__init__, cls.__call__))
    parts = dict.fromkeys(("processor", "prompt_enhancer", "duration_head")) | pipe.components
    parts["transformer"] = again(parts["transformer"], use_keyframes_abs_pos_embedding=True)
    if "temporal_latent_upsampler" in taken:
        parts["scheduler"] = diffusers.LTXEulerAncestralRFScheduler(eta=0.5)
        parts["temporal_latent_upsampler"] = LTX2LatentUpsamplerModel(
            in_channels=4, mid_channels=32, num_blocks_per_stage=1, spatial_upsample=False, temporal_upsample=True,
            use_rational_resampler=False,
        )  # fmt: skip
    call = {key: value for key, value in call.items() if key in takes} | {"sigmas": [1.0, 0.6, 0.3]} | more
    return of_parts(name, call, {key: part for key, part in parts.items() if key in taken}, refused=NO_GAP)


def sana_wm() -> Swept:
    net = diffusers.SanaWMTransformer3DModel(
        in_channels=4, num_layers=1, hidden_size=32, num_attention_heads=2, linear_head_dim=16, caption_channels=16,
        chunk_plucker_channels=12, chunk_plucker_post_attn_blocks=1, image_size=32, mixed_precision="no",
    )  # fmt: skip
    c, u = embeds(1)
    moved = {"c2w": np.tile(np.eye(4, dtype=np.float32), (3, 1, 1)), "intrinsics": [32.0, 32.0, 16.0, 16.0]}
    call = {"image": pil(32), "prompt": "red", "prompt_embeds": c, "negative_prompt_embeds": u, "guidance_scale": 4.0}
    call |= {"height": 32, "width": 32, "num_frames": 3} | nets.MASKS | moved
    parts = {"tokenizer": None, "text_encoder": None, "vae": ltx2()[0].vae, "transformer": shake(net)}
    return of_parts("SanaWMPipeline", call, parts | {"scheduler": flow()}, refused="per_token_timesteps")


def refiner() -> Swept:
    """Two blocks, each of which is a loop; its model is called before and after them as well, without a step."""
    cls, (pipe, _) = diffusers.SanaWMLTX2RefinerTransformer3DModel, ltx2()
    sizes, taken = pipe.transformer.config, inspect.signature(cls.__init__).parameters
    parts = {"transformer": shake(cls(**{name: size for name, size in sizes.items() if name in taken}))}
    parts |= {"connectors": again(pipe.connectors, text_proj_in_factor=2), "scheduler": flow(shift=1.0), "vae": None}
    call = {"sana_latent": noise(1, 4, 3, 4, 4), "prompt": "red", "fps": 24.0, "block_size": 1}
    parts |= {"text_encoder": clip_text(), "tokenizer": Words(), "text_max_sequence_length": 5}
    return of_parts("SanaWMLTX2Refiner", call, parts, refused=NO_GAP)


inpainting = changed(nets.easyanimate, in_channels=12, resize_inpaint_mask_directly=False)
INTO = {"video": picture(1, 3, 5, 16, 16), "mask_video": (picture(1, 1, 5, 16, 16) > 0).float() * 255}
STAGES = partial(pyramid, scheduler_type="euler")
DISTILLED, DMD = partial(pyramid, diffusers.HeliosDMDScheduler), "dmd_sigmas, .* its own pipeline passes"
STAR = {"is_cfg_zero_star": True}
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("EasyAnimateInpaintPipeline", inpainting, INTO, None, {}),
    ("EasyAnimateInpaintPipeline, blended", easyanimate_ddim, INTO, None, {}),
    ("HeliosPyramidPipeline", STAGES, {}, None, {}),
    # With memory, and with guidance that begins late, at αu + w·(c − αu).
    ("HeliosPyramidPipeline, unipc", partial(pyramid, scheduler_type="unipc", side=64), {}, STAR, {"scale": None}),
    ("HeliosPyramidPipeline, distilled", DISTILLED, {"guidance_scale": 1.0}, {"is_distilled": True}, {"refused": DMD}),
    ("MotifVideoPipeline", motif, {}, guided, {}),
    ("MotifVideoPipeline, projected", motif, {}, projected, {"scale": None, "z_refused": "projects its guidance"}),
    ("MotifVideoImage2VideoPipeline", motif, UNTOLD | IMAGE, guided, {}),
    ("ChronoEditPipeline", chrono, IMAGE, clip_seen, {}),
    ("ChronoEditPipeline, reasoning", reasoning, IMAGE, clip_seen, {"steps": 5}),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name.split(",")[0], family, call, parts, **known)
    for name, family, call, parts, known in ROWS
}
FRAMES: dict[str, Any] = {"num_frames": 9, "latents": noise(1, 4, 5, 16, 16), "audio_latents": noise(1, 2, 4, 2)}
FRAMES |= {"keyframes_latents": noise(1, 4, 2, 16, 16), "keyframe_positions": [4, 8]}
CLASSES |= {
    "LTXI2VLongMultiPromptPipeline": long_ltx,
    "LTX2DFRPipeline": partial(distilled, "LTX2DFRPipeline"),
    "LTX2DFRTemporalRefinePipeline": partial(distilled, "LTX2DFRTemporalRefinePipeline", **FRAMES),
    "SanaWMPipeline": sana_wm,
    "SanaWMLTX2Refiner": refiner,
}

# What is in no sweep, and why.
UNBUILT: dict[str, str] = {
    "Cosmos2_5_TransferPipeline": "its ControlNet resizes a mask by torchvision",
    "EasyAnimateControlPipeline": "fails by itself: its encode_prompt takes no text_encoder_index",
    "LTXLatentUpsamplePipeline": "one call of an upsampler, without a scheduler",
    "LTX2LatentUpsamplePipeline": "one call of an upsampler, without a scheduler",
    "LTX2VideoDiffusionDecodePipeline": "its decoder loops within itself, and the scheduler is not stepped",
}
