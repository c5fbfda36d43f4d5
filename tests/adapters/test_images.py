"""`encode_image`: what a pipeline decodes of its latents is what its VAE has encoded, whatever lies between the two."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
encode_image = pytest.importorskip("zigzag.adapters.diffusers").encode_image

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]

SCALED = {"scaling_factor": 0.3}
SHIFTED = {"scaling_factor": 0.3, "shift_factor": 0.2}
STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.4], "latents_std": [0.5, 2.0, 1.5, 0.7]}

# What the VAEs of each family's checkpoints say, with other numbers.
FAMILIES: dict[str, dict[str, Any]] = {
    "sd": SCALED,
    "sdxl": SCALED | STATISTICS,
    "sd3": SHIFTED,
    "flux": SHIFTED,
    "lumina2": SHIFTED,
    "z_image": SHIFTED,
    "pixart": SCALED,
    "hunyuan": SCALED,
    "sana": SCALED,
    "qwen": STATISTICS,
    "wan": STATISTICS,
    "cogvideox": SCALED,
    "animatediff": SCALED,
    "flux2_klein": {},
    "ltx": {},
}


class Step(NamedTuple):
    """What a scheduler gives back, as a tuple and by its name."""

    prev_sample: Tensor


class Decoded(Exception):
    """Thrown by a VAE that was to decode: what it was given."""


def with_vae(case: Any, config: dict[str, Any]) -> Any:
    """The pipeline's VAE, a copy with these numbers, which throws what it is to decode."""
    vae = case.pipe.vae = copy.deepcopy(case.pipe.vae).eval()
    vae.register_to_config(**config)
    case.pipe.vae_scaling_factor_image = config.get("scaling_factor")  # CogVideoX's, which it has read before
    draw = torch.Generator().manual_seed(3)
    for name, buffer in vae.named_buffers():
        if name in ("latents_mean", "latents_std", "bn.running_mean", "bn.running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)

    def decode(z: Tensor, *args: Any, **kwargs: Any) -> None:
        raise Decoded(z)

    vae.decode = decode
    return vae


def decoded(case: Any, z0: Tensor) -> Tensor:
    """What the pipeline gives its VAE to decode when its loop has ended at `z0`."""

    step = case.pipe.scheduler.step
    case.pipe.scheduler.step = functools.wraps(step)(lambda *args, **kwargs: Step(z0.clone()))
    try:
        case.run(output_type="pt")
    except Decoded as thrown:
        z: Tensor = thrown.args[0]
        return z
    raise AssertionError("nothing was decoded")


def picture(case: Any, batch: int) -> Tensor:
    """As large as the pipeline's latents ask for, a video where its VAE is one."""
    pipe = case.pipe
    size = [case.call.get(side, 16) for side in ("height", "width")]
    frames = [case.call["num_frames"]] if "num_frames" in case.call else []
    return torch.rand(batch, 3, *frames, *size, generator=torch.Generator().manual_seed(1)).to(pipe.vae.dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pipeline_decodes_what_its_vae_has_encoded(family: str, tiny: Tiny) -> None:
    """Of the latents that `encode_image` gives, as the loop has them: also their shape is that of its own."""
    case = tiny(family, 2)
    vae, image = with_vae(case, FAMILIES[family]), picture(case, 2)
    z0 = encode_image(case.pipe, image)
    assert z0.shape == case.latents.shape
    if family == "flux2_klein":  # whose loop has them in tokens
        z0 = z0.flatten(2).transpose(1, 2)
    with torch.no_grad():
        pixels = image * 2 - 1
        if family == "animatediff":
            pixels = pixels.transpose(1, 2).flatten(0, 1)
        if family == "qwen":
            pixels = pixels.unsqueeze(2)
        out = vae.encode(pixels)
    z = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latent
    back = decoded(case, z0)
    if family == "animatediff":  # a few frames at once
        z = z[: len(back)]
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_pictures_and_tensors_are_one(family: str, tiny: Tiny) -> None:
    """A PIL image, a list of one, uint8 and [0, 1], with a batch and without."""
    image = pytest.importorskip("PIL.Image")
    case = tiny(family)
    with_vae(case, FAMILIES[family])
    width, height = 64, 48
    bytes_ = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    picture = image.frombytes("RGB", (width, height), bytes_.numpy().tobytes())
    whole = bytes_.movedim(2, 0)
    z0 = encode_image(case.pipe, whole[None] / 255)
    for other in (picture, [picture], whole, whole / 255, whole[None]):
        assert torch.equal(encode_image(case.pipe, other), z0)
    assert torch.equal(encode_image(case.pipe, [picture, picture])[1:], encode_image(case.pipe, [picture, picture])[:1])


REFUSED = [
    ("sd", torch.rand(1, 3, 17, 16), "multiples of 2 .* got 16x17; resize or crop it to 16x16"),
    ("flux", torch.rand(1, 3, 40, 64), "multiples of 16 .* got 64x40; resize or crop it to 64x32"),
    ("wan", torch.rand(1, 3, 5, 24, 32), "multiples of 16"),
    ("wan", torch.rand(1, 3, 4, 32, 32), r"k·4 \+ 1 frames, got 4; take 1 or 5"),
    ("sd", torch.rand(1, 3, 16, 16) * 2 - 1, r"must lie in \[0, 1\].*\(image \+ 1\) / 2"),
    ("sd", torch.rand(1, 16, 16, 3), r"must be \(3, H, W\)"),
    ("sd", torch.rand(16, 16), r"must be \(3, H, W\)"),
]


@pytest.mark.parametrize(("family", "image", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_the_vae_cannot_take_is_refused(family: str, image: Tensor, said: str, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match=said):
        encode_image(tiny(family).pipe, image)


def test_what_is_no_image_or_has_no_vae_is_refused(tiny: Tiny) -> None:
    image, case = pytest.importorskip("PIL.Image"), tiny("sd")
    with pytest.raises(TypeError, match="must be a PIL image"):
        encode_image(case.pipe, "cat.png")
    with pytest.raises(ValueError, match="one size, got 16x16, 18x16"):
        encode_image(case.pipe, [image.new("RGB", (16, 16)), image.new("RGB", (18, 16))])
    with_vae(case, {"scaling_factor": None})
    with pytest.raises(ValueError, match="AutoencoderKL says nothing of how latents are scaled"):
        encode_image(case.pipe, torch.rand(1, 3, 16, 16))
    case.pipe.vae = None
    with pytest.raises(TypeError, match="must have a vae"):
        encode_image(case.pipe, torch.rand(1, 3, 16, 16))


def test_a_vae_that_overflows_in_half_precision_is_upcast_for_it(tiny: Tiny) -> None:
    """As SDXL's says of itself; and it is as it was afterwards."""
    case, image = tiny("sdxl"), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    vae = with_vae(case, SCALED | {"force_upcast": True}).half()
    wide = encode_image(case.pipe, image)
    assert wide.dtype == torch.float32 and vae.dtype == torch.float16
    assert torch.equal(wide, (vae.float().encode(image * 2 - 1).latent_dist.mode() * 0.3).detach())
