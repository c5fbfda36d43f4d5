"""`zigzag path`: the path of a method as a drawing, with its rows."""

from __future__ import annotations

import argparse
import shutil
import sys

from zigzag.cli.drawing import draw_path
from zigzag.cli.options import Commands, add_method_options, add_option, method_of
from zigzag.evaluation.named import METHODS
from zigzag.evaluation.solvers import make_solver
from zigzag.moves import Renoise
from zigzag.paths import plan_path
from zigzag.rows import row_bounds
from zigzag.solvers import DDIM

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command."""
    path = commands.add_parser(
        "path",
        help="print the path of a method as a drawing, with its rows",
        description="Prints the path of a method as a drawing in text, noise at the top, and the model rows it takes.",
    )
    path.add_argument("method", choices=list(METHODS), help="the method")
    add_option(path, "--steps", type=int, default=8, help="steps of the grid, T")
    add_option(path, "--strong", type=float, default=5.5, help="guidance scale of Denoise")
    add_option(path, "--weak", type=float, default=0.0, help="guidance scale of Invert")
    path.add_argument(
        "--solver",
        help="also draw the order at which each move runs on this solver, the predictions that it combines: 2m, 3m, "
        "sde-2m, dpm:order=3, deis, lms, heun, dpm2, tcd",
    )
    add_method_options(path)
    path.set_defaults(run=_path)


def _path(args: argparse.Namespace) -> None:
    method = method_of(args, args.steps)
    path = tuple(method.path(args.steps))
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(f"{method!r} on {args.steps} steps\n")
    solver = make_solver(args.solver or "ddim", DDIM.karras(args.steps))
    steps = plan_path(path, solver)[1]
    orders = [None if isinstance(move, Renoise) else held.order for move, held in zip(path, steps, strict=True)]
    width = shutil.get_terminal_size((100, 24)).columns
    print(draw_path(path, width, plain, orders if args.solver else ()))
    bounds = sorted({*row_bounds(method, solver, args.strong, args.weak)})
    rows, each = " to ".join(map(str, bounds)), " to ".join(f"{rows / args.steps:g}" for rows in bounds)
    scales = f"w = {args.strong:g} and {args.weak:g}"
    print(f"\n{len(path)} moves, {rows} rows per sample at {scales} ({each} a step)")
