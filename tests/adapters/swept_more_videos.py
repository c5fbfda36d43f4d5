"""More tiny pipelines of videos, for the sweep: those of an image or a video that is given, and of other families."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import swept_nets as nets
import transformers
from swept import Swept
from swept_parts import (
    NO_GAP,
    POOLED,
    Words,
    again,
    case,
    clip_vision,
    kandinsky5_texts,
    of_family,
    of_parts,
    pil,
    vision,
)
from swept_unets import seen
from swept_videos import COPIED, SAFE, guided, last_frames, unipc
from tiny_dits import flow
from tiny_unets import Case, shake
from torch import Tensor

SIZE, WAN = nets.SIZE, nets.WAN


def clip_seen() -> dict[str, Any]:
    return {"image_encoder": clip_vision(), "image_processor": vision()}


def changed(family: Callable[[], Case], **config: Any) -> Callable[[], Case]:
    """A family whose transformer is another."""

    def build() -> Case:
        one = family()
        one.pipe.components["transformer"] = again(one.pipe.components["transformer"], **config)
        return one

    return build


def animate() -> Case:
    """Two segments, each of which is a loop."""
    net = diffusers.WanAnimateTransformer3DModel(
        **WAN | {"in_channels": 12}, latent_channels=4, image_dim=16, rope_max_seq_len=32,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8}, motion_encoder_size=16, motion_style_dim=8,
        motion_dim=4, motion_encoder_dim=8, face_encoder_hidden_dim=8, face_encoder_num_heads=2,
        inject_face_latents_blocks=1,
    )  # fmt: skip
    shown = {"image": pil(16), "pose_video": [pil(16)] * 9, "face_video": [pil(16)] * 9}
    return case(net, nets.wan_vae(), flow(), segment_frame_length=5, output_type="np", **shown, **SIZE)


def framepack() -> Case:
    """Two sections, each of which is a loop."""
    net = diffusers.HunyuanVideoFramepackTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=2, guidance_embeds=True, text_embed_dim=16, pooled_projection_dim=16,
        rope_axes_dim=(2, 4, 4), has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True,
    )  # fmt: skip
    one = nets.hunyuan_video()
    one.pipe.components["transformer"] = shake(net)
    one.call |= {"image": pil(32), "height": 32, "width": 32, "num_frames": 9, "latent_window_size": 2}
    return one


def kandinsky5(visual_cond: bool) -> Case:
    net = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16, out_visual_dim=4, model_dim=16, ff_dim=16,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 4, 8), visual_cond=visual_cond,
    )  # fmt: skip
    return case(net, nets.hunyuan_video().pipe.vae, flow(), num_frames=5, **kandinsky5_texts(), **SIZE)


def later_by_time(part: Tensor, m: Tensor) -> Tensor:
    """Frames that come before the channels, of which the first is an image that is kept."""
    return part[:, -m.shape[1] :]


def kandinsky6() -> Case:
    net = diffusers.Kandinsky6Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=16, time_dim=16, model_dim=16, ff_dim=16,
        num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 4, 8), visual_cond=True, in_audio_dim=4, out_audio_dim=4,
        visual_token_type_num_embeddings=2, model_dim_a=16, time_dim_a=16, ff_dim_a=16, axes_dims_a=(16,),
    )  # fmt: skip
    return case(net, nets.hunyuan_video().pipe.vae, flow(), num_frames=5, sample_audio=False, **POOLED, **SIZE)


def heard() -> dict[str, Any]:
    vae = diffusers.MMAudioVAE(
        mel_bins=8, latent_channels=4, hidden_channels=8, channel_multipliers=(1, 2), layers_per_block=1
    )
    vocoder = diffusers.MMAudioVocoder(
        num_mels=8, upsample_initial_channel=8, upsample_rates=(2, 2), upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3, 5),),
    )  # fmt: skip
    return {"audio_vae": vae, "vocoder": vocoder}


def super_resolution(scheduler: Any, refused: str, n_grid: int = 1) -> Swept:
    net = diffusers.Kandinsky6SRTransformer3DModel(
        in_visual_dim=4, out_visual_dim=4 * n_grid, time_dim=16, model_dim=16, ff_dim=16, num_visual_blocks=1,
        axes_dims=(4, 4, 8), tile_sizes=((128, 128),),
    )  # fmt: skip
    widths: dict[str, Any] = {f"{side}_block_out_channels": (8,) * 5 for side in ("encoder", "decoder")}
    vae = diffusers.Kandinsky6SRVAE(latent_channels=4, layers_per_block=1, **widths)
    call = {"video": [pil(64)], "resolution_scale": 2, "output_type": "np"}
    parts = {"transformer": shake(net), "vae": vae, "scheduler": scheduler}
    return of_parts("Kandinsky6SRPipeline", call, parts, refused=refused)


class Chat(Words):
    """A tokenizer with a template, and tokens of its own."""

    eos_token_id = 2

    def convert_tokens_to_ids(self, token: str) -> int:
        return 1

    def apply_chat_template(self, conversations: Any, **kwargs: Any) -> Any:
        ids = self(conversations[-1]["content"]).input_ids[0].tolist()
        return transformers.BatchEncoding({"input_ids": ids})


def omni() -> Swept:
    """Whose state has no batch."""
    net = diffusers.Cosmos3OmniTransformer(
        head_dim=6, hidden_size=12, intermediate_size=12, latent_channel=4, latent_patch_size=1, num_attention_heads=2,
        num_hidden_layers=1, num_key_value_heads=2, patch_latent_dim=4, rope_axes_dim=[1, 1, 1], vocab_size=100,
    )  # fmt: skip
    parts = {"transformer": shake(net), "text_tokenizer": Chat(), "vae": nets.wan_vae(), "scheduler": flow()}
    call = {"prompt": "red", "negative_prompt": "blue", "guidance_scale": 4.0, "num_frames": 5, **SIZE}
    call |= dict.fromkeys(("use_system_prompt", "add_resolution_template", "add_duration_template"), False)
    return of_parts("Cosmos3OmniPipeline", call, parts | {"enable_safety_checker": False})


hunyuan, kandinsky5_i2v = partial(nets.hunyuan_video, 4), partial(kandinsky5, True)
replaced = changed(hunyuan, image_condition_type="token_replace", guidance_embeds=False)
beside = changed(hunyuan, image_condition_type="latent_concat", guidance_embeds=False, in_channels=9)
skyreels_seen = changed(partial(nets.skyreels, flow), in_channels=12, image_dim=16)
forcing, cosmos = partial(nets.skyreels, unipc), partial(nets.cosmos, 5, nets.wan_vae, flow)
hunyuan15_seen = changed(nets.hunyuan15, image_embed_dim=16, task_type="i2v")

IMAGE = {"image": pil(16)}
UNTOLD: dict[str, Any] = {"prompt": None}
LONG = {"video": [pil(16)] * 5, "overlap_history": 5, "base_num_frames": 9, "num_frames": 13}
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("WanAnimatePipeline", animate, {}, clip_seen, {}),
    ("SkyReelsV2ImageToVideoPipeline", skyreels_seen, IMAGE, clip_seen, {}),
    ("SkyReelsV2DiffusionForcingImageToVideoPipeline", forcing, UNTOLD | IMAGE, None, {"refused": COPIED}),
    ("SkyReelsV2DiffusionForcingVideoToVideoPipeline", forcing, UNTOLD | LONG, None, {"refused": COPIED}),
    ("HunyuanVideoImageToVideoPipeline", beside, IMAGE, None, {}),
    ("HunyuanVideoImageToVideoPipeline, replaced", replaced, IMAGE, None, {"lays": last_frames}),
    ("HunyuanVideoFramepackPipeline", framepack, {}, seen, {}),
    ("HunyuanVideo15ImageToVideoPipeline", hunyuan15_seen, IMAGE, lambda: guided() | seen(), {}),
    ("Kandinsky5T2VPipeline", partial(kandinsky5, False), {}, None, {}),
    ("Kandinsky5I2VPipeline", kandinsky5_i2v, IMAGE | {"num_frames": 17}, None, {"lays": later_by_time}),
    ("Kandinsky6TI2VAPipeline", kandinsky6, {}, None, {}),
    ("Kandinsky6TI2VAPipeline, image", kandinsky6, IMAGE, None, {}),
    # Two states, as LTX-2's, whose tests are in test_attach_sound.py.
    ("Kandinsky6TI2VAPipeline, sound", kandinsky6, IMAGE | {"sample_audio": True}, heard, {"scale": None}),
    ("Cosmos2_5_PredictBasePipeline", cosmos, {}, SAFE, {"scale": 5.0}),  # it calls c + g·(c − u) a scale of g
    ("Cosmos2_5_PredictBasePipeline, video", cosmos, {"video": [pil(32)] * 5}, SAFE, {"scale": 5.0, "known": 2}),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name.split(",")[0], family, call, parts, **known)
    for name, family, call, parts, known in ROWS
}
CLASSES |= {
    "Kandinsky6SRPipeline": lambda: super_resolution(flow(), NO_GAP),
    # Whose prediction is wider than its state.
    "Kandinsky6SRPipeline, distilled": lambda: super_resolution(
        diffusers.PiflowScheduler(n_grid=2), "for a prediction of the state's own shape", n_grid=2
    ),
    "Cosmos3OmniPipeline": omni,
}
