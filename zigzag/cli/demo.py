"""`zigzag demo`: a page of prompts drawn with all methods from the same noise."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from zigzag.cli.options import BEST, Commands, add_option, take_best_scale
from zigzag.evaluation.demo import Settings
from zigzag.support.extras import require_figure
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command."""
    demo = commands.add_parser(
        "demo",
        help="draw a page of prompts with all six methods from the same noise",
        description="Draws prompts of the world of shapes with all six methods from the same noise, by a learned "
        "model, and has each image judged by the checker. Prints a table, and writes demo.png and demo.json.",
    )
    demo.add_argument("--model", choices=MODELS, default=Settings.model, help="the learned model")
    add_option(demo, "--steps", type=int, default=Settings.steps, help="steps of the grid, T")
    count = "captions drawn of each category"
    add_option(demo, "--count", "--prompts", type=int, default=Settings.prompts, metavar="N", help=count)
    demo.add_argument("--prompt", action="append", help="a caption in place of those drawn; may be repeated")
    add_option(demo, "--strong", type=float, help=f"guidance scale of Denoise (default: {BEST})")
    add_option(demo, "--weak", type=float, default=Settings.weak, help="guidance scale of Invert")
    demo.add_argument(
        "--warmup", type=int, default=Settings.warmup, help="plain steps of Z²-Sampling before its first shift"
    )
    demo.add_argument("--seed", type=int, default=Settings.seed, help="seed of captions and noise")
    add_option(demo, "--out", type=Path, default=Path("out/demo"), help="folder for the page and the figures")
    demo.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> None:
    from zigzag.evaluation import demo

    args.prompt, args.prompts = tuple(args.prompt or ()), args.count
    take_best_scale(args, "strong")
    settings = Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})
    require_figure()
    texts, figures, images = demo.run(settings, progress=on_terminal(), out=args.out)
    picture, data = demo.write(args.out, settings, texts, figures, images)
    print(f"{demo.table(settings, texts, figures)}\n\nwrote {picture} and {data}")
