"""Tiny pipelines of sound, for the sweep."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
from swept import Swept
from swept_parts import NO_GAP, Words, of_parts
from tiny_dits import flow
from tiny_unets import ddim, embeds, noise, shake

TEXTS: dict[str, Any] = dict(zip(("prompt_embeds", "negative_prompt_embeds"), embeds(1), strict=True))
POOLED: dict[str, Any] = {"prompt_embeds": noise(1, 16, seed=5), "negative_prompt_embeds": noise(1, 16, seed=6)}
MASKS = {"attention_mask": torch.ones(1, 5).long(), "negative_attention_mask": torch.ones(1, 5).long()}
LENGTH = {"audio_length_in_s": 0.004, "guidance_scale": 4.0}


def spectrograms(**config: Any) -> dict[str, Any]:
    """What makes sound of a mel spectrogram's latents, and a schedule."""
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2, in_channels=1,
        out_channels=1, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    vocoder = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(
            model_in_dim=8, upsample_initial_channel=8, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
            resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]], normalize_before=False,
        )
    )  # fmt: skip
    return {"vae": shake(vae), "vocoder": shake(vocoder, 3), "scheduler": ddim(**config)}


def audioldm(name: str) -> Swept:
    """Whose U-Net is told a sentence as a class, beside the time."""
    net = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=(8, 16), class_embed_type="simple_projection", class_embeddings_concat=True,
        projection_class_embeddings_input_dim=16, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    config = transformers.ClapTextConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=100
    )
    parts = spectrograms() | {"unet": shake(net), "tokenizer": None}
    parts["text_encoder"] = transformers.ClapTextModelWithProjection(config)  # of which the type is asked
    if name == "MusicLDMPipeline":
        parts["feature_extractor"] = None
    return of_parts(name, POOLED | LENGTH, parts)


def audioldm2() -> Swept:
    """Whose U-Net is shown two texts, of an encoder and of a language model."""
    net = diffusers.AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=((None, 16, 16), (None, 16, 16)), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    config = transformers.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=100)
    parts = dict.fromkeys(("text_encoder", "projection_model", "language_model", "tokenizer", "tokenizer_2"))
    parts |= {"feature_extractor": None, "text_encoder_2": transformers.T5EncoderModel(config)}
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=100, n_positions=8)
    parts["language_model"] = transformers.GPT2LMHeadModel(config)
    call = {
        "generated_prompt_embeds": noise(1, 3, 16, seed=7),
        "negative_generated_prompt_embeds": noise(1, 3, 16, seed=8),
    }
    return of_parts("AudioLDM2Pipeline", TEXTS | MASKS | LENGTH | call, spectrograms() | parts | {"unet": shake(net)})


def stable_audio(scheduler: Any, scale: float | None = 4.0) -> Swept:
    net = diffusers.StableAudioDiTModel(
        sample_size=16, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=4, cross_attention_dim=16, time_proj_dim=16,
        global_states_input_dim=32, cross_attention_input_dim=16,
    )  # fmt: skip
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    projection = StableAudioProjectionModel(text_encoder_dim=16, conditioning_dim=16, min_value=0, max_value=8)
    parts = {"transformer": shake(net), "vae": oobleck(), "projection_model": shake(projection, 3)}
    parts |= {"text_encoder": None, "tokenizer": None}
    call = {"guidance_scale": 4.0, "audio_end_in_s": 1.0}
    return of_parts(
        "StableAudioPipeline", TEXTS | MASKS | call, parts | {"scheduler": scheduler(**EXPONENTIAL)}, scale=scale
    )


EXPONENTIAL: dict[str, Any] = {"prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_schedule": "exponential"}


def oobleck() -> Any:
    sizes: dict[str, Any] = {"encoder_hidden_size": 4, "downsampling_ratios": [2, 4], "channel_multiples": [1, 2]}
    return shake(
        diffusers.AutoencoderOobleck(**sizes, decoder_channels=4, decoder_input_channels=4, sampling_rate=32), 4
    )


