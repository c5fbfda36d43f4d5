"""Who does the cells: one loaded model at a time."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import Any

from zigzag.evaluation.cells import Cell, Worker
from zigzag.evaluation.engines.failures import Refused
from zigzag.support.commands import one_line

__all__ = ["Hand"]

# What the next cell would meet as well.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Hand:
    """Does cells, with the model of the last one still loaded."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._model: Any = None

    def __call__(self, cell: Cell) -> str | None:
        """Does a cell, unless another process has by now.

        Returns:
            None, or why it failed.

        Raises:
            Exception: what `Worker.load` raises.
            Refused: by the cell.
            OSError: where nothing more can be written: the disk is full, or read-only.
        """
        if cell.done():
            return None
        model = self._loaded(cell.worker)
        try:
            cell.run(model)
        except Exception as error:
            if isinstance(error, Refused) or (isinstance(error, OSError) and error.errno in _FATAL):
                raise
            return _reason(error)
        return None if cell.done() else "it ran, and wrote no file"

    def _loaded(self, worker: Worker) -> Any:
        if worker != self._worker:
            self._worker = self._model = None  # first, so that never two are in memory
            self._model = worker.load()
            self._worker = worker
        return self._model


def _reason(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {one_line(error)}"
