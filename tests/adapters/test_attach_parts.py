"""`attach` and the adapter's own predictors and solvers say the same of every family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zigzag import Z2Sampling, ZSampling, sample

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")

Tiny = Callable[..., Any]
WANTED = 1e-5
MASK = torch.ones(1, 5)
SIDE = torch.arange(4.0)
FLUX_IDS = torch.cat([torch.zeros(16, 1), torch.cartesian_prod(SIDE, SIDE)], 1)
ZERO = torch.zeros(1)
KLEIN = {
    "img_ids": torch.cartesian_prod(ZERO, SIDE, SIDE, ZERO).long()[None],
    "txt_ids": torch.cartesian_prod(ZERO, ZERO, ZERO, torch.arange(5.0)).long()[None],
    "guidance": None,
}
SIZES = {"original_size": torch.tensor([[64.0, 64.0]]), "target_size": torch.tensor([[64.0, 64.0]])}


def rope() -> Any:
    diffusers = pytest.importorskip("diffusers")
    crop = diffusers.pipelines.hunyuandit.pipeline_hunyuandit.get_resize_crop_region_for_grid((4, 4), 32)
    return diffusers.models.embeddings.get_2d_rotary_pos_embed(8, crop, (4, 4), output_type="pt")


HUNYUAN = {
    "text_embedding_mask": MASK,
    "text_embedding_mask_t5": MASK,
    "image_meta_size": torch.tensor([[1024.0, 1024, 64, 64, 0, 0]]),
    "style": torch.zeros(1, dtype=torch.long),
    "image_rotary_emb": rope(),
}

# What a transformer's forward takes besides the two conditions, where it takes anything.
COMMON: dict[str, dict[str, Any]] = {
    "sd": {},
    "sdxl": {},
    "animatediff": {},
    "modelscope": {},
    "sd3": {},
    "wan": {},
    "cogvideox": {},
    "pixart": {"encoder_attention_mask": MASK, "added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
    "sana": {"encoder_attention_mask": MASK},
    "lumina2": {"encoder_attention_mask": MASK.bool()},
    "z_image": {},
    "flux": {"img_ids": FLUX_IDS, "txt_ids": torch.zeros(5, 3), "guidance": torch.full((1,), 3.5)},
    "flux2_klein": KLEIN,
    "hunyuan": HUNYUAN,
    "auraflow": {},
    "chroma": {
        "img_ids": FLUX_IDS,
        "txt_ids": torch.zeros(5, 3),
        "attention_mask": torch.ones(1, 5 + 16, dtype=torch.bool),
    },
    "cogview4": {"crop_coords": torch.zeros(1, 2), **SIZES},
    "ltx": {
        "encoder_attention_mask": MASK,
        "num_frames": 2,
        "height": 2,
        "width": 2,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    },
    "qwen": {"img_shapes": [[(1, 4, 4)]], "encoder_hidden_states_mask": None},
}

# What Flux2-Klein does with its latents before the loop and after it.
PACKING: dict[str, Any] = {
    "flux2_klein": (lambda x: x.flatten(2).transpose(1, 2), lambda x: x.transpose(1, 2).reshape(1, 16, 4, 4))
}


@pytest.mark.parametrize("method", [ZSampling(steps=3), Z2Sampling(warmup=2)], ids=["z", "z2"])
@pytest.mark.parametrize("family", COMMON)
def test_the_parts_reproduce_the_whole(family: str, method: Any, tiny: Tiny) -> None:
    case = tiny(family)
    with adapters.attach(case.pipe, method):
        x = case.run()
    make = adapters.unet_predictor if hasattr(case.pipe, "unet") else adapters.dit_predictor
    predict = make(case.model, scheduler=case.pipe.scheduler, common=COMMON[family])
    cond, uncond = (
        {"cap_feats": c["captions"]} if "captions" in c else {k: v for k, v in c.items() if k not in COMMON[family]}
        for c in (case.cond, case.uncond)
    )
    solver = adapters.solver_from_scheduler(case.pipe.scheduler)
    with torch.no_grad():
        pack, unpack = PACKING.get(family, (lambda x: x, lambda x: x))
        given = {"cond": cond, "uncond": uncond, "strong": case.strong, "batched": False}
        y = case.finish(unpack(sample(predict, pack(case.latents), solver, method, **given)))
    assert float((x - y).norm() / y.norm()) <= WANTED
