"""Methods that are steered by their walk, for tests of what leads them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from zigzag import Move, Visit

__all__ = ["Led"]


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