def stable_audio3(name: str, refused: str = "", **call: Any) -> Swept:
    vae = diffusers.AutoencoderSAME(
        patch_size=4, encoder_channels=8, encoder_c_mults=(1,), encoder_strides=(2,), encoder_transformer_depths=(1,),
        latent_dim=4, dim_heads=8, ff_mult=1, sampling_rate=32,
    )  # fmt: skip
    net = diffusers.StableAudio3DiTModel(
        io_channels=4, embed_dim=16, depth=1, num_heads=2, cond_token_dim=16, global_cond_dim=16, local_add_cond_dim=5,
        timestep_features_dim=8, ff_mult=1.0, num_memory_tokens=2,
    )  # fmt: skip
    embedder = StableAudio3DurationEmbedder(output_dim=16, fourier_dim=8)
    parts = {"vae": shake(vae, 4), "transformer": shake(net), "duration_embedder": shake(embedder, 3)}
    parts |= {"text_encoder": None, "tokenizer": None}
    guided = TEXTS if name == "StableAudio3Pipeline" else {"prompt_embeds": TEXTS["prompt_embeds"]}
    return of_parts(name, guided | {"duration": 4.0} | call, parts | {"scheduler": flow()}, refused=refused)


def longcat() -> Swept:
    net = diffusers.LongCatAudioDiTTransformer(dit_dim=16, dit_depth=1, dit_heads=2, dit_text_dim=16, latent_dim=4)
    vae = diffusers.LongCatAudioDiTVae(
        channels=4, c_mults=[1, 2], strides=[2, 4], latent_dim=4, encoder_latent_dim=8, downsampling_ratio=8,
        sample_rate=32,
    )  # fmt: skip
    config = transformers.UMT5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=100)
    texts = {"text_encoder": shake(transformers.UMT5EncoderModel(config), 3), "tokenizer": Words()}
    parts = {"transformer": shake(net), "vae": vae, **texts}
    return of_parts("LongCatAudioDiTPipeline", {"prompt": "red", "guidance_scale": 4.0, "audio_duration_s": 4.0}, parts)


def ace_step() -> Swept:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"head_dim": 8}
    net = diffusers.AceStepTransformer1DModel(
        num_hidden_layers=1, in_channels=12, audio_acoustic_hidden_dim=4, encoder_hidden_size=16, **sizes
    )
    encoder = AceStepConditionEncoder(
        text_hidden_dim=16, timbre_hidden_dim=4, num_lyric_encoder_hidden_layers=1, num_timbre_encoder_hidden_layers=1,
        **sizes,
    )  # fmt: skip
    config = transformers.Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, vocab_size=100,
    )  # fmt: skip
    parts = {"transformer": shake(net), "condition_encoder": shake(encoder, 3), "vae": oobleck(), "tokenizer": Words()}
    parts |= {"text_encoder": shake(transformers.Qwen3Model(config), 5)}
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0)
    call = {"prompt": "red", "lyrics": "blue", "audio_duration": 4.0, "guidance_scale": 4.0}
    return of_parts("AceStepPipeline", call, parts, refused="not a combination|a momentum over the calls")


def dance() -> Swept:
    net = diffusers.UNet1DModel(
        block_out_channels=(16, 32), sample_size=64, sample_rate=64, extra_in_channels=32,
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D"), up_block_types=("UpBlock1D", "UpBlock1DNoSkip"),
    )  # fmt: skip
    return of_parts(
        "DanceDiffusionPipeline", {}, {"unet": shake(net), "scheduler": diffusers.IPNDMScheduler()}, refused=NO_GAP
    )


WAVE = noise(1, 2, 128, seed=9)
CLASSES: dict[str, Callable[[], Swept]] = {
    "AudioLDMPipeline": partial(audioldm, "AudioLDMPipeline"),
    "MusicLDMPipeline": partial(audioldm, "MusicLDMPipeline"),
    "AudioLDM2Pipeline": audioldm2,
    # Its own scheduler draws and remembers, which the loop by hand does not (test_attach_schedulers.py has both).
    "StableAudioPipeline, cosine": partial(stable_audio, diffusers.CosineDPMSolverMultistepScheduler, None),
    "StableAudioPipeline": partial(stable_audio, partial(diffusers.EDMDPMSolverMultistepScheduler, solver_order=1)),
    "StableAudio3Pipeline": partial(stable_audio3, "StableAudio3Pipeline", guidance_scale=4.0),
    "StableAudio3AudioToAudioPipeline": partial(stable_audio3, "StableAudio3AudioToAudioPipeline", NO_GAP, audio=WAVE),
    "StableAudio3InpaintPipeline": partial(
        stable_audio3, "StableAudio3InpaintPipeline", NO_GAP, audio=WAVE, mask_start_seconds=1.0, mask_end_seconds=2.0
    ),
    "AceStepPipeline": ace_step,
    "LongCatAudioDiTPipeline": longcat,
    "DanceDiffusionPipeline": dance,
}
