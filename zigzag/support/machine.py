"""The line under every figure: on what, and with which versions, it was made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from zigzag import __version__

__all__ = ["machine", "versions"]


def machine() -> str:
    """GPU if there is one, processor, threads, Python."""
    parts = [_processor(), f"{torch.get_num_threads()} threads", f"Python {platform.python_version()}"]
    if torch.cuda.is_available():
        parts.insert(0, torch.cuda.get_device_name())
    return ", ".join(parts)


def versions(packages: Sequence[str] = ()) -> str:
    """Those of torch, zigzag and other distributions."""
    others = [f"{name} {version(name)}" for name in packages]
    return ", ".join([f"torch {torch.__version__}", f"zigzag {__version__}", *others])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
