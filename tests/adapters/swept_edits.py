"""More tiny pipelines that begin from images, for the sweep: they edit, inpaint, upscale, or are shown a control."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import swept_others as others
import torch
from swept import Swept
from swept_images import sprint
from swept_more_nets import SIZED
from swept_nets import wan_vae
from swept_parts import NO_GAP, THREE, case, clip_text, image, mask, of_family, of_parts, pil, renormalised, told, wider
from tiny_dits import flow, z_image
from tiny_packed import flux
from tiny_paths import picture
from tiny_unets import Case, embeds, noise, shake, tiny_vae

BIG, BIG_MASK = image(64), mask(64)
TOKENS = "torch's multinomial"


def z_control(in_channels: int = 4) -> dict[str, Any]:
    """Whose embeddings the pipeline takes of its transformer."""
    net = diffusers.ZImageControlNetModel(
        control_layers_places=[0], control_refiner_layers_places=[0], control_in_dim=in_channels,
        add_control_noise_refiner="control_layers", dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
    )  # fmt: skip
    return {"controlnet": shake(net, 7)}


def z_omni() -> Case:
    one = z_image()
    config = {key: value for key, value in one.pipe.transformer.config.items() if not key.startswith("_")}
    one.pipe.transformer = shake(diffusers.ZImageTransformer2DModel(**config | {"siglip_feat_dim": 16}))
    c, u = embeds(1)
    one.call |= {"prompt_embeds": [list(c)], "negative_prompt_embeds": [list(u)]}
    return one


def glm() -> Case:
    net = diffusers.GlmImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        text_embed_dim=16, time_embed_dim=8, condition_dim=8, prior_vq_quantizer_codebook_size=16,
    )  # fmt: skip
    vae = tiny_vae(8)
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    tokens = torch.arange(16)[None]
    return case(net, vae, flow(), **SIZED, prior_token_ids=tokens)


SOURCES = {"prior_token_image_ids": [torch.arange(16).flip(0)], "source_image_grid_thw": [torch.tensor([[1, 4, 4]])]}


def joy(kind: str) -> Case:
    net = getattr(diffusers, f"JoyImageEdit{kind}Transformer3DModel")(
        in_channels=4, hidden_size=16, num_attention_heads=2, text_dim=16, num_layers=1, rope_dim_list=[2, 2, 4]
    )
    masks = dict.fromkeys(("prompt_embeds_mask", "negative_prompt_embeds_mask"), torch.ones(1, 5, dtype=torch.long))
    return case(net, wan_vae(), flow(), **SIZED | masks)


def joyful(name: str, kind: str, **call: Any) -> Swept:
    """Whose images are brought to a million pixels: to 64², here."""

    def encode(pipe: Any, prompt: Any, **given: Any) -> Any:
        """Of a list that ends in the prompt, if any, within its template."""
        return embeds(1)["red" not in str(prompt)], torch.ones(1, 5, dtype=torch.long)

    known: dict[str, Any] = {"guides": partial(renormalised, dim=2)}
    if kind:  # which takes embeddings, and asks for a prompt all the same
        known["cls"] = told(name, encode, method="encode_prompt_multiple_images")
        call |= {"prompt": "red", "prompt_embeds": None, "negative_prompt_embeds": None}
    one = of_family(name, partial(joy, kind), call, **known)
    for processor in (one.pipe.image_processor, getattr(one.pipe, "vae_image_processor", one.pipe.image_processor)):
        processor.get_default_height_width = lambda *given, **known: (64, 64)
    return one


def dreamlite(name: str, call: Any = None, **known: Any) -> Swept:
    def encode(pipe: Any, mode: str, prompts: list[str], **given: Any) -> Any:
        c, u = embeds(1)
        return torch.cat([c if prompt else u for prompt in prompts]), torch.ones(len(prompts), 5, dtype=torch.long)

    net = diffusers.DreamLiteUNetModel(
        sample_size=8, down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"), block_out_channels=(16, 32),
        cross_attention_dim=16, attention_head_dim=8, layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )  # fmt: skip
    parts = {"unet": shake(net), "vae": shake(vae), "scheduler": flow(use_dynamic_shifting=True)}
    parts |= {"text_encoder": clip_text(), "tokenizer": None, "processor": None}
    given = {"prompt": "red", "guidance_scale": 4.0, "height": 16, "width": 16} | (call or {})
    return Swept(told(name, encode)(**parts), given, **known)


def cloze(name: str) -> Swept:
    """In-context pairs in one picture, of which the last is made."""

    def encode(*args: Any, **given: Any) -> Any:
        return embeds(1)[0], noise(1, 16, seed=5), torch.zeros(5, 3)

    grid = [[pil(32), pil(32)], [pil(32), None]]
    call: dict[str, Any] = {"task_prompt": "red", "content_prompt": "blue", "image": grid, "prompt_embeds": None}
    call |= {"pooled_prompt_embeds": None}
    call |= {f"upsampling_{side}": 32 for side in ("height", "width")} if name == "VisualClozePipeline" else {}
    one = of_family(name, wider(flux, 288), call, {"resolution": 32}, cls=told(name, encode), refused=NO_GAP)
    for inner in ("generation_pipe", "upsampling_pipe"):
        if hasattr(one.pipe, inner):
            getattr(one.pipe, inner).encode_prompt = encode
            getattr(one.pipe, inner).set_progress_bar_config(disable=True)
    return one


def amused(name: str, **call: Any) -> Swept:
    net = diffusers.UVit2DModel(
        hidden_size=16, cond_embed_dim=16, micro_cond_encode_dim=4, micro_cond_embed_dim=20, encoder_hidden_size=16,
        vocab_size=32, codebook_size=16, in_channels=16, block_out_channels=16, num_res_blocks=1, block_num_heads=2,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, sample_size=8,
    )  # fmt: skip
    vq = diffusers.VQModel(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=8, num_vq_embeddings=16, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        lookup_from_codebook=True,
    )  # fmt: skip
    parts = {"transformer": shake(net), "vqvae": shake(vq), "scheduler": diffusers.AmusedScheduler(mask_token_id=31)}
    parts |= {"text_encoder": None, "tokenizer": None}
    (c, u), (pc, pu) = embeds(1), (noise(1, 16, seed=5), noise(1, 16, seed=6))
    given = {"prompt_embeds": pc, "encoder_hidden_states": c, "negative_prompt_embeds": pu, "guidance_scale": 4.0}
    given |= {"negative_encoder_hidden_states": u, "output_type": "pt"}
    return of_parts(name, given | call, parts, refused=TOKENS)


def emb2emb() -> Swept:
    call = {"prompt": "red", "image": noise(1, 16, seed=9), "strength": 1.0, "guidance_scale": 4.0, "output_type": "pt"}
    return of_parts("KandinskyV22PriorEmb2EmbPipeline", call, others.prior_parts(), refused=others.CLAMPS)


FROM = {"image": picture(1, 3, 8, 8), "original_image": picture(1, 3, 16, 16), "strength": 1.0}
ROWS: list[tuple[str, Any, Any, Any, dict[str, Any]]] = [
    ("ZImageControlNetPipeline", z_image, {"control_image": BIG}, z_control, {}),
    (
        "ZImageControlNetInpaintPipeline",
        z_image,
        {"control_image": BIG, "image": BIG, "mask_image": BIG_MASK},
        partial(z_control, 9),
        {},
    ),
    ("ZImageOmniPipeline", z_omni, {}, None, {}),
    ("GlmImagePipeline", glm, {}, None, {}),
    ("GlmImagePipeline, shown", glm, {"image": [pil(64)], **SOURCES}, None, {}),
    (
        "SanaSprintImg2ImgPipeline",
        sprint,
        {"image": image(32), "strength": 1.0},
        None,
        {"steps": 2, "refused": NO_GAP},
    ),
]
CLASSES: dict[str, Callable[[], Swept]] = {
    name: partial(of_family, name.split(",")[0], family, call, parts, **known)
    for name, family, call, parts, known in ROWS
}
CLASSES |= {
    "JoyImageEditPipeline": partial(joyful, "JoyImageEditPipeline", "", image=pil(64)),
    "JoyImageEditPlusPipeline": partial(joyful, "JoyImageEditPlusPipeline", "Plus", images=[pil(64)]),
    "DreamLitePipeline": partial(dreamlite, "DreamLitePipeline"),
    "DreamLitePipeline, shown": partial(dreamlite, "DreamLitePipeline", {"image": pil(16)}, refused=THREE),
    "DreamLiteMobilePipeline": partial(dreamlite, "DreamLiteMobilePipeline", refused=NO_GAP),
    "VisualClozeGenerationPipeline": partial(cloze, "VisualClozeGenerationPipeline"),
    "VisualClozePipeline": partial(cloze, "VisualClozePipeline"),
    "KandinskyV22ControlnetImg2ImgPipeline": partial(
        others.kandinsky,
        "KandinskyV22ControlnetImg2ImgPipeline",
        "hint",
        hint=picture(1, 3, 64, 64),
        output_type="pt",
        **others.FROM,
    ),
    "KandinskyV22PriorEmb2EmbPipeline": emb2emb,
    "IFImg2ImgSuperResolutionPipeline": partial(others.deepfloyd, "IFImg2ImgSuperResolutionPipeline", **FROM),
    "IFInpaintingSuperResolutionPipeline": partial(
        others.deepfloyd, "IFInpaintingSuperResolutionPipeline", **FROM, mask_image=mask(16)
    ),
    "AmusedPipeline": partial(amused, "AmusedPipeline", height=16, width=16),
    "AmusedImg2ImgPipeline": partial(amused, "AmusedImg2ImgPipeline", image=image(16), strength=1.0),
    "AmusedInpaintPipeline": partial(
        amused, "AmusedInpaintPipeline", image=image(16), mask_image=mask(16), strength=1.0
    ),
}
