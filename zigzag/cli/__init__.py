"""The command line: `zigzag demo`, `zigzag path`, `zigzag generate`, `zigzag eval`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from zigzag import __version__
from zigzag.cli import demo, evaluate, generate, path
from zigzag.cli.options import Parser

__all__ = ["main"]


def _parser() -> Parser:
    parser = Parser(prog="zigzag", description="Zigzag sampling for diffusion and flow models.")
    parser.add_argument("--version", action="version", version=f"zigzag {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in (demo, path, generate, evaluate):
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; exits with 2 and one line on bad input."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a λ still gets the rest
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        parser.exit(2, f"zigzag {args.command}: error: {error}\n")
    return 0
