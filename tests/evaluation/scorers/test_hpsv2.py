"""HPSv2.1 on a stand-in of what it asks of open_clip, and on open_clip itself where that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.clips import PROMPTS
from support.open_clips import Network, stand_in, tokenize
from zigzag.evaluation.scorers import hpsv2
from zigzag.evaluation.scorers.base import NotLoaded
from zigzag.evaluation.scorers.hpsv2 import HPSv2
from zigzag.evaluation.scorers.pixels import padded_pixels


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", stand_in())


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Path:
    """A checkpoint as the published one is: of training, the network's tensors under "state_dict"."""
    path = tmp_path_factory.mktemp("hps") / "HPS_tiny.pt"
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    return path


def test_it_is_the_cosine_without_clips_scale(open_clip: None, network: Network, weights: Path, images: Tensor) -> None:
    shown = padded_pixels(images, 16).double().flatten(1)
    image = shown @ network.visual.weight.double().T + network.visual.bias.double()
    text = network.transformer.weight.double()[tokenize(PROMPTS)].mean(1)
    want = torch.stack([i @ t / (i.norm() * t.norm()) for i, t in zip(image, text, strict=True)])
    score = HPSv2(weights=str(weights))
    torch.testing.assert_close(score(PROMPTS, images).double(), want.detach(), rtol=0, atol=1e-5)
    assert score.weights().startswith("HPS_tiny.pt ")
    assert not score(PROMPTS, images).requires_grad


@pytest.mark.parametrize("saved", [{"epoch": 1}, {"state_dict": {"visual.weight": torch.zeros(2)}}])
def test_a_file_of_other_weights_is_refused(open_clip: None, tmp_path: Path, saved: object) -> None:
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(NotLoaded, match=r"hpsv2: the weights .*w\.pt are not to be had.*hf download xswu/HPSv2"):
        HPSv2(weights=str(tmp_path / "w.pt"))


def test_a_missing_file_is_said(open_clip: None, tmp_path: Path) -> None:
    with pytest.raises(NotLoaded, match=r"there is no .*none\.pt.*name the file by hpsv2:weights=FILE"):
        HPSv2(weights=str(tmp_path / "none.pt"))


def test_the_published_weights_are_said_with_how_to_fetch_them(
    open_clip: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NotLoaded, match=r"xswu/HPSv2 HPS_v2\.1_compressed\.pt are not to be had.*`hf download xswu"):
        HPSv2()
    assert hpsv2.FILE == "HPS_v2.1_compressed.pt"


def test_open_clip_itself_answers_as_the_stand_in_does(
    tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its smallest architecture, at random: the arguments, the shape of the answer, unit vectors."""
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.create_model("ViT-S-32-alt", pretrained=None, output_dict=True).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "w.pt")
    score = HPSv2(weights=str(tmp_path / "w.pt"), architecture="ViT-S-32-alt")
    with torch.no_grad():
        said = model(padded_pixels(images, score.side), open_clip.get_tokenizer("ViT-S-32-alt")(PROMPTS))
    want = (said["image_features"] @ said["text_features"].T).diagonal()
    torch.testing.assert_close(score(PROMPTS, images), want, rtol=0, atol=1e-5)
    assert want.abs().max() <= 1 + 1e-5
