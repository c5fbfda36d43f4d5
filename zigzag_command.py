"""The command `zigzag`. It stands outside of the package, whose imports take long enough to be stopped in."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Runs `zigzag.cli.main`.

    Returns:
        Its exit code; 130, after one line as of `zigzag.support.commands.ending`, where it was stopped before it began.
    """
    try:
        from zigzag.cli import main as run
    except KeyboardInterrupt:
        print("zigzag: stopped; nothing new was written", file=sys.stderr)
        return 130
    return run()
