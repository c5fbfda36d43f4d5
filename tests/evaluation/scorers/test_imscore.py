"""Scores of imscore, on a stand-in of its classes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from support.clips import PROMPTS
from zigzag.evaluation.scorers.base import NotLoaded
from zigzag.evaluation.scorers.imscore import MODELS, Imscore, _version
from zigzag.evaluation.scorers.pixels import written


class Reward(nn.Module):
    """A score of imscore: images in [0, 1] first, then the prompts; it answers `(B, 1)`."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.slope = source, nn.Parameter(torch.tensor(2.0))

    @classmethod
    def from_pretrained(cls, source: str) -> Reward:
        return cls(source)

    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        assert isinstance(prompts, list)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        return (self.slope * pixels.mean((1, 2, 3)) + lengths)[:, None]


class Broken(Reward):
    def score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        raise AttributeError("BertTokenizer has no attribute additional_special_tokens_ids")


def install(monkeypatch: pytest.MonkeyPatch, package: str, **classes: type) -> None:
    monkeypatch.setitem(sys.modules, "imscore", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, f"imscore.{package}", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, f"imscore.{package}.model", SimpleNamespace(**classes))


def test_it_is_what_imscore_says_of_the_images_of_files(monkeypatch: pytest.MonkeyPatch, images: Tensor) -> None:
    install(monkeypatch, "imreward", ImageReward=Reward)
    score = Imscore(model="ImageReward")
    got = score(PROMPTS, images + 1e-4)
    want = [2 * written(images)[k].mean().item() + len(prompt) for k, prompt in enumerate(PROMPTS)]
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-5, atol=0)
    assert score.name == "imscore-imagereward"  # not the native one
    assert score.weights().startswith("RE-N-Y/ImageReward ")
    assert not got.requires_grad


@pytest.mark.parametrize("model", MODELS)
def test_another_model_is_another_column(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    install(monkeypatch, MODELS[model][0], **{model: Reward})
    score = Imscore(model=model, weights="mine")
    assert (score.name, score.model.source) == (f"imscore-{model.lower()}", "mine")


def test_one_that_does_not_run_here_is_said_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "imreward", ImageReward=Broken)
    with pytest.raises(NotLoaded, match=r"has no attribute .*imscore==0\.0\.11 'transformers>=4\.53,<5'") as caught:
        Imscore(model="ImageReward")
    assert f"(transformers here is {_version('transformers')}, imscore" in str(caught.value)


def test_without_imscore_the_pins_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imscore", None)
    with pytest.raises(
        ImportError, match=r"score imscore-mps needs imscore, which .* torchvision: .*imscore==0\.0\.11"
    ):
        Imscore(model="MPS")


@pytest.mark.parametrize("model", ["Best", ""])
def test_an_unknown_model_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match=rf"model must be one of ImageReward, .*, got '{model}'"):
        Imscore(model=model)
