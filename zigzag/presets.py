"""Published methods of strong, weak and plain roles as data: the arguments of `sample` that they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypedDict

from torch import Tensor

from zigzag.methods import Method, ZSampling

__all__ = ["RF_SAMPLING", "Mixture", "Mixtures", "Preset", "rf_sampling", "w2sd"]


class Preset(TypedDict):
    """Arguments of `sample`, `walk` and `capture`: a path, and the guidance of the roles."""

    method: Method
    strong: float
    weak: float
    plain: float


def w2sd(*, steps: int | None = None, released: bool = False) -> Preset:
    r"""W2SD: down with a strong network, up with a weak one, down with a plain one.

    .. math:: x_i \leftarrow \Psi_{w}(\Phi_{s}(x_i)), \qquad x_{i+1} = \Phi_{p}(x_i)

    The networks are the caller's, `eps_fn`, `weak_fn` and `plain_fn`: published are those of one LoRA at the strengths
    1.5, −1.5 and 0.8, on SDXL at 50 steps of DDIM.

        x = sample(at(1.5), x_T, solver, **w2sd(), weak_fn=at(-1.5), plain_fn=at(0.8), cond=c, uncond=u)

    Args:
        steps: at how many steps, by default all but the last.
        released: invert as the released code does, with the coefficients of the next step.

    Returns:
        `ZSampling(plain=True)` under the scales 5.5 (strong), 1 (weak) and 5.5 (plain).

    Source: Bai et al. 2502.00473, and the defaults of its released code (`w2sd_lora.py`).
    """
    method = ZSampling(steps=steps, plain=True, released=released)
    return {"method": method, "strong": 5.5, "weak": 1.0, "plain": 5.5}


@dataclass(frozen=True)
class Mixture:
    r"""A prompt's embedding `c` with a share of the empty one's, `\varnothing`, added to it.

    .. math:: c + s\,\big((1 - \beta)\,c + \beta\,\varnothing\big)

    Args:
        scale: `s`. share: `β`.
    """

    scale: float
    share: float

    def __call__(self, embedding: Tensor, empty: Tensor) -> Tensor:
        """The mixture, in the shape and dtype of `embedding`; `empty` may be of one prompt for all.

        Raises:
            ValueError: for embeddings of two lengths.
        """
        one = embedding.shape[1:]
        if empty.shape[empty.ndim - len(one) :] != one:
            raise ValueError(
                f"empty must be an embedding as long as the prompt's, {tuple(embedding.shape)}, got "
                f"{tuple(empty.shape)}: encode both at one length (max_sequence_length)"
            )
        return embedding + self.scale * ((1 - self.share) * embedding + self.share * empty.to(embedding))


@dataclass(frozen=True)
class Mixtures:
    """The embeddings of the strong and of the weak role, and how many steps a zigzag spans."""

    strong: Mixture
    weak: Mixture
    span: int


RF_SAMPLING: Final[Mapping[str, Mixtures]] = {
    "dev": Mixtures(Mixture(3.5, 0.3), Mixture(0.0, 0.7), span=1),
    "lite": Mixtures(Mixture(9.0, 0.3), Mixture(-1.0, 0.7), span=2),
}
"""The settings of RF-Sampling for FLUX.1-dev and FLUX.1-lite: of the readme and the scripts of its authors' code."""


def rf_sampling(steps: int, *, model: str = "dev", strength: float = 0.5) -> Preset:
    """RF-Sampling: down by one mixture of the prompt's and the empty embedding, up by another, down by the prompt.

        mix = RF_SAMPLING["dev"]
        x = sample(eps_fn, x_T, solver, **rf_sampling(28), cond=mix.strong(c, empty), weak_cond=mix.weak(c, empty),
                   plain_cond=c)

    Args:
        steps: of the grid: every step zigzags.
        model: whose settings, of `RF_SAMPLING`. strength: the merge ratio, how much of a zigzag is kept.

    Returns:
        `ZSampling(plain=True)` under the scale 1 of every role: a distilled model has no unconditional branch.

    Raises:
        ValueError: for a model that has no settings here.

    Source: Zhou et al. 2603.06165. The settings are those of the readme of its authors' earlier code (Free Lunch for
    Flow-based Diffusion Models, xie-lab-ml/FreeLunchInference), the shares 0.3 and 0.7 the defaults of its scripts; the
    paper's own tables were not at hand. That code
    differs: it goes up from knot `i + 1` by the coefficients of the step `i − 1 → i` (at knot 0 by none), begins steps
    beyond the end of the grid at its last time, takes a merge ratio of 0, its scripts' default, for 1, and encodes the
    empty prompt with the prompt's embeddings given, so that its mixtures are multiples of these.
    """
    if model not in RF_SAMPLING:
        raise ValueError(f"model must be one of {', '.join(RF_SAMPLING)}, got {model!r}")
    method = ZSampling(steps=steps, span=RF_SAMPLING[model].span, plain=True, strength=strength)
    return {"method": method, "strong": 1.0, "weak": 1.0, "plain": 1.0}
