"""The two networks that learn to draw shapes; diffusers' classes, with a small token encoder trained beside them."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from zigzag.zoo.learned import preconditioning
from zigzag.zoo.shapes.grammar import LENGTH, WORDS
from zigzag.zoo.shapes.scenes import SIDE

try:
    # By name: typed where it is installed and untyped where it is not, it would suit a type checker only on one side.
    diffusers = import_module("diffusers")
    attention = import_module("diffusers.models.attention")
except ImportError as error:
    raise ImportError(
        "the learned models need diffusers, which needs Python 3.11: pip install 'zigzag-diffusion[shapes]'"
    ) from error

__all__ = ["ShapesDiT", "ShapesUNet", "TokenEncoder"]

WIDTH = 96  # of the token encoder
PATCH = 2  # pixels a side that become channels


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
        ramp = torch.linspace(-1, 1, side)
        self.register_buffer("grid", torch.stack(torch.meshgrid(ramp, ramp, indexing="ij")), persistent=False)
        self.grid: Tensor

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The prediction at `x` `(B, 3, SIDE, SIDE)`, times `t` `(B,)`, for words `(B, LENGTH)`."""
        h = torch.cat([pixel_unshuffle(x, PATCH), self.grid.to(x.dtype).expand(len(x), -1, -1, -1)], 1)
        return pixel_shuffle(self.body(h, t, self.encoder(tokens)).sample, PATCH)


class ShapesDiT(nn.Module):
    """diffusers' `PixArtTransformer2DModel`: self-attention among 64 patches of 4×4 pixels, cross-attention to words.

    Pixels become channels before its own patches of 2×2, which makes the last layer's output local to a pixel.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 3 * PATCH**2
        self.encoder = TokenEncoder()
        self.body = diffusers.PixArtTransformer2DModel(
            num_attention_heads=5,
            attention_head_dim=32,
            num_layers=6,
            in_channels=channels,
            out_channels=channels,
            cross_attention_dim=160,
            sample_size=SIDE // PATCH,
            patch_size=2,
            caption_channels=WIDTH,
            use_additional_conditions=False,
        )

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        """The prediction at `x` `(B, 3, SIDE, SIDE)`, times `t` `(B,)`, for words `(B, LENGTH)`."""
        c_in, c_skip, c_out = preconditioning((t / 1000).to(x.dtype)[:, None, None, None])
        h = self.body(pixel_unshuffle(c_in * x, PATCH), encoder_hidden_states=self.encoder(tokens), timestep=t).sample
        return c_skip * x + c_out * pixel_shuffle(h, PATCH)
