"""The command line: `zigzag demo`, `zigzag path`, `zigzag generate`."""

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
from zigzag.demo import Settings
from zigzag.drawing import draw_path
from zigzag.methods import METHODS, Method
from zigzag.rows import count_rows

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line: a usage text above it would hide what is wrong.
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zigzag", description="Zigzag sampling for diffusion and flow models.")
    parser.add_argument("--version", action="version", version=f"zigzag {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="draw real digits with all six methods from the same noise",
        description="Draws the digits 0-9 with all six methods from the same noise, with the exact predictor of "
        "scikit-learn's handwritten digits. Prints a table, and writes demo.png and demo.json.",
        formatter_class=_Help,
    )
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the picture and the figures")
    demo.add_argument("--steps", type=int, default=Settings.steps, help="steps of the grid, T")
    demo.add_argument("--per-digit", type=int, default=Settings.per_digit, help="samples of each digit")
    demo.add_argument("--strong", type=float, default=Settings.strong, help="guidance scale of Denoise")
    demo.add_argument("--weak", type=float, default=Settings.weak, help="guidance scale of Invert")
    demo.add_argument(
        "--warmup", type=int, default=Settings.warmup, help="plain steps of Z²-Sampling before its first shift"
    )
    demo.add_argument("--std", type=float, default=Settings.std, help="width of the Gaussian on each real digit")
    demo.add_argument("--seed", type=int, default=Settings.seed, help="seed of the noise")
    demo.set_defaults(run=_demo)

    path = commands.add_parser(
        "path",
        help="print the path of a method as a drawing, with its rows",
        description="Prints the path of a method as a drawing in text, noise at the top, and the model rows it takes.",
    )
    path.add_argument("method", choices=list(METHODS), help="the method")
    path.add_argument("--steps", type=int, default=8, help="steps of the grid, T (default: 8)")
    path.add_argument("--strong", type=float, default=5.5, help="guidance scale of Denoise (default: 5.5)")
    path.add_argument("--weak", type=float, default=0.0, help="guidance scale of Invert (default: 0)")
    _add_method_options(path)
    path.set_defaults(run=_path)

    generate = commands.add_parser(
        "generate",
        help="write the standard and the zigzag image of each prompt, by a diffusers pipeline",
        description="Writes, for each prompt, the image of standard sampling and that of the method from the same "
        "noise, by any text-to-image pipeline of diffusers, local or from the hub. The defaults are those of the "
        "published Z-Sampling code. Images that are there already are skipped.",
        formatter_class=_Help,
    )
    model = "stabilityai/stable-diffusion-xl-base-1.0"
    generate.add_argument("--model", default=model, help="a folder, or a name on the hub")
    generate.add_argument("--prompt", action="append", help="a prompt; may be repeated (default: the published three)")
    generate.add_argument("--prompt-file", type=Path, help="a text file with a prompt a line")
    generate.add_argument("--method", choices=list(METHODS), default="z", help="the method beside standard sampling")
    generate.add_argument("--gamma-1", type=float, default=5.5, help="guidance scale w of denoising")
    generate.add_argument("--gamma-2", type=float, default=0.0, help="guidance scale w of inversion")
    generate.add_argument("--infer-step", type=int, default=50, help="steps, T")
    generate.add_argument("--image-size", type=int, default=1024, help="height and width")
    generate.add_argument("--seed", type=int, default=42, help="seed of the noise")
    generate.add_argument("--device", default="cuda", help="where the model runs")
    generate.add_argument("--dtype", default="float16", help="float16, bfloat16 or float32")
    generate.add_argument(
        "--scheduler", default="ddim", help="'ddim', in place of any scheduler of a diffusion model, or 'keep'"
    )
    generate.add_argument("--save-dir", type=Path, default=Path("res"), help="folder for the images")
    _add_method_options(generate)
    generate.set_defaults(run=_generate)
    return parser


def _add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options whose destinations are the fields of the methods; None where not given."""
    options = parser.add_argument_group("options of the methods")

    def add(*names: str, **given: Any) -> None:
        # No default shown: each method has its own.
        options.add_argument(*names, default=None, **({"type": int} | given))

    add("--lambda", "--lambda-step", dest="method_steps", help="the step before which the method is active")
    add("--rounds", "--t-max", dest="method_rounds", help="rounds at a step (resampling, z)")
    add("--span", dest="method_span", help="steps down and up again (z)")
    add("--refine", dest="method_refine", help="fixed-point iterations of an inversion (z, end-to-end)")
    add("--start", dest="method_start", help="the first step that shifts (implicit)")
    add("--warmup", dest="method_warmup", help="plain steps before the first shift (z2); 5, or 1 of fewer than 6 steps")
    options.add_argument(
        "--released", dest="method_released", action="store_const", const=True, help="the released code's inverse (z)"
    )


def _method(args: argparse.Namespace, steps: int) -> Method:
    """The method that the arguments ask for.

    Raises:
        ValueError: for an option that means nothing to it.
    """
    kind = METHODS[args.method]
    prefix = "method_"
    given = {k.removeprefix(prefix): v for k, v in vars(args).items() if k.startswith(prefix) and v is not None}
    if unknown := sorted(given.keys() - {f.name for f in fields(kind)}):
        raise ValueError(f"--{'lambda' if unknown[0] == 'steps' else unknown[0]} means nothing to {args.method}")
    if args.method == "z2" and steps < 6:
        given.setdefault("warmup", 1)
    method: Method = kind(**given)
    return method


def _on_terminal() -> bool:
    return sys.stderr.isatty() and find_spec("tqdm") is not None


def _demo(args: argparse.Namespace) -> None:
    from zigzag import demo

    settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
    demo.require_plots()
    figures, images = demo.run(settings, progress=_on_terminal())
    picture, data = demo.write(args.out, settings, figures, images)
    print(f"{demo.table(settings, figures)}\n\nwrote {picture} and {data}")


def _path(args: argparse.Namespace) -> None:
    method = _method(args, args.steps)
    path = method.path(args.steps)
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(f"{method!r} on {args.steps} steps\n")
    print(draw_path(path, width=shutil.get_terminal_size((100, 24)).columns, ascii_only=plain))
    rows = count_rows(method, args.steps, args.strong, args.weak)
    scales = f"w = {args.strong:g} and {args.weak:g}"
    print(f"\n{len(path)} moves, {rows} rows per sample at {scales} ({rows / args.steps:g} a step)")


def _generate(args: argparse.Namespace) -> None:
    from zigzag.adapters.diffusers import generate

    prompts = list(args.prompt or [])
    if args.prompt_file is not None:
        lines = args.prompt_file.read_text(encoding="utf-8-sig").splitlines()
        prompts += [line for line in lines if line.strip()]
        if not prompts:
            raise ValueError(f"prompt-file {args.prompt_file} holds no prompt")
    settings = generate.Settings(**{f.name: getattr(args, f.name) for f in fields(generate.Settings)})
    method = _method(args, args.infer_step)
    generate.generate(settings, prompts or generate.PROMPTS, method, args.save_dir, progress=_on_terminal())


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
