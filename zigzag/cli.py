"""The command line: `zigzag demo`, `zigzag path`."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from zigzag import __version__

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line: a usage text above it would hide what is wrong.
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zigzag", description="Zigzag sampling for diffusion and flow models.")
    parser.add_argument("--version", action="version", version=f"zigzag {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="draw real digits with all six methods from the same noise",
        description="Draws the digits 0-9 with all six methods from the same noise, with the exact predictor of "
        "scikit-learn's handwritten digits. Prints a table, and writes demo.png and demo.json.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the picture and the figures")
    demo.add_argument("--steps", type=int, default=4, help="steps of the grid, T")
    demo.add_argument("--per-digit", type=int, default=20, help="samples of each digit")
    demo.add_argument("--strong", type=float, default=5.5, help="guidance scale of Denoise")
    demo.add_argument("--weak", type=float, default=0.0, help="guidance scale of Invert")
    demo.add_argument("--warmup", type=int, default=1, help="plain steps of Z²-Sampling before its first shift")
    demo.add_argument("--std", type=float, default=0.1, help="width of the Gaussian on each real digit")
    demo.add_argument("--seed", type=int, default=0, help="seed of the noise")
    demo.set_defaults(run=_demo)

    path = commands.add_parser(
        "path",
        help="print the path of a method as a drawing, with its rows",
        description="Prints the path of a method as a drawing in text, noise at the top, and the model rows it takes.",
    )
    path.add_argument("method", choices=list(_methods()), help="the method")
    path.add_argument("--steps", type=int, default=8, help="steps of the grid, T (default: 8)")
    path.add_argument("--lambda", dest="lam", type=int, help="steps at which the method is active, the paper's λ")
    path.add_argument("--rounds", type=int, help="rounds at a step (resampling, z)")
    path.add_argument("--span", type=int, help="steps down and up again (z)")
    path.add_argument("--refine", type=int, help="fixed-point iterations of an inversion (z, end-to-end)")
    path.add_argument("--released", action="store_true", default=None, help="the released code's inverse (z)")
    path.add_argument("--start", type=int, help="first step that shifts (implicit)")
    path.add_argument(
        "--warmup", type=int, help="plain steps before the first shift (z2; default: 5, or 1 below 6 steps)"
    )
    path.add_argument("--strong", type=float, default=5.5, help="guidance scale of Denoise (default: 5.5)")
    path.add_argument("--weak", type=float, default=0.0, help="guidance scale of Invert (default: 0)")
    path.set_defaults(run=_path)
    return parser


def _methods() -> dict[str, Any]:
    from zigzag import methods

    return {
        "standard": methods.Standard,
        "resampling": methods.Resampling,
        "end-to-end": methods.EndToEnd,
        "z": methods.ZSampling,
        "implicit": methods.ImplicitZ,
        "z2": methods.Z2Sampling,
    }


def _demo(args: argparse.Namespace) -> None:
    from zigzag import demo

    settings = demo.Settings(**{f.name: getattr(args, f.name) for f in fields(demo.Settings)})
    demo.require_plots()
    figures, images = demo.run(settings, progress=sys.stderr.isatty() and find_spec("tqdm") is not None)
    picture, data = demo.write(args.out, settings, figures, images)
    print(f"{demo.table(settings, figures)}\n\nwrote {picture} and {data}")


def _path(args: argparse.Namespace) -> None:
    from zigzag.drawing import draw_path
    from zigzag.rows import count_rows

    kind = _methods()[args.method]
    given = {"steps": args.lam} | {
        k: getattr(args, k) for k in ("rounds", "span", "refine", "released", "start", "warmup")
    }
    given = {name: value for name, value in given.items() if value is not None}
    known = {f.name for f in fields(kind)}
    if unknown := [name for name in given if name not in known]:
        option = "lambda" if unknown[0] == "steps" else unknown[0]
        raise ValueError(f"--{option} means nothing to {args.method}")
    if args.method == "z2" and args.steps < 6:
        given.setdefault("warmup", 1)
    method = kind(**given)
    path = method.path(args.steps)
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(f"{method!r} on {args.steps} steps\n")
    print(draw_path(path, width=shutil.get_terminal_size((100, 24)).columns, ascii_only=plain))
    rows = count_rows(method, args.steps, args.strong, args.weak)
    scales = f"w = {args.strong:g} and {args.weak:g}"
    print(f"\n{len(path)} moves, {rows} rows per sample at {scales} ({rows / args.steps:g} a step)")


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
    except (ValueError, TypeError, OSError, ImportError) as error:
        parser.exit(2, f"zigzag {args.command}: error: {error}\n")
    return 0
