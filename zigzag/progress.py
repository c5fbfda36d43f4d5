"""Progress bars, where tqdm is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

__all__ = ["progress_bar"]


def progress_bar(moves: int, enabled: bool) -> AbstractContextManager[Callable[[int], None]]:
    """Gives a function to call with the rows so far, once after each of `moves` moves; a silent one unless `enabled`.

    Raises:
        ImportError: if tqdm is missing, naming the extra that brings it.
    """
    if not enabled:
        return nullcontext(lambda rows: None)
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'zigzag-diffusion[progress]'") from error
    return _bar(tqdm(total=moves, unit="move"))


@contextmanager
def _bar(bar: Any) -> Iterator[Callable[[int], None]]:
    with bar:

        def tick(rows: int) -> None:
            bar.set_postfix(rows=rows, refresh=False)
            bar.update()

        yield tick
