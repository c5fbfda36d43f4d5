"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

__all__ = ["check_writable", "replacing", "slug", "write_json"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Nobody else writes to that name, on this machine or on another with the same folder.

    Raises:
        OSError: where the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes a folder, and writes to it: before hours of work rather than after.

    Raises:
        OSError: where it cannot be made or written.
    """
    probe = folder / f".writable.{uuid4().hex[:8]}"
    with replacing(probe) as temporary:
        temporary.touch()
    probe.unlink()


def write_json(path: Path, content: Any, *, allow_nan: bool = True) -> None:
    """Writes `content` as JSON, as `replacing` does.

    Raises:
        ValueError: for a number that is not finite, where `allow_nan` is False.
        OSError: as `replacing`.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=allow_nan)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def slug(text: str) -> str:
    """The words of a text as part of a file name: lower-case ASCII letters, digits and dashes, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "prompt"
