"""Scores by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.clips import PROMPTS
from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.scorers import SCORERS, scorer
from zigzag.evaluation.scorers.pickscore import PickScore

MINE = """
class Mean:
    name = "mean"
    def weights(self): return "none"
    def __call__(self, prompts, images): return images.flatten(1).mean(1)

class Nameless:
    def __call__(self, prompts, images): return images.flatten(1).mean(1)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scores.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_scores", raising=False)


def test_options_stand_behind_a_colon(clip_folder: str, images: Tensor) -> None:
    by_name = scorer(f"pickscore:weights={clip_folder},tokenizer={clip_folder}")
    assert torch.equal(by_name(PROMPTS, images), PickScore("cpu", clip_folder, clip_folder)(PROMPTS, images))


def test_the_prompts_reach_a_score_that_asks_for_them() -> None:
    pytest.importorskip("scipy")
    assert scorer("shapes", "cpu", [Prompt("a circle")]).name == "shapes"
    with pytest.raises(ValueError, match="unknown word"):
        scorer("shapes", "cpu", [Prompt("a house")])


def test_one_of_ones_own_is_module_and_object(mine: None) -> None:
    own = scorer("my_scores:Mean")
    assert own(["a"], torch.full((1, 3, 2, 2), 0.25)).tolist() == [0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", rf"score must be one of {', '.join(SCORERS)}, or module:object, got 'best'"),
        ("my_scores:Nameless", r"must have name, weights\(\) and __call__"),
        ("my_scores:None_", r"'my_scores:None_' is not to be had: AttributeError"),
        ("clip:size=3", r"score clip has no option 'size'; it has: weights"),
        ("shapes:device=cpu", r"score shapes has no option 'device'; it has: none"),
        ("clip:weights", r"score clip: weights must be given a value, as weights=VALUE, got 'weights'"),
        ("clip:weights=", r"score clip: weights must be given a value"),
    ],
)
def test_what_is_no_score_is_said(mine: None, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scorer(text)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("pickscore", "transformers", "scores"),
        ("clip", "transformers", "scores"),
        ("imagereward", "transformers", "scores"),
        ("geneval", "transformers", "scores"),
        ("hpsv2", "open_clip", "hpsv2"),
        ("shapes", "scipy.ndimage", "shapes"),
    ],
)
def test_a_missing_package_is_said_with_its_extra(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs .*pip install 'zigzag-diffusion\[{extra}\]'"):
        scorer(name)


def test_a_score_is_a_function_of_one_image(clip_folder: str, images: Tensor) -> None:
    """Not of those that are scored along with it, nor of their order."""
    one: Any = scorer(f"clip:weights={clip_folder}")

    def each(prompts: Sequence[str], batch: Tensor) -> Tensor:
        return torch.cat([one([prompt], image[None]) for prompt, image in zip(prompts, batch, strict=True)])

    torch.testing.assert_close(one(PROMPTS, images), each(PROMPTS, images), rtol=0, atol=1e-3)
    back = one(PROMPTS[::-1], images.flip(0)).flip(0)
    torch.testing.assert_close(one(PROMPTS, images), back, rtol=0, atol=1e-3)
