"""A step as the checks see it, and one whose inverse may be wrong."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class StepLike(Protocol):
    @property
    def a(self) -> Any: ...
    @property
    def b(self) -> Any: ...
    @property
    def c(self) -> Any: ...
    @property
    def d(self) -> Any: ...


@dataclass(frozen=True)
class Mutant:
    """A step whose inverse need not be the inverse of its forward."""

    a: Any
    b: Any
    c: Any
    d: Any

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.a * x + self.b * e

    def inverse(self, x: Tensor, e: Tensor) -> Tensor:
        return self.c * x + self.d * e

    def shift(self, x: Tensor, gap: Tensor) -> Tensor:
        return x - self.d * gap
