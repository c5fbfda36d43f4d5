"""A LoRA of a learned model: low-rank changes of its layers, trained beside them and applied at any strength."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

__all__ = ["LowRank", "adapt", "applied"]


class LowRank(nn.Module):
    r"""A weight with what is learned beside it, which is nothing at first.

    .. math:: W + U D, \qquad U \in \mathbb{R}^{m \times r},\; D \in \mathbb{R}^{r \times n}

    Args:
        weight: `W`, `(m, …)`, a matrix of `n` columns in its memory order.
        rank: `r`.

    Source: Hu et al. 2021 (LoRA).
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.down = nn.Parameter(torch.randn(rank, columns).to(weight) / math.sqrt(columns))

    def forward(self, weight: Tensor) -> Tensor:
        """`W + UD`."""
        return weight + (self.up @ self.down).view_as(weight)


def adapt(network: nn.Module, rank: int) -> dict[str, nn.Parameter]:
    """Freezes a network, and adds a LoRA to each of its linear layers and convolutions that are larger than the rank.

    Args:
        network: is changed. rank: `r`, of every layer.

    Returns:
        What is left to learn, by name: `LAYER.up`, `LAYER.down`.

    Raises:
        ValueError: if no layer is larger than the rank.
    """
    network.requires_grad_(False)
    found: dict[str, nn.Parameter] = {}
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d) and min(len(layer.weight), layer.weight[0].numel()) > rank:
            change = LowRank(layer.weight, rank)
            register_parametrization(layer, "weight", change)
            found |= {f"{name}.up": change.up, f"{name}.down": change.down}
    if not found:
        raise ValueError(f"no layer of the network is larger than a LoRA of rank {rank}")
    return found


def applied(network: nn.Module, lora: Mapping[str, Tensor], strength: float) -> nn.Module:
    """A copy of a network with `W + strength·UD` for the weights that a LoRA changes.

    Args:
        network: whose weights are changed in the copy. strength: any number.
        lora: `U` and `D` by name, as `adapt` gives them.

    Raises:
        ValueError: for a LoRA of another network, or with nothing in it, naming a layer.
    """
    network = copy.deepcopy(network)
    layers = dict(network.named_modules())
    names = sorted({key.rpartition(".")[0] for key in lora})
    if not names:
        raise ValueError("the LoRA changes nothing: it has no layer")
    for name in names:
        up, down = (lora.get(f"{name}.{part}") for part in ("up", "down"))
        weight: Any = getattr(layers.get(name), "weight", None)
        sides = None if weight is None else (len(weight), weight[0].numel())
        if up is None or down is None or up.shape[1:] != down.shape[:1] or (len(up), *down.shape[1:]) != sides:
            found = [None if part is None else tuple(part.shape) for part in (up, down)]
            raise ValueError(f"the LoRA is of another network: {name!r} has up and down of {found}, the layer {sides}")
        with torch.no_grad():
            weight += (strength * (up.float() @ down.float())).view_as(weight).to(weight)
    return network
