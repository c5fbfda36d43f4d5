"""Tiny networks for the scores, in folders, and images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.clips import LENGTH, PROMPTS, SIDE, THINGS, by_pillow, clip_in, mask2former_in


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    clip_in(folder)
    return str(folder)


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("mask2former")
    mask2former_in(folder, THINGS)
    return str(folder)


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Images as a file has them, wider than high, whose shorter side CLIP need not resize."""
    levels = torch.randint(0, 256, (len(PROMPTS), 3, SIDE, SIDE + 13), generator=torch.Generator().manual_seed(0))
    return levels / 255


@pytest.fixture(scope="session")
def said(clip_folder: str, images: Tensor) -> Any:
    """What transformers' own CLIP says of `PROMPTS` and `images`, in double precision, by its own processors."""
    import transformers

    model = transformers.CLIPModel.from_pretrained(clip_folder).double().eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(clip_folder)
    read = tokenizer(PROMPTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        return model(**read, pixel_values=by_pillow(images, SIDE))
