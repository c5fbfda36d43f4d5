"""Text-conditioned models of the world of shapes, as ordinary predictors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.guidance.base import finite
from zigzag.solvers import DDIM, FlowEuler, Solver, convert
from zigzag.solvers.predictions import MadeFor
from zigzag.support.extras import require
from zigzag.zoo.lora import applied
from zigzag.zoo.shapes.grammar import tokenize
from zigzag.zoo.shapes.scenes import SIDE
from zigzag.zoo.states import noise_table, to_image, to_state

__all__ = [
    "MODELS",
    "LearnedModel",
    "best_scale",
    "create",
    "load",
]

MODELS = ("shapes-unet", "shapes-dit")


def create(name: str) -> nn.Module:
    """A fresh network; it maps `(x, t, tokens)` to v ("shapes-unet") or to the velocity u = ε − x₀ ("shapes-dit").

    Raises:
        ValueError: for a name that is none of `MODELS`.
        ImportError: without diffusers, naming the extra that brings it.
    """
    _check_name(name)
    from zigzag.zoo.networks import ShapesDiT, ShapesUNet

    return ShapesUNet() if name == "shapes-unet" else ShapesDiT()


def _check_name(name: str) -> None:
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")


class LearnedModel:
    """A trained network with what belongs to it: solver, words, and the way from a state to an image.

    Attributes:
        name: one of `MODELS`. network: the module. shape: `(3, 32, 32)`, of one state.
    """

    shape = (3, SIDE, SIDE)

    def __init__(self, name: str, network: nn.Module) -> None:
        _check_name(name)
        self.name, self.network = name, network

    @property
    def made_for(self) -> MadeFor:
        """What `eps_fn` predicts, for `walk` to hold the solver against."""
        return MadeFor("epsilon" if self.name == "shapes-unet" else "flow")

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def eps_fn(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """What `solver` wants at states `(B, 3, 32, 32)`: ε of "shapes-unet", u of "shapes-dit".

        Args:
            t: `(B,)`, the solver's times. cond: what `encode` gave, `(B, 8)` or `(1, 8)`.

        "shapes-unet" predicts `v = α·ε − σ·x₀`, from which `ε = α·v + σ·x` loses nothing at any noise.
        """
        dtype = next(self.network.parameters()).dtype
        e: Tensor = self.network(x.to(dtype), t, cond.expand(len(x), -1)).to(x.dtype)
        if self.name == "shapes-dit":
            return e
        alphas, sigmas = noise_table(x.device)
        return convert(x, e, alphas[t], sigmas[t], "v", "epsilon")

    def solver(self, steps: int) -> Solver:
        """DDIM on Stable Diffusion's grid with trailing spacing, or Euler on an even grid of the flow.

        Raises:
            ValueError: for steps out of range.
        """
        if self.name == "shapes-unet":
            # Trailing, because sampling starts from pure noise: that is nearest to the last training time.
            return DDIM.stable_diffusion(steps, spacing="trailing", final_alpha_cumprod=1.0)
        return FlowEuler.uniform(steps, time_scale=1000.0)

    def with_lora(self, strength: float, lora: str | Path | None = None) -> LearnedModel:
        """The same model with a LoRA at a strength: `W + strength·UD`. 0 is the model itself, below 0 what it unlearns.

        Args:
            strength: any finite number.
            lora: a `lora.safetensors` that `python -m zigzag.zoo.train NAME --lora RANK` wrote; by default the file in
                the package, whose SHA-256 is verified. Whether the model has the weights that it was trained beside is
                not known, and not asked.

        Raises:
            TypeError, ValueError: for a strength that is no finite number, and a file that is no LoRA of this model.
            FileNotFoundError: for a file that is not there.
            ImportError: without safetensors, naming the extra that brings it.
        """
        strength = finite("strength", strength)
        state, metadata = parse_weights(
            _verified(f"{self.name}-lora", recorded()[self.name]["lora"]) if lora is None else Path(lora).read_bytes()
        )
        if metadata.get("name") != self.name or metadata.get("kind") != "lora":
            kind = f"{metadata.get('kind', 'weights')} of {metadata.get('name')}"
            raise ValueError(f"lora must be a LoRA of {self.name}, got {kind}")
        with torch.inference_mode(False):  # the same network, whatever mode it is made in
            return LearnedModel(self.name, applied(self.network, state, strength))

    def encode(self, prompt: str | Sequence[str]) -> Tensor:
        """Captions as conditions, int64 `(B, 8)` on the network's device; `""` is the unconditional one.

        Raises:
            ValueError: for an unknown word, listing those known, and for a prompt that is too long.
        """
        texts = [prompt] if isinstance(prompt, str) else prompt
        return tokenize(texts).to(self.device)

    def image_to_state(self, images: Tensor) -> Tensor:
        """The states of images `(B, 3, 32, 32)` in [0, 1]: where an inversion begins. `decode` is the way back."""
        return to_state(images)

    def decode(self, x: Tensor) -> Tensor:
        """The images of states, `(B, 3, 32, 32)` in [0, 1]."""
        return to_image(x)


def load(name: str, weights: str | Path | None = None, device: torch.device | str = "cpu") -> LearnedModel:
    """A learned model: with the weights in the package, or with those that `python -m zigzag.zoo.train` wrote.

    Args:
        name: "shapes-unet" or "shapes-dit".
        weights: a `weights.safetensors`; by default the file in the package, whose SHA-256 is verified.

    Raises:
        ValueError: for another name, for a file of another model, and for one that is not what was recorded.
        FileNotFoundError: if the package has no weights of this model, saying how to train them.
        ImportError: without diffusers or safetensors, naming the extra that brings them.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # the same network, whatever mode it is loaded in
        network = create(name).float()
    data = _shipped(name) if weights is None else Path(weights).read_bytes()
    state, metadata = parse_weights(data)
    if metadata.get("name") != name or metadata.get("kind") == "lora":
        what = "a LoRA" if metadata.get("kind") == "lora" else "those"
        raise ValueError(f"weights must be of {name}, got {what} of {metadata.get('name')!r}")
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return LearnedModel(name, network.to(device).eval().requires_grad_(False))


