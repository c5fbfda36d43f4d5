"""Images as a pipeline's denoising loop has them: encoded, scaled, shifted and packed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from zigzag.adapters.diffusers.conventions import convention_of
from zigzag.adapters.diffusers.stepping import name_of

__all__ = ["encode_image"]

# As pipelines name how many pixels a latent is wide, and how many frames it is long.
SPATIAL = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")


@torch.no_grad()
def encode_image(pipe: Any, image: Any) -> Tensor:
    r"""The latents `z₀` of an image, which a pipeline takes as `latents` and its loop ends at.

    .. math:: z_0 = s\,\frac{\mathrm{mode}(q(z \mid \mathrm{image})) - m}{d}

    with `scaling_factor`, `shift_factor`, `latents_mean` and `latents_std` of its VAE (or the statistics of its batch
    norm) as `s`, `m` and `d`, and laid out as its loop has them: packed for Flux, Qwen-Image and LTX, frames first for
    CogVideoX. It is the inverse of what the pipeline does before it decodes.

    Args:
        pipe: a pipeline with a `vae`.
        image: a PIL image, or a list of them, all of one size; or a tensor of `(3, H, W)`, `(B, 3, H, W)` or, for
            video, `(B, 3, F, H, W)`, in [0, 1] or uint8.

    Returns:
        on the pipeline's device, in the dtype that its VAE computes in.

    Raises:
        TypeError: for a pipeline without a VAE, or what is no image.
        ValueError: for a tensor of another shape or range; for a size that the VAE, or the model, cannot take, with the
            one to use; and for a VAE or a packing that does not say how it is to be read.
    """
    vae = getattr(pipe, "vae", None)
    if vae is None or not hasattr(vae, "encode"):
        raise TypeError(f"pipe must have a vae that encodes, got {name_of(pipe)}")
    pixels = _pixels(image)
    _check_size(pipe, pixels)
    return _laid_out(pipe, _encoded(pipe, vae, pixels))


def _pixels(image: Any) -> Tensor:
    """`(B, 3, H, W)` or `(B, 3, F, H, W)` in [-1, 1]."""
    if not isinstance(image, Tensor):
        images = list(image) if isinstance(image, Sequence) else [image]
        if not images or not all(hasattr(one, "convert") and hasattr(one, "size") for one in images):
            raise TypeError(f"image must be a PIL image, a list of them, or a tensor, got {type(image).__name__}")
        if len({one.size for one in images}) > 1:
            sizes = ", ".join(f"{one.width}x{one.height}" for one in images)
            raise ValueError(f"image: all must be of one size, got {sizes}")
        return torch.stack([_of_pil(one) for one in images]) * 2 - 1
    x = image / 255 if image.dtype == torch.uint8 else image.float()
    x = x[None] if x.ndim == 3 else x
    if x.ndim not in (4, 5) or x.shape[1] != 3 or 0 in x.shape:
        raise ValueError(
            f"image must be (3, H, W), (B, 3, H, W), or (B, 3, F, H, W) of a video, got {tuple(image.shape)}"
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"image must lie in [0, 1], got {low:.3g} to {high:.3g}; from [-1, 1] take (image + 1) / 2")
    return x * 2 - 1


def _of_pil(image: Any) -> Tensor:
    rgb, (width, height) = image.convert("RGB"), image.size
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(height, width, 3).movedim(2, 0) / 255


def _check_size(pipe: Any, pixels: Tensor) -> None:
    sizes, each = pixels.shape[-2:], _multiple(pipe)
    if any(size % each for size in sizes):
        fit = "x".join(str(max(each, round(size / each) * each)) for size in reversed(sizes))
        raise ValueError(
            f"image: width and height must be multiples of {each} for {name_of(pipe)}, got "
            f"{sizes[1]}x{sizes[0]}; resize or crop it to {fit}"
        )
    frames, each = pixels.shape[2] if pixels.ndim == 5 else 1, _attribute(pipe, TEMPORAL, 1)
    if (frames - 1) % each:
        below = (frames - 1) // each * each + 1
        raise ValueError(f"image: a video must have k·{each} + 1 frames, got {frames}; take {below} or {below + each}")


def _multiple(pipe: Any) -> int:
    """How many pixels wide what the model sees as one is."""
    factor = _attribute(pipe, SPATIAL, 8)
    if hasattr(pipe, "_patchify_latents") or "num_channels_latents" in _packing(pipe):
        return 2 * factor
    patch = getattr(getattr(pipe, "transformer", None), "config", {}).get("patch_size") or 1
    return factor * int(patch[-1] if isinstance(patch, Sequence) else patch)


def _encoded(pipe: Any, vae: Any, pixels: Tensor) -> Tensor:
    """Normalised as the loop's: `(B, C, h, w)`, or with frames `(B, C, F, h, w)`."""
    frames, of_video = pixels.ndim == 5, _is_3d(vae)
    if of_video and not frames:
        pixels = pixels.unsqueeze(2)
    batch = len(pixels)
    if frames and not of_video:
        pixels = pixels.transpose(1, 2).flatten(0, 1)
    with _precise(vae):
        out = vae.encode(pixels.to(pipe._execution_device, vae.dtype))
    z: Tensor = out.latent_dist.mode() if hasattr(out, "latent_dist") else out[0]
    if frames and not of_video:
        z = z.reshape(batch, -1, *z.shape[1:]).transpose(1, 2)
    return _normalised(vae, z)


