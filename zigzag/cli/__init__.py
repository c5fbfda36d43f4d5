"""The command line: `zigzag demo`, `zigzag path`, `zigzag generate`, `zigzag play`, `zigzag invert`, …"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence

from zigzag import __version__
from zigzag.support.commands import Parser, ending

__all__ = ["main"]


def _parser() -> Parser:
    from zigzag.cli import bench, demo, evaluate, generate, invert, path, play

    parser = Parser(prog="zigzag", description="Zigzag sampling for diffusion and flow models.")
    parser.add_argument("--version", action="version", version=f"zigzag {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in (demo, path, generate, play, invert, evaluate, bench):
        command.add(commands)
    for own in commands.choices.values():
        own.set_defaults(parser=own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Raises:
        SystemExit: with one line on standard error, and 2 for bad input, 130 when interrupted.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a λ still gets the rest
    with ending("zigzag"):  # the commands are imported in here: that takes long enough to be stopped in
        words = [_spelt(word) for word in (sys.argv[1:] if argv is None else argv)]
        args, unknown = _parser().parse_known_args(words)
        if unknown:  # argparse itself would name the help of `zigzag` alone
            args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    with ending(args.parser.prog):
        args.run(args)
    return 0


def _spelt(word: str) -> str:
    """An option as it is spelt here: `--T_max=2` and `--lambda_step` have dashes and small letters."""
    return re.sub(r"^--[A-Za-z][\w-]*(?=$|=)", lambda option: option[0].replace("_", "-").lower(), word)
