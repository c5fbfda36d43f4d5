"""Real networks with random weights: the published ones, mid-size ones for a CPU, and small ones bound by launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import diffusers
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from torch import Tensor

from zigzag.adapters.diffusers import dit_predictor, unet_predictor
from zigzag.sampling import Predictor
from zigzag.solvers import DDIM, FlowEuler, Solver

__all__ = ["CONFIGS", "Network", "build", "parameters"]

Kind = Literal["unet", "hunyuan", "flux"]

_UNET: Final[dict[str, Any]] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
}
_HUNYUAN: Final[dict[str, Any]] = {"in_channels": 4, "patch_size": 2, "use_style_cond_and_image_meta_size": False}
TEXT: Final = 512  # tokens of a prompt, as Flux's pipeline has them

CONFIGS: Final[dict[str, tuple[Kind, dict[str, Any]]]] = {
    # stabilityai/stable-diffusion-xl-base-1.0, unet/config.json: 2 567 463 684 parameters.
    "sdxl": (
        "unet",
        _UNET
        | {
            "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
            "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    # Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers, transformer/config.json: 1.5 billion parameters.
    "hunyuan": (
        "hunyuan",
        _HUNYUAN
        | {
            "sample_size": 128, "num_layers": 40, "hidden_size": 1408, "num_attention_heads": 16,
            "attention_head_dim": 88, "mlp_ratio": 4.3637, "cross_attention_dim": 1024, "cross_attention_dim_t5": 2048,
            "pooled_projection_dim": 1024, "text_len": 77, "text_len_t5": 256,
        },
    ),
    "mid-unet": (
        "unet",
        _UNET
        | {
            "sample_size": 32, "block_out_channels": (64, 128, 256), "layers_per_block": 1, "cross_attention_dim": 256,
            "attention_head_dim": (2, 4, 8), "transformer_layers_per_block": (1, 1, 2),
        },
    ),
    "mid-hunyuan": (
        "hunyuan",
        _HUNYUAN
        | {
            "sample_size": 32, "num_layers": 8, "hidden_size": 384, "num_attention_heads": 6, "attention_head_dim": 64,
            "cross_attention_dim": 256, "cross_attention_dim_t5": 256, "pooled_projection_dim": 256, "text_len": 77,
            "text_len_t5": 77,
        },
    ),
    # black-forest-labs/FLUX.1-dev, transformer/config.json, without the embedded guidance: 12 billion parameters.
    "flux": (
        "flux",
        {
            "patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
            "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
            "guidance_embeds": False,
        },
    ),
    "small-flux": (
        "flux",
        {
            "patch_size": 1, "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
            "num_attention_heads": 2, "joint_attention_dim": 32, "pooled_projection_dim": 16,
            "axes_dims_rope": (4, 6, 6), "guidance_embeds": False,
        },
    ),
    # So small that the processor takes longer to launch a layer than the GPU to run it.
    "small-unet": (
        "unet",
        _UNET
        | {
            "sample_size": 32, "block_out_channels": (32, 64, 64), "layers_per_block": 1, "cross_attention_dim": 64,
            "attention_head_dim": (2, 4, 4), "transformer_layers_per_block": (1, 1, 1),
        },
    ),
    "small-hunyuan": (
        "hunyuan",
        _HUNYUAN
        | {
            "sample_size": 16, "num_layers": 4, "hidden_size": 64, "num_attention_heads": 2, "attention_head_dim": 32,
            "cross_attention_dim": 64, "cross_attention_dim_t5": 64, "pooled_projection_dim": 64, "text_len": 8,
            "text_len_t5": 8,
        },
    ),
}  # fmt: skip
"""By name: the kind of network and its configuration."""


@dataclass(frozen=True)
class Network:
    """A network, the latents it works on and the conditions it takes.

    Attributes:
        module: of diffusers, in evaluation mode.
        size: height and width of the latents.
    """

    name: str
    kind: Kind
    module: Any
    size: int

    def inputs(self, batch: int) -> tuple[Tensor, dict[str, Any], dict[str, Any]]:
        """Noise `(batch, 4, size, size)`, `cond` and `uncond` as a pipeline passes them: the same at every call.

        Flux's is packed, two by two: `(batch, size²/4, channels)`.
        """
        torch.manual_seed(1)
        shape = (
            (self.size**2 // 4, self.module.config.in_channels) if self.kind == "flux" else (4, self.size, self.size)
        )
        return self._random(batch, *shape), self._condition(batch), self._condition(batch)

    def solver(self, steps: int) -> Solver:
        """On the times that the network is told."""
        return FlowEuler.uniform(steps, time_scale=1000) if self.kind == "flux" else DDIM.stable_diffusion(steps)

    def predictor(self, module: Any = None) -> Predictor:
        """`eps_fn` over the module, or over another form of it (a compiled one)."""
        module = self.module if module is None else module
        if self.kind == "unet":
            return unet_predictor(module)
        return dit_predictor(module, common=self.common())

    def common(self) -> dict[str, Any]:
        """The arguments that hold no batch."""
        if self.kind == "unet":
            return {}
        if self.kind == "flux":
            tokens = torch.arange(self.size**2 // 4, device=self.module.device)
            where = torch.stack([tokens * 0, tokens // (self.size // 2), tokens % (self.size // 2)], 1)
            return {"img_ids": where.to(self.module.dtype), "txt_ids": self._random(TEXT, 3).zero_()}
        config, side = self.module.config, self.size // self.module.config.patch_size
        crop = ((0, 0), (side, side))
        rotary = get_2d_rotary_pos_embed(
            config.attention_head_dim, crop, (side, side), device=self.module.device, output_type="pt"
        )
        return {"image_rotary_emb": rotary}

    def _condition(self, batch: int) -> dict[str, Any]:
        config = self.module.config
        if self.kind == "unet":
            condition: dict[str, Any] = {"encoder_hidden_states": self._random(batch, 77, config.cross_attention_dim)}
            if config.addition_embed_type == "text_time":
                ids = self._random(batch, 6).zero_() + 8 * self.size
                pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
                condition["added_cond_kwargs"] = {"text_embeds": self._random(batch, pooled), "time_ids": ids}
            return condition
        if self.kind == "flux":
            return {
                "encoder_hidden_states": self._random(batch, TEXT, config.joint_attention_dim),
                "pooled_projections": self._random(batch, config.pooled_projection_dim),
            }
        return {
            "encoder_hidden_states": self._random(batch, config.text_len, config.cross_attention_dim),
            "text_embedding_mask": self._random(batch, config.text_len).zero_() + 1,
            "encoder_hidden_states_t5": self._random(batch, config.text_len_t5, config.cross_attention_dim_t5),
            "text_embedding_mask_t5": self._random(batch, config.text_len_t5).zero_() + 1,
        }

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.module.device, dtype=self.module.dtype)


def build(
    name: str, size: int | None = None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Network:
    """A network of `CONFIGS` with random weights, seeded, on latents of `size` (default: those it is made for)."""
    kind, config = CONFIGS[name]
    classes: dict[Kind, Any] = {
        "unet": diffusers.UNet2DConditionModel, "hunyuan": diffusers.HunyuanDiT2DModel,
        "flux": diffusers.FluxTransformer2DModel,
    }  # fmt: skip
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # twelve billion parameters are not to be made in float32 first
    try:
        with torch.device(device):
            module = classes[kind](**config)
    finally:
        torch.set_default_dtype(default)
    return Network(name, kind, module.to(dtype).eval().requires_grad_(False), size or config.get("sample_size", 128))


def parameters(name: str) -> int:
    """How many parameters a network has; it is built on the meta device, which takes no memory."""
    return sum(p.numel() for p in build(name, device="meta").module.parameters())
