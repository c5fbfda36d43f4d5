"""The two networks that learn to draw shapes; diffusers' classes, with a small token encoder trained beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from zigzag.support.extras import require
from zigzag.zoo.shapes.grammar import LENGTH, WORDS
from zigzag.zoo.shapes.scenes import SIDE
from zigzag.zoo.states import preconditioning

# By name: typed where it is installed and untyped where it is not, it would suit a type checker only on one side.
diffusers, resnet, attention = (
    require(name, "the learned models need diffusers, which needs Python 3.11", "shapes")
    for name in ("diffusers", "diffusers.models.resnet", "diffusers.models.attention")
)

__all__ = ["ShapesDiT", "ShapesUNet", "TokenEncoder"]

WIDTH = 96  # of the token encoder
PATCH = 2  # pixels a side that become channels
FINE = 64  # channels of the convolutions around the transformer
CAPTION = 128  # numbers that tell them the caption


class TokenEncoder(nn.Module):
    """Two transformer blocks over the words of a caption: int64 `(B, LENGTH)` to `(B, LENGTH, WIDTH)`."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(1 + len(WORDS), WIDTH)
        self.positions = nn.Parameter(torch.randn(LENGTH, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(attention.BasicTransformerBlock(WIDTH, 4, WIDTH // 4) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """The words in their context."""
        h = self.words(tokens) + self.positions
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.norm(h)
        return out


class ShapesUNet(nn.Module):
    """diffusers' `UNet2DConditionModel` on 2×2 pixels as channels, with cross-attention over the words.

    Two more input channels hold the coordinates of a pixel: convolutions alone cannot tell left from right.
    """

    def __init__(self) -> None:
        super().__init__()
        side, channels = SIDE // PATCH, 3 * PATCH**2
        self.encoder = TokenEncoder()
        self.body = diffusers.UNet2DConditionModel(
            sample_size=side,
            in_channels=channels + 2,
            out_channels=channels,
            block_out_channels=(48, 96),
            layers_per_block=1,
            # Attention at 8×8 only, and in the middle: at 16×16 it would double the time of a step.
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
        )
        ramp = torch.linspace(-1, 1, side, dtype=torch.float32)
        self.register_buffer("grid", torch.stack(torch.meshgrid(ramp, ramp, indexing="ij")), persistent=False)
        self.grid: Tensor

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The prediction at `x` `(B, 3, SIDE, SIDE)`, times `t` `(B,)`, for words `(B, LENGTH)`."""
        h = torch.cat([pixel_unshuffle(x, PATCH), self.grid.to(x.dtype).expand(len(x), -1, -1, -1)], 1)
        return pixel_shuffle(self.body(h, t, self.encoder(tokens)).sample, PATCH)


class ShapesDiT(nn.Module):
    """diffusers' `SanaTransformer2DModel`: linear attention among 64 patches of 4×4 pixels, cross-attention to words.

    Convolutions on 2×2 pixels as channels before and after it see and draw what is smaller than a patch. They are told
    the whole caption, as those of a U-Net are told the time: circles differ from squares in a few pixels at corners.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 3 * PATCH**2
        self.encoder = TokenEncoder()
        self.caption = nn.Linear(LENGTH * WIDTH, CAPTION)
        self.enter = nn.Conv2d(channels, FINE, 3, padding=1)
        self.stem = _convolutions(FINE)
        self.body = diffusers.SanaTransformer2DModel(
            in_channels=FINE,
            out_channels=FINE,
            num_attention_heads=5,
            attention_head_dim=32,
            num_layers=4,
            num_cross_attention_heads=5,
            cross_attention_head_dim=32,
            cross_attention_dim=160,
            caption_channels=WIDTH,
            sample_size=SIDE // PATCH,
            patch_size=2,
            interpolation_scale=1.0,  # which makes it tell positions by sines
        )
        self.head = nn.ModuleList([_convolutions(2 * FINE), _convolutions(FINE)])
        self.leave = nn.Conv2d(FINE, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The prediction at `x` `(B, 3, SIDE, SIDE)`, times `t` `(B,)`, for words `(B, LENGTH)`."""
        words = self.encoder(tokens)
        caption = self.caption(words.flatten(1))
        c_in, c_skip, c_out = preconditioning((t / 1000).to(x.dtype)[:, None, None, None])
        fine = self.stem(self.enter(pixel_unshuffle(c_in * x, PATCH)), caption)
        h = torch.cat([self.body(fine, encoder_hidden_states=words, timestep=t).sample, fine], 1)
        for block in self.head:
            h = block(h, caption)
        return c_skip * x + c_out * pixel_shuffle(self.leave(h), PATCH)


def _convolutions(channels: int) -> nn.Module:
    """A residual block of two 3×3 convolutions, of a tensor and a vector for all of it."""
    block: nn.Module = resnet.ResnetBlock2D(
        in_channels=channels, out_channels=FINE, temb_channels=CAPTION, groups=8, eps=1e-6
    )
    return block
