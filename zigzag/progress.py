"""Progress bars, where tqdm is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(moves: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A function to call with the rows so far, once after each of `moves` moves; it does nothing unless `enabled`.

    Raises:
        ImportError: if tqdm is missing, naming the extra that brings it.
    """
    if not enabled:
        yield lambda rows: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'zigzag-diffusion[progress]'") from error
    with tqdm(total=moves, unit="move") as bar:

        def tick(rows: int) -> None:
            bar.set_postfix(rows=rows, refresh=False)
            bar.update()

        yield tick
