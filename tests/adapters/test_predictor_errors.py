"""What does not fit a model is refused before the model runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
unet_predictor, dit_predictor = adapters.unet_predictor, adapters.dit_predictor

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TIMES = torch.tensor([981, 401])


def unet(**config: Any) -> Any:
    tiny = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16}
    kinds = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    kinds |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    return diffusers.UNet2DConditionModel(**tiny, **kinds, attention_head_dim=2, **config)


def flux(**config: Any) -> Any:
    tiny = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 16}
    tiny |= {"num_attention_heads": 2, "attention_head_dim": 8, "axes_dims_rope": (2, 2, 4)}
    return diffusers.FluxTransformer2DModel(**tiny, pooled_projection_dim=12, **config)


def cached(model: Any) -> Any:
    model.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    return model


def clashing() -> Any:
    """Karras's σ below the table's least are all told as time 0."""
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, use_karras_sigmas=True, sigma_min=1e-3)
    scheduler.set_timesteps(30)
    return scheduler


X = torch.zeros(2, 4, 8, 8)
TEXT: dict[str, Any] = {"encoder_hidden_states": torch.zeros(2, 5, 16)}
ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "a transformer as U-Net": (
        lambda: unet_predictor(flux()),
        "FluxTransformer2DModel, which is a transformer; use dit",
    ),
    "no module": (lambda: unet_predictor(3), "the model must be a module of diffusers, got 3"),
    "no model": (lambda: unet_predictor(torch.nn.Linear(2, 2)), "got Linear, which is no U-Net"),
    "a U-Net as transformer": (lambda: dit_predictor(unet()), "UNet2DConditionModel is a U-Net; use unet_predictor"),
    "an unknown transformer": (lambda: dit_predictor(torch.nn.Linear(2, 2)), "Linear is not listed.*Convention"),
    "epsilon for a flow": (
        lambda: dit_predictor(flux(), scheduler=diffusers.DDIMScheduler()),
        "DDIMScheduler takes predictions of 'epsilon', but FluxTransformer2DModel predicts 'flow'",
    ),
    "a cache": (lambda: dit_predictor(cached(flux())), "has a cache enabled.*disable_cache"),
    "no grid": (lambda: unet_predictor(unet(), scheduler=diffusers.EulerDiscreteScheduler()), "has not been set"),
    "two scales": (lambda: unet_predictor(unet(), scheduler=clashing()), "at time step 0 by both .* raise sigma_min"),
    "common": (lambda: unet_predictor(unet(), common={"sample": X}), "common: UNet2DConditionModel takes no sample"),
    "cond": (lambda: unet_predictor(unet())(X, TIMES, X), "cond must be a mapping .* got Tensor"),
    "unknown": (lambda: unet_predictor(unet())(X, TIMES, {"text": X}), "cond: UNet2DConditionModel takes no text"),
    "missing": (lambda: unet_predictor(unet())(X, TIMES, None), "cond: UNet2DConditionModel needs encoder_hidden"),
    "guidance": (lambda: dit_predictor(flux(guidance_embeds=True))(X, TIMES, TEXT), "Flux.* needs guidance"),
    "sdxl": (
        lambda: unet_predictor(
            unet(addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=40)
        )(X, TIMES, TEXT),
        "needs added_cond_kwargs",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_refused_before_the_model_runs(case: str) -> None:
    call, message = ERRORS[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()