def parse_weights(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the text fields of a safetensors file.

    Raises:
        ValueError: if it is no such file.
        ImportError: without safetensors, naming the extra that brings it.
    """
    safetensors = require_safetensors()
    try:
        length = int.from_bytes(data[:8], "little")
        metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        return safetensors.load(data), metadata
    except Exception as error:
        raise ValueError(f"weights must be a safetensors file: {error}") from error


def require_safetensors() -> Any:
    """`safetensors.torch`.

    Raises:
        ImportError: if it is missing, naming the extra that brings it.
    """
    return require("safetensors.torch", "weights need safetensors", "shapes")


def recorded() -> dict[str, Any]:
    """What is on record of the weights in the package, by model: SHA-256, training, accuracy."""
    record = files("zigzag.zoo").joinpath("data/weights.json")
    known: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    return known


def best_scale(name: str) -> float:
    """The guidance scale w that suited standard sampling best when the weights in the package were frozen.

    Raises:
        ValueError: for a name that is none of `MODELS`.
    """
    _check_name(name)
    return float(recorded()[name]["standard"]["scale"])


def _shipped(name: str) -> bytes:
    record = recorded().get(name)
    if record is None:
        raise FileNotFoundError(
            f"no weights of {name} come with zigzag yet: train them with `python -m zigzag.zoo.train {name} --out DIR` "
            f"and load them with zoo.load({name!r}, 'DIR/weights.safetensors')"
        )
    return _verified(name, record)


def _verified(name: str, record: dict[str, Any]) -> bytes:
    data = files("zigzag.zoo").joinpath(f"data/{name}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise ValueError(f"the weights of {name} in the package are damaged: their SHA-256 is not the one recorded")
    return data
