"""Progress bars, where tqdm is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

from zigzag.support.extras import require

__all__ = ["on_terminal", "progress_bar", "rows_bar", "steps_bar"]


def progress_bar(moves: int | None, enabled: bool) -> AbstractContextManager[Callable[[int], None]]:
    """Gives a function to call with the rows so far, once after each of `moves` moves (None: of a number that
    is not known); a silent one unless `enabled`.

    Raises:
        ImportError: if tqdm is missing, naming the extra that brings it.
    """
    return _bar(_tqdm()(total=moves, unit="move")) if enabled else nullcontext(lambda rows: None)


def rows_bar(rows: int, enabled: bool) -> AbstractContextManager[Callable[[int], object]]:
    """Gives a function to call with the rows that ran since the last call, of `rows`; a silent one unless `enabled`.

    Raises:
        ImportError: if tqdm is missing, naming the extra that brings it.
    """
    return _plain(_tqdm()(total=rows, unit="row", unit_scale=True)) if enabled else nullcontext(lambda rows: None)


def steps_bar(steps: int, done: int, enabled: bool) -> AbstractContextManager[Callable[[int], object]]:
    """Gives a function to call with the steps since the last call, of `steps`, of which `done` ran in earlier runs.

    It is a silent one unless `enabled`.

    Raises:
        ImportError: if tqdm is missing, naming the extra that brings it.
    """
    return _plain(_tqdm()(total=steps, initial=done, unit="step")) if enabled else nullcontext(lambda count: None)


def on_terminal() -> bool:
    """Whether a bar would be seen: on a terminal, where tqdm is installed."""
    return sys.stderr.isatty() and find_spec("tqdm") is not None


def _tqdm() -> Any:
    return require("tqdm.auto", "progress=True needs tqdm", "progress").tqdm


@contextmanager
def _plain(bar: Any) -> Iterator[Callable[[int], object]]:
    with bar:
        yield bar.update


@contextmanager
def _bar(bar: Any) -> Iterator[Callable[[int], None]]:
    with bar:

        def tick(rows: int) -> None:
            bar.set_postfix(rows=rows, refresh=False)
            bar.update()

        yield tick
