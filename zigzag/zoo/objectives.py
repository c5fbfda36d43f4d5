"""What the models of the world of shapes learn from: scenes with their captions, and how wrong a prediction is."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from zigzag.zoo.shapes import draw_caption, draw_scene, holds, render, tokenize
from zigzag.zoo.shapes.grammar import alterations
from zigzag.zoo.shapes.scenes import Scene
from zigzag.zoo.states import noise_table, preconditioning, to_state

__all__ = ["Settings", "batch", "errors", "loss", "preference_loss", "preferences"]

# How often a category is drawn: the harder, the oftener.
MIX = {
    "single object": 0.1,
    "two objects": 0.15,
    "counting": 0.2,
    "colours": 0.1,
    "position": 0.25,
    "attribution": 0.2,
}
DROPPED = 0.1  # of the conditions, so that the model learns the unconditional prediction too
SHARPNESS = 50.0  # β of a preference, in units of the mean error


@dataclass(frozen=True)
class Settings:
    """What decides the result of a training run: with the same settings and machine it is the same, bit for bit."""

    name: str
    steps: int
    batch: int = 48
    rate: float = 2e-3
    seed: int = 0
    start: str = ""  # the SHA-256 of the weights that it begins with, or beside; nothing for random ones
    lora: int = 0  # the rank of a LoRA, which alone is trained then, beside the weights that it begins with

    def __post_init__(self) -> None:
        if not self.lora >= 0:
            raise ValueError(f"lora must be a rank of at least 0, got {self.lora}")
        if self.lora and self.batch % 2:
            raise ValueError(f"batch must be even, for a LoRA learns from pairs, got {self.batch}")
        for name in ("steps", "batch", "rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def batch(settings: Settings, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The batch of a step: images as states, words, noise, and uniform numbers in [0, 1) for the times.

    It depends on nothing but the seed and the number of the step, so a run resumes without a generator's state.
    """
    rng = Random(f"{settings.seed} {step}")
    categories = rng.choices(list(MIX), list(MIX.values()), k=settings.batch)
    captions = [draw_caption(category, rng) for category in categories]
    x0 = to_state(render([draw_scene(caption, rng) for caption in captions]))
    tokens = tokenize(["" if rng.random() < DROPPED else str(caption) for caption in captions])
    return x0, tokens, *_noise_and_times(rng, x0)


def _noise_and_times(rng: Random, x0: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    noise = torch.randn(x0.shape, generator=generator)
    # Evenly spread over [0, 1) with a common offset: a batch sees all times, and the loss varies less.
    u = (torch.arange(len(x0)) + torch.rand(len(x0), generator=generator)) / len(x0)
    return noise, u


def preferences(settings: Settings, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch as `batch`, of scenes in pairs under one caption, noise and time: of every two rows the first shows what
    the caption says, and the second what a caption says that differs from it in a word.
    """
    rng = Random(f"preferences {settings.seed} {step}")
    scenes: list[Scene] = []
    texts: list[str] = []
    while len(scenes) < settings.batch:
        caption = draw_caption(rng.choices(list(MIX), list(MIX.values()))[0], rng)
        wrong = draw_scene(rng.choice(alterations(caption)), rng)
        if not holds(caption, wrong):
            scenes += [draw_scene(caption, rng), wrong]
            texts += [str(caption)] * 2
    x0 = to_state(render(scenes))
    noise, u = _noise_and_times(rng, x0[::2])
    return x0, tokenize(texts), noise.repeat_interleave(2, 0), u.repeat_interleave(2)


def loss(network: nn.Module, name: str, x0: Tensor, tokens: Tensor, noise: Tensor, u: Tensor) -> Tensor:
    """The mean of `errors`, as a number."""
    return errors(network, name, x0, tokens, noise, u).mean()


def preference_loss(
    network: nn.Module, base: nn.Module, name: str, x0: Tensor, tokens: Tensor, noise: Tensor, u: Tensor
) -> Tensor:
    r"""How little a network prefers the right scenes of `preferences` to the wrong ones, more than `base` does.

    .. math:: -\log\operatorname{sigmoid}\Big(-\beta\,\frac{(d - d_{\mathrm{base}})(x^{+})
        - (d - d_{\mathrm{base}})(x^{-})}{\overline{d_{\mathrm{base}}}}\Big)

    `d` is the squared error of a prediction, as in `errors`; over its mean in the batch, so that one β suits both
    models.

    Args:
        network: what learns. base: what it began as. name: of the model. x0, tokens, noise, u: a batch of pairs.

    Source: Wallace et al. 2023 (Diffusion-DPO), where β is a number alone.
    """
    with torch.no_grad():
        before = errors(base, name, x0, tokens, noise, u)
    right, wrong = (errors(network, name, x0, tokens, noise, u) - before).view(-1, 2).unbind(1)
    return -logsigmoid(-SHARPNESS * (right - wrong) / before.mean()).mean()


def errors(network: nn.Module, name: str, x0: Tensor, tokens: Tensor, noise: Tensor, u: Tensor) -> Tensor:
    r"""The mean squared error of the prediction at `x = α·x₀ + σ·ε`, of each sample: `(B,)`.

    "shapes-unet": of `v = α·ε − σ·x₀` on Stable Diffusion's schedule, with half of the times above 630, where it is
    settled what is drawn. "shapes-dit": of `u = ε − x₀` on `α = 1 − σ`, divided by c_out of `preconditioning`, with σ
    logit-normal (Esser et al. 2024, eq. 19) around 0.73, for the same reason.

    Args:
        network: predicts v, or u. name: of the model. x0, tokens, noise, u: of `batch` or `preferences`.
    """
    if name == "shapes-unet":
        t = (1000 * u ** (2 / 3)).long().clamp(max=999)  # u may have been rounded up to 1
        alpha, sigma = (table[t].to(x0.dtype)[:, None, None, None] for table in noise_table(x0.device))
        target, unit = alpha * noise - sigma * x0, torch.ones_like(sigma)
    else:
        sigma = (1.0 + 1.3 * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))).sigmoid()
        t, sigma = 1000 * sigma, sigma[:, None, None, None]
        alpha, target, unit = 1 - sigma, noise - x0, preconditioning(sigma)[2]
    prediction: Tensor = network(alpha * x0 + sigma * noise, t, tokens)
    return ((prediction.float() - target) / unit).square().flatten(1).mean(1)
