"""CLIP score on a tiny random CLIP, against the vectors of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from support.clips import PROMPTS
from zigzag.evaluation.scorers.clip_score import ClipScore


def test_it_is_a_hundred_cosines_and_not_below_nothing(clip_folder: str, images: Tensor, said: Any) -> None:
    cosines = said.image_embeds @ said.text_embeds.T
    assert (cosines.diagonal() > 0.1).all()
    score = ClipScore(weights=clip_folder)
    torch.testing.assert_close(score(PROMPTS, images).double(), 100 * cosines.diagonal(), rtol=0, atol=1e-3)
    assert (score.name, score.weights()) == ("clip", score.clip.weights)
    score.clip.model.text_projection.weight.neg_()  # texts that mean the opposite
    assert score(PROMPTS, images).tolist() == [0.0] * len(PROMPTS)
