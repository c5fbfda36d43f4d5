"""Nodes for `make comfyui` only: tiny random networks of ComfyUI's own classes, and what zigzag.sample makes of them.

The reference asks the network by itself: no guider, no hook, no mask of ComfyUI's, and states as the papers have them.
"""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.sample
import comfy.sampler_helpers
import comfy.samplers
import comfy.supported_models
import torch
from torch import Tensor

from zigzag import DDIM, FlowEuler, Solver, sample

KINDS = {"eps": "EPS", "v": "V_PREDICTION", "edm": "EDM", "flow": "FLOW"}
CONTEXT = 16


def seeded(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little"))


class TinyClip:
    """Text to a condition, by its hash."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> Any:
        return [[torch.randn(1, 7, CONTEXT, generator=seeded(text)), {}]]


class TinyVae:
    """An eighth of a picture's side, and back."""

    def encode(self, pixels: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small, small.mean(1, keepdim=True)], 1) - 0.5

    def decode(self, latent: Tensor) -> Tensor:
        return (latent[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2) + 0.5).clamp(0, 1).movedim(1, -1)


class TinyCheckpoint:
    """A U-Net of a few thousand weights, of one of four kinds, with what counts its rows."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL", "CLIP", "VAE"), "load", "zigzag/check"

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        return {"required": {"kind": ([*KINDS],)}}

    def load(self, kind: str) -> Any:
        config = comfy.supported_models.SD15(
            {
                "image_size": 8, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
                "channel_mult": (1, 2), "transformer_depth": [1, 1], "transformer_depth_output": [1, 1, 1, 1],
                "transformer_depth_middle": 1, "context_dim": CONTEXT, "use_spatial_transformer": True,
                "legacy": False, "use_linear_in_transformer": False, "adm_in_channels": None, "dtype": torch.float32,
            }
        )  # fmt: skip
        network = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[KINDS[kind]], device="cpu")
        draw = seeded(kind)
        with torch.no_grad():
            for weight in network.diffusion_model.parameters():
                fan = max(1, weight[0].numel()) if weight.ndim > 1 else 100
                weight.copy_(torch.randn(weight.shape, generator=draw) / fan**0.5 + (weight.ndim == 1))
        network.rows_run, network.batch = 0, 1
        network.diffusion_model.register_forward_hook(lambda unet, args, output: count(network, args[0]))
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(network.eval(), cpu, cpu), TinyClip(), TinyVae()


def count(network: Any, x: Tensor) -> None:
    network.rows_run += len(x)


class TinyReference:
    """How far a result is from what `zigzag.sample` makes of the network, and its rows beside those that ran."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "check", "zigzag/check", True

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        kinds = ("MODEL", "CONDITIONING", "CONDITIONING", "SAMPLER", "SIGMAS", "LATENT", "LATENT")
        names = ("model", "positive", "negative", "sampler", "sigmas", "latent_image", "result")
        numbers = {"seed": ("INT", {"default": 0}), "cfg": ("FLOAT", {"default": 4.0}), "compare": ("BOOLEAN", {})}
        return {"required": {name: (kind,) for name, kind in zip(names, kinds, strict=True)} | numbers}

    def check(
        self, model: Any, positive: Any, negative: Any, sampler: Any, sigmas: Tensor, latent_image: Any, result: Any,
        seed: int, cfg: float, compare: bool,
    ) -> Any:  # fmt: skip
        network, own, got = model.model, sampler.sampler_function, result["samples"]
        found = {
            "rows": own.trace.rows,
            "ran": network.rows_run / len(got),
            "difference": 0.0,
            "method": str(own.method),
        }
        network.rows_run = 0
        if compare:
            with torch.no_grad():
                want = reference(model, positive, negative, own, sigmas, latent_image, seed, cfg)
            found["difference"] = float((got - want).abs().max() / want.abs().max())
        return {"ui": {"check": [json.dumps(found)]}}


def reference(
    patcher: Any, positive: Any, negative: Any, own: Any, sigmas: Tensor, latent: Any, seed: int, cfg: float
) -> Tensor:
    network, sampling, levels = patcher.model, patcher.get_model_object("model_sampling"), sigmas.double()
    image = latent["samples"]
    noise = comfy.sample.prepare_noise(image, seed)
    known = network.process_latent_in(image) if image.count_nonzero() else image
    most = comfy.samplers.KSAMPLER(None).max_denoise(SimpleNamespace(inner_model=network), sigmas)
    x = sampling.noise_scaling(sigmas[0], noise.clone(), known, most)
    mask = latent.get("noise_mask")
    mask = None if mask is None else comfy.sampler_helpers.prepare_mask(mask, noise.shape, "cpu")

    def denoised(x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        if mask is not None:
            x = x * mask + sampling.noise_scaling(sigma.reshape(-1, 1, 1, 1), noise, known) * (1 - mask)
        told = sampling.timestep(sigma).float()
        output = network.diffusion_model.forward(
            sampling.calculate_input(sigma, x), told, context=context.expand(len(x), -1, -1)
        )
        D: Tensor = sampling.calculate_denoised(sigma, output, x)
        return D if mask is None else D * mask + known * (1 - mask)

    flow = network.model_type == comfy.model_base.ModelType.FLOW
    size = torch.ones_like(levels) if flow else (levels**2 + sampling.sigma_data**2).sqrt()
    solver: Solver = FlowEuler(levels) if flow else DDIM(1 / size, levels / size, levels[:-1], eta=own.eta)
    solver = solver if own.solver is None else own.solver(solver)

    def eps_fn(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        x = x if flow else x * (t[0] ** 2 + sampling.sigma_data**2).sqrt()
        return (x - denoised(x, t, context)) / t.reshape(-1, 1, 1, 1)

    x = sample(
        eps_fn, x / float(size[0]), solver, own.method, cond=positive[0][0], uncond=negative[0][0], strong=cfg,
        weak=own.weak, batched=False, generator=torch.Generator().manual_seed(seed + 1),
    )  # fmt: skip
    x = sampling.inverse_noise_scaling(sigmas[-1], x * float(size[-1]))
    latent_out: Tensor = network.process_latent_out(x.float())
    return latent_out


class TinyEqual:
    """The greatest difference of two latents."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "check", "zigzag/check", True

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        return {"required": {"one": ("LATENT",), "other": ("LATENT",)}}

    def check(self, one: Any, other: Any) -> Any:
        difference = float((one["samples"] - other["samples"]).abs().max())
        return {"ui": {"check": [json.dumps({"difference": difference})]}}


NODE_CLASS_MAPPINGS = {"TinyCheckpoint": TinyCheckpoint, "TinyReference": TinyReference, "TinyEqual": TinyEqual}
