"""`zigzag invert`: an image led to noise, and back under its own prompt and others."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from zigzag.cli.options import Commands, Help
from zigzag.evaluation.schemes import SCHEMES
from zigzag.zoo.learned import MODELS

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Adds the command."""
    invert = commands.add_parser(
        "invert",
        help="lead an image to noise, and back: as it was, and under another prompt",
        description="Inverts an image under a learned model, brings it back under its own prompt (the reconstruction) "
        "and under others (the edits), and writes the images and a report. Without an image the scene that the prompt "
        "says is drawn. The checker says what the images show. A scheme may have options: edict:p=0.9  rex:zeta=0.99  "
        "fixed-point:tol=1e-6,most=99.",
        formatter_class=Help,
    )
    invert.add_argument("--model", default=MODELS[0], help=f"the learned model, {' or '.join(MODELS)}")
    invert.add_argument("--weights", type=Path, help="its weights.safetensors (default: those in the package)")
    invert.add_argument("--image", type=Path, help="an image file (default: a scene is drawn that shows the prompt)")
    invert.add_argument("--prompt", required=True, help="what the image shows")
    invert.add_argument("--edit", action="append", default=None, help="another prompt to bring it back under; may be "
                        "repeated")  # fmt: skip
    invert.add_argument("--scheme", default=next(iter(SCHEMES)), help=f"of {', '.join(SCHEMES)}")
    invert.add_argument("--steps", type=int, default=20, help="steps of the grid, T")
    invert.add_argument("--guidance", type=float, default=1.0, help="guidance scale w of both ways")
    invert.add_argument("--edit-guidance", type=float, help="another scale for the edits")
    invert.add_argument("--inverted", type=Path, help="an inversion.safetensors of this command, in place of an image")
    invert.add_argument("--seed", type=int, default=0, help="seed of the scene, and of the noise that a scheme draws")
    invert.add_argument("--device", default="cpu", help="where the model runs")
    invert.add_argument("--out", type=Path, default=Path("out/invert"), help="folder for the images and the report")
    invert.set_defaults(run=_invert)


def _invert(args: argparse.Namespace) -> None:
    if args.model not in MODELS:
        raise ValueError(
            f"model must be {' or '.join(MODELS)}, got {args.model!r}; a pipeline of diffusers is inverted in Python, "
            "see docs/inversion.md"
        )
    from zigzag.cli import invert_learned

    args.edit = tuple(args.edit or ())
    names = [field.name for field in fields(invert_learned.Settings)]
    invert_learned.run(invert_learned.Settings(**{name: getattr(args, name) for name in names}), args.out)
