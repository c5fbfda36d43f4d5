"""PickScore on a tiny random CLIP, against the logits of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from support.clips import PROMPTS, tokenizer_in
from zigzag.evaluation.scorers.pickscore import PickScore


def test_it_is_the_logit_of_each_image_under_its_own_prompt(clip_folder: str, images: Tensor, said: Any) -> None:
    score = PickScore(weights=clip_folder, tokenizer=clip_folder)
    got = score(PROMPTS, images)
    torch.testing.assert_close(got.double(), said.logits_per_image.diagonal(), rtol=0, atol=1e-4)
    assert not torch.allclose(got, got.roll(1), atol=0.1)  # the images differ in it
    assert (score.name, score.weights()) == ("pickscore", score.clip.weights)


def test_the_tokenizer_may_be_elsewhere(clip_folder: str, images: Tensor, tmp_path: Path) -> None:
    tokenizer_in(tmp_path)
    beside = PickScore(weights=clip_folder, tokenizer=clip_folder)
    assert torch.equal(
        PickScore(weights=clip_folder, tokenizer=str(tmp_path))(PROMPTS, images), beside(PROMPTS, images)
    )
