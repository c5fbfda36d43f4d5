"""What a sampler asks of its host: denoised states, and what the host is like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = ["Asked", "Host", "Need", "found"]


class Need(NamedTuple):
    """A branch that is asked for at a noise level, "cond" or "uncond", and for whom (`weak=CFG(0)`)."""

    branch: str
    sigma: float
    whose: str


class Asked(NamedTuple):
    """What one call of the model gave, as denoised states `D` like `x`.

    Attributes:
        whole: with all guidance of the host's; what it is of a call for one branch alone means nothing.
        branches: by "cond" and "uncond", as far as the host evaluated and showed them.
        rows: model rows per sample that ran.
    """

    whole: Tensor
    branches: Mapping[str, Tensor]
    rows: int


class Host(Protocol):
    """A program with a denoiser `D(x, σ)`.

    Attributes:
        name: for messages. flow: whether states are `(1 − σ)·x₀ + σ·ε`, by σ; else `x₀ + σ·ε`.
    """

    name: str
    flow: bool

    def input_scale(self, sigma: float) -> float:
        """The factor that the model multiplies a state by that it is told stands at `σ`.

        Raises:
            ValueError: where the host does not say.
        """
        ...

    def check(self, needs: Iterable[Need]) -> None:
        """Raises ValueError for branches that the host does not have, before any call of the model."""
        ...

    def ask(self, x: Tensor, sigma: Tensor, branches: tuple[str, ...], whole: bool) -> Asked:
        """The denoised states at `x`, told `σ` `(B,)`.

        Args:
            branches: of "uncond" and "cond", that have to be among the answer.
            whole: whether the host's own guidance is asked for; else the branches only, at no more rows than they need.

        Raises:
            ValueError: where the host did not show a branch.
        """
        ...


def found(outer: Any, name: str, default: Any = None) -> Any:
    """The attribute of that name of a model, or of the one within it (`inner_model`), and so on."""
    while outer is not None:
        if (value := getattr(outer, name, None)) is not None:
            return value
        outer = getattr(outer, "inner_model", None)
    return default
