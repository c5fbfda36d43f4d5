"""Methods that are steered by their walk, for tests of what leads them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from zigzag import Denoise, Invert, Move, Shift, Visit

__all__ = ["Led", "UntilItTurns"]


class Led:
    """A path beforehand, handed out move by move; with what was sent, which may be looked at before the next."""

    def __init__(self, method: Any, look: Callable[[Visit], None] = lambda visit: None) -> None:
        self.method, self.look, self.seen = method, look, list[Visit]()

    def __repr__(self) -> str:
        return f"Led({self.method!r})"

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        """The moves of the path."""
        for move in self.method.path(T) if hasattr(self.method, "path") else self.method:
            self.seen.append((yield move))
            self.look(self.seen[-1])


class UntilItTurns:
    """Zigzags at a step until the gap has turned by so much, at most so often; then shifts by what is left of it."""

    def __init__(self, cosine: float = 0.98, most: int = 3) -> None:
        self.cosine, self.most, self.seen = cosine, most, list[Visit]()

    def __repr__(self) -> str:
        return f"UntilItTurns({self.cosine})"

    def steer(self, T: int) -> Generator[Move, Visit, None]:
        """The moves, as the gaps have it."""
        self.seen.clear()
        for i in range(T - 1):
            visit = yield from self.note(Denoise(i, i + 1))
            for _ in range(self.most):
                before = visit.gap
                yield from self.note(Invert(i + 1, i))
                visit = yield from self.note(Denoise(i, i + 1))
                if self.alike(before, visit.gap) > self.cosine:
                    break
            else:
                yield from self.note(Shift(i + 1, fresh=False))
        yield from self.note(Denoise(T - 1, T))

    def note(self, move: Move) -> Generator[Move, Visit, Visit]:
        """Yields a move, and keeps what is sent after it."""
        self.seen.append((yield move))
        return self.seen[-1]

    def between(self) -> float:
        """A cosine that some of the rounds it made last come above and some below, far from both."""
        down = [v for v in self.seen if isinstance(v.move, Denoise)]
        found = sorted(self.alike(v.gap, w.gap) for v, w in pairwise(down) if v.move == w.move)
        low, high = max(pairwise(found), key=lambda pair: pair[1] - pair[0])
        return (low + high) / 2

    @staticmethod
    def alike(one: Tensor | None, two: Tensor | None) -> float:
        """Their cosine."""
        assert one is not None and two is not None
        return float(torch.cosine_similarity(one.flatten(), two.flatten(), dim=0))
