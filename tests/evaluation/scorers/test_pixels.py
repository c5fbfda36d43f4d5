"""What image models are shown, against Pillow and the processors of transformers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from support.clips import by_pillow, files
from zigzag.evaluation.scorers.pixels import (
    CLIP_MEAN,
    CLIP_STD,
    clip_pixels,
    normalised,
    padded_pixels,
    resized,
    written,
)

SIZES = [(64, 64), (100, 77), (33, 90), (20, 20), (32, 57), (57, 32)]
SIDE = 32


def levels(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator) / 255


def read(file: object) -> Tensor:
    numpy = pytest.importorskip("numpy")
    return torch.from_numpy(numpy.array(file)).permute(2, 0, 1) / 255


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_images_are_resized_as_pillow_does(mode: str, height: int, width: int) -> None:
    resampling = getattr(pytest.importorskip("PIL.Image").Resampling, mode.upper())
    images = levels(height, width)
    # By itself Pillow 13 goes down first at some sizes.
    across = [file.resize((41, height), resampling) for file in files(images)]
    want = torch.stack([read(file.resize((41, 27), resampling)) for file in across])
    # Both are levels of a byte: one apart at most, and where a sum falls between two. Bilinear ones often do.
    off = (resized(images, 27, 41, mode) - want).mul(255).round().abs()
    assert off.max() <= 1
    assert off.mean() <= (0.01 if mode == "bicubic" else 0.15)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_clip_is_shown_what_its_processor_makes(height: int, width: int) -> None:
    pytest.importorskip("transformers")
    images = levels(height, width)
    off = (clip_pixels(images, SIDE) - by_pillow(images, SIDE)).abs() * 255 * torch.tensor(CLIP_STD)[:, None, None]
    assert off.shape == (2, 3, SIDE, SIDE)
    assert off.max() <= 1 + 1e-4
    assert off.mean() <= 0.01


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_hpsv2_is_shown_the_whole_image_on_black(height: int, width: int) -> None:
    """Pillow resizes images of floats in floats."""
    image = pytest.importorskip("PIL.Image")
    numpy = pytest.importorskip("numpy")
    images = levels(height, width)
    h, w = round(height * SIDE / max(height, width)), round(width * SIDE / max(height, width))
    want = torch.zeros(2, 3, SIDE, SIDE)
    top, left = (SIDE - h) // 2, (SIDE - w) // 2
    for b in range(2):
        for c in range(3):
            plane = image.fromarray(images[b, c].numpy()).resize((w, h), image.Resampling.BICUBIC)
            want[b, c, top : top + h, left : left + w] = torch.from_numpy(numpy.array(plane))
    torch.testing.assert_close(padded_pixels(images, SIDE), normalised(want, CLIP_MEAN, CLIP_STD), rtol=0, atol=1e-4)


def test_an_image_is_shown_as_it_is_once_it_is_in_a_file() -> None:
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    kept = torch.stack([read(file) for file in files(images)])
    torch.testing.assert_close(written(images), kept, rtol=0, atol=1e-7)
    for shown in (clip_pixels, padded_pixels):
        torch.testing.assert_close(shown(images, SIDE), shown(kept, SIDE), rtol=0, atol=1e-6)
        assert not torch.allclose(shown(images, SIDE), shown(images + 0.01, SIDE), atol=1e-3)


def test_a_channel_is_normalised_by_its_own_numbers() -> None:
    images = torch.rand(2, 3, 4, 5)
    for c in range(3):
        assert torch.equal(normalised(images, CLIP_MEAN, CLIP_STD)[:, c], (images[:, c] - CLIP_MEAN[c]) / CLIP_STD[c])


def test_the_numbers_of_clip_are_those_of_transformers() -> None:
    utils = pytest.importorskip("transformers.image_utils")
    assert list(CLIP_MEAN) == utils.OPENAI_CLIP_MEAN
    assert list(CLIP_STD) == utils.OPENAI_CLIP_STD
