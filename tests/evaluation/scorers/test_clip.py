"""A CLIP of transformers: its vectors, and what is said where it is not to be had."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.clips import PROMPTS, clip_in
from zigzag.evaluation.scorers.base import NotLoaded
from zigzag.evaluation.scorers.clip import load_clip


def test_its_vectors_are_those_of_transformers(clip_folder: str, images: Tensor, said: Any) -> None:
    clip = load_clip("mine", clip_folder, "cpu")
    torch.testing.assert_close(clip.texts(PROMPTS).double(), said.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.images(images).double(), said.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.cosines(PROMPTS, images), (clip.texts(PROMPTS) * clip.images(images)).sum(1))


def test_a_prompt_is_read_alike_whatever_is_beside_it(clip_folder: str) -> None:
    clip = load_clip("mine", clip_folder, "cpu")
    alone = torch.cat([clip.texts([prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(clip.texts(PROMPTS), alone, rtol=0, atol=1e-6)


def test_its_weights_are_named_by_their_hash(clip_folder: str, tmp_path: Path) -> None:
    one = load_clip("mine", clip_folder, "cpu").weights
    assert one.startswith(f"{clip_folder} ")
    assert one == load_clip("mine", clip_folder, "cpu").weights
    clip_in(tmp_path, seed=1)
    assert load_clip("mine", str(tmp_path), "cpu").weights.split()[1] != one.split()[1]


@pytest.mark.parametrize("name", ["/no/such/folder", "no/such/folder", "./folder"])
def test_what_is_neither_folder_nor_name_is_said_at_once(name: str, clip_folder: str) -> None:
    with pytest.raises(NotLoaded, match=rf"mine: the weights {name} are not .* no such folder.*by mine:weights=FOLDER"):
        load_clip("mine", name, "cpu")


def test_what_is_not_in_the_cache_is_said_with_how_to_fetch_it(
    clip_folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotLoaded, match=r"fetch them by `hf download owner/model`, or name a folder by mine:clip="):
        load_clip("mine", "owner/model", "cpu", option="clip")


def test_a_tokenizer_that_is_elsewhere_is_asked_for_by_its_own_option(clip_folder: str) -> None:
    with pytest.raises(NotLoaded, match=r"the weights /nowhere .* by mine:tokenizer=FOLDER"):
        load_clip("mine", clip_folder, "cpu", tokenizer="/nowhere")


def test_a_folder_without_all_tensors_is_refused(clip_folder: str, tmp_path: Path) -> None:
    """transformers itself would go on with what is at random, and a warning."""
    safetensors = pytest.importorskip("safetensors.torch")
    folder = tmp_path / "part"
    shutil.copytree(clip_folder, folder)
    state = safetensors.load_file(folder / "model.safetensors")
    del state["logit_scale"]
    safetensors.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotLoaded, match=r"1 of its tensors are not there, logit_scale first; name a folder by mine:"):
        load_clip("mine", str(folder), "cpu")


def test_a_damaged_file_is_refused(clip_folder: str, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(clip_folder, folder)
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(NotLoaded, match=r"mine: the weights .*damaged are not to be had"):
        load_clip("mine", str(folder), "cpu")
