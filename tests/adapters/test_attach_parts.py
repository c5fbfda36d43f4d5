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
    "qwen": {"img_shapes": [[(1, 4, 4)]], "encoder_hidden_states_mask": None},
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
        y = sample(predict, case.latents, solver, method, cond=cond, uncond=uncond, strong=case.strong, batched=False)
    assert float((x - y).norm() / y.norm()) <= WANTED
