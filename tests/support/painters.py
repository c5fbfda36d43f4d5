"""A learned model that knows: it draws the caption it reads, without weights."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn

from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import WORDS, draw_scene, parse, render
from zigzag.zoo.states import to_state


class Painter(nn.Module):
    """A flow model whose samples show their prompt, or always `wrong`; of no caption they show nothing."""

    def __init__(self, wrong: str | None = None) -> None:
        super().__init__()
        self.anchor, self.wrong = nn.Parameter(torch.zeros(())), wrong

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        texts = [" ".join(WORDS[k - 1] for k in row if k) for row in tokens.tolist()]
        scenes = [self.scene(text) for text in texts]
        return (x - to_state(render(scenes))) / (t / 1000)[:, None, None, None].float()

    def scene(self, text: str):
        try:
            return draw_scene(parse(self.wrong or text), Random(0)) if text else ()
        except ValueError:
            return ()


def painter(wrong: str | None = None) -> LearnedModel:
    """It under the interface of a learned model."""
    return LearnedModel("shapes-dit", Painter(wrong))
