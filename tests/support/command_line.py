"""The commands of `zigzag`, as its parser has them: none is left out of a test of all."""

from __future__ import annotations

import argparse

from zigzag.cli import _parser

__all__ = ["COMMANDS", "commands"]


def commands() -> dict[str, argparse.ArgumentParser]:
    """Their parsers by their names."""
    (found,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(found.choices)


COMMANDS = tuple(commands())
