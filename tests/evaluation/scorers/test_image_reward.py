"""ImageReward with tiny random weights under the released names, against the network written out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.blips import SIDE, WORDS, released, reward, vocabulary_in
from support.clips import by_pillow
from zigzag.evaluation.scorers.base import NotLoaded
from zigzag.evaluation.scorers.image_reward import ImageReward

pytest.importorskip("transformers")

PROMPTS = ["a red cat", "a dog left of a chair", " ".join(["books"] * 50)]  # the last one is too long


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return vocabulary_in(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("reward") / "ImageReward.pt"
    torch.save(released(), path)
    return str(path)


def numbers(prompt: str) -> list[int]:
    words = prompt.split()[: 35 - 2]
    return [WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]


def test_it_is_the_released_network(weights: str, vocabulary: str, images: Tensor) -> None:
    score = ImageReward(weights=weights, tokenizer=vocabulary)
    shown = by_pillow(images, SIDE)
    want = [reward(released(), pixels, numbers(prompt)) for pixels, prompt in zip(shown, PROMPTS, strict=True)]
    got = score(PROMPTS, images)
    torch.testing.assert_close(got.double(), torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-4)
    alone = [score([prompt], image[None]).item() for prompt, image in zip(PROMPTS, images, strict=True)]
    torch.testing.assert_close(got, torch.tensor(alone), rtol=0, atol=1e-4)
    assert (got - score(PROMPTS[::-1], images)).abs()[0] > 1e-3  # the prompt has a say
    assert (got - score(PROMPTS, images.flip(0))).abs()[0] > 1e-3  # and the image
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]
    assert score.weights() == f"ImageReward.pt {digest}"


@pytest.mark.parametrize("lost", ["blip.visual_encoder.blocks.1.attn.qkv.bias", "mlp.layers.7.weight"])
def test_a_file_without_all_tensors_is_refused(tmp_path: Path, vocabulary: str, lost: str) -> None:
    state = released()
    del state[lost]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(NotLoaded, match=r"imagereward: the weights .*part\.pt are not to be had.*Missing key"):
        ImageReward(weights=str(tmp_path / "part.pt"), tokenizer=vocabulary)


def test_missing_weights_are_said_with_how_to_fetch_them(
    tmp_path: Path, vocabulary: str, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotLoaded, match=r"there is no .*none\.pt.*name the file by imagereward:weights=FILE"):
        ImageReward(weights=str(tmp_path / "none.pt"), tokenizer=vocabulary)
    with pytest.raises(NotLoaded, match=r"the weights /nowhere .*imagereward:tokenizer=FOLDER"):
        ImageReward(weights=weights, tokenizer="/nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotLoaded, match=r"ImageReward ImageReward\.pt are not to be had.*`hf download"):
        ImageReward(tokenizer=vocabulary)