def _normalised(vae: Any, z: Tensor) -> Tensor:
    config = vae.config
    known = {name: config.get(name) for name in ("scaling_factor", "shift_factor")}
    kept = {**dict(vae.named_buffers()), **config}
    known |= {name: kept.get(name) for name in ("latents_mean", "latents_std")}
    if all(value is None for value in known.values()) and not hasattr(vae, "bn"):
        raise ValueError(
            f"pipe: its {name_of(vae)} says nothing of how latents are scaled (no scaling_factor, latents_mean)"
        )
    if known["latents_mean"] is not None:
        z = (z - _per_channel(known["latents_mean"], z)) / _per_channel(known["latents_std"], z)
    if known["shift_factor"] is not None:
        z = z - known["shift_factor"]
    return z if known["scaling_factor"] is None else z * known["scaling_factor"]


def _per_channel(values: Any, z: Tensor) -> Tensor:
    return torch.as_tensor(values).to(z).reshape(1, -1, *[1] * (z.ndim - 2))


def _laid_out(pipe: Any, z: Tensor) -> Tensor:
    if hasattr(pipe, "_patchify_latents"):  # which the pipeline packs itself
        bn = pipe.vae.bn
        z = pipe._patchify_latents(z)
        std = (bn.running_var + pipe.vae.config.batch_norm_eps).sqrt()
        return (z - _per_channel(bn.running_mean, z)) / _per_channel(std, z)
    asked, packed = _packing(pipe), z
    if asked == {"batch_size", "num_channels_latents", "height", "width"}:
        z = z.squeeze(2) if z.ndim == 5 else z
        packed = pipe._pack_latents(z, *z.shape)
    elif asked == {"patch_size", "patch_size_t"}:
        packed = pipe._pack_latents(z, pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size)
    elif asked:
        by = ", ".join(sorted(asked))
        raise ValueError(f"pipe: {name_of(pipe)} packs its latents by {by}, which is not known here")
    elif (convention := convention_of(getattr(pipe, "transformer", None))) and convention.channels == 2:
        packed = z.transpose(1, 2)
    return packed


def _packing(pipe: Any) -> set[str]:
    """What `_pack_latents` asks for besides the latents; nothing, where the pipeline has none."""
    pack = getattr(pipe, "_pack_latents", None)
    return set() if pack is None else set(inspect.signature(pack).parameters) - {"latents"}


def _attribute(pipe: Any, names: Sequence[str], default: int) -> int:
    return int(next((getattr(pipe, name) for name in names if hasattr(pipe, name)), default))


def _is_3d(vae: Any) -> bool:
    return any(weight.ndim == 5 for weight in vae.encoder.parameters())


@contextmanager
def _precise(vae: Any) -> Iterator[None]:
    """A VAE that overflows in half precision (SDXL's) computes in float32 within the block."""
    dtype = vae.dtype
    upcast = dtype == torch.float16 and vae.config.get("force_upcast")
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(dtype)
