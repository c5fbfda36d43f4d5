"""LAION's aesthetic predictor with random layers on a tiny random CLIP."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.clips import PROMPTS, WIDTH
from zigzag.evaluation.scorers import aesthetic
from zigzag.evaluation.scorers.aesthetic import Aesthetic
from zigzag.evaluation.scorers.base import NotLoaded


def published(width: int) -> nn.Module:
    """The module that the published weights are of, with its dropouts."""
    module = nn.Module()
    module.layers = nn.Sequential(
        nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
        nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
    )  # fmt: skip
    return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("layers") / "layers.pth"
    torch.save(published(WIDTH).state_dict(), path)
    return path


def test_it_is_one_linear_form_of_the_unit_vector(clip_folder: str, images: Tensor, said: Any, weights: Path) -> None:
    state = {key: value.double() for key, value in torch.load(weights, weights_only=True).items()}
    form, constant = torch.eye(WIDTH, dtype=torch.float64), torch.zeros(WIDTH, dtype=torch.float64)
    for k in (0, 2, 4, 6, 7):
        w, b = state[f"layers.{k}.weight"], state[f"layers.{k}.bias"]
        form, constant = w @ form, w @ constant + b
    score = Aesthetic(weights=str(weights), clip=clip_folder)
    got = score(PROMPTS, images)
    torch.testing.assert_close(got.double(), (said.image_embeds @ form.T + constant).squeeze(1), rtol=0, atol=1e-5)
    assert torch.equal(got, score(["other"] * len(images), images))
    assert got.std() > 1e-3
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    assert score.weights() == f"layers.pth {digest} on {score.clip.weights}"


def test_the_published_layers_have_their_places_here() -> None:
    theirs = published(768).state_dict()
    assert {f"layers.{k}": v.shape for k, v in aesthetic.layers(768).state_dict().items()} == {
        key: value.shape for key, value in theirs.items()
    }


def test_missing_layers_are_said_with_how_to_fetch_them(clip_folder: str, tmp_path: Path) -> None:
    with pytest.raises(NotLoaded, match=r"aesthetic: .*none\.pth are not to be had: there is no .*`curl -L -o"):
        Aesthetic(weights=str(tmp_path / "none.pth"), clip=clip_folder)


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_damaged_layers_are_refused(clip_folder: str, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(NotLoaded, match=r"bad\.pth are not to be had"):
        Aesthetic(weights=str(tmp_path / "bad.pth"), clip=clip_folder)


def test_layers_of_another_clip_are_refused(clip_folder: str, tmp_path: Path) -> None:
    torch.save(published(WIDTH + 1).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(NotLoaded, match=rf"on {WIDTH + 1} numbers, and .* gives {WIDTH}; .*aesthetic:clip=FOLDER"):
        Aesthetic(weights=str(tmp_path / "wide.pth"), clip=clip_folder)


def test_what_was_fetched_and_is_not_the_published_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "served").write_bytes(b"another file")
    monkeypatch.setattr(aesthetic, "URL", (tmp_path / "served").as_uri())
    with pytest.raises(NotLoaded, match=r"invalid hash value"):
        Aesthetic()
    assert not list((tmp_path / "hub" / "checkpoints").glob("*"))
