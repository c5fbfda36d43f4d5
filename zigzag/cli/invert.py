"""`zigzag invert`: an image led to noise, and back under its own prompt and others."""

from __future__ import annotations

import argparse
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from zigzag.cli.options import Commands, add_option, option
from zigzag.evaluation.schemes import SCHEMES
from zigzag.zoo.learned import MODELS

__all__ = ["add"]

NEITHER: Final = "neither"

# Options that depend on the model: what they are, of a pipeline and of a learned model. NEITHER: it has no such option.
_BY_MODEL: dict[str, tuple[type, Any, Any, str]] = {
    "steps": (int, 50, 20, "steps of the grid, T"),
    "device": (str, "cuda", "cpu", "where the model runs"),
    "dtype": (str, "float16", NEITHER, "float16, bfloat16 or float32"),
    "scheduler": (str, "keep", NEITHER, "'keep' the pipeline's own, or put 'ddim' in place of a diffusion model's"),
    "weights": (Path, NEITHER, None, "weights.safetensors of the model, in place of those in the package"),
    "inverted": (Path, NEITHER, None, "an inversion.safetensors of this command, in place of an image"),
}


def add(commands: Commands) -> None:
    """Adds the command."""
    invert = commands.add_parser(
        "invert",
        help="lead an image to noise, and back: as it was, and under another prompt",
        description="Inverts an image under a model, brings it back under its own prompt (the reconstruction) and "
        f"under others (the edits), and writes the images and a report. A learned model in the package "
        f"({', '.join(MODELS)}) draws a scene that shows the prompt where there is no image, and the checker says what "
        "the images show. A scheme may have options: edict:p=0.9  rex:zeta=0.99  fixed-point:tol=1e-6,most=99.",
    )
    invert.add_argument("--model", default=MODELS[0], help=f"{' or '.join(MODELS)}; a folder, or a name on the hub")
    invert.add_argument("--image", type=Path, help="an image file; a learned model draws a scene of the prompt without")
    invert.add_argument("--prompt", required=True, help="what the image shows")
    invert.add_argument(
        "--edit", action="append", metavar="PROMPT", help="another prompt to bring it back under; may be repeated"
    )
    invert.add_argument("--scheme", default=next(iter(SCHEMES)), help=f"of {', '.join(SCHEMES)}")
    # In `zigzag generate` --guidance is the embedded scale of a distilled model: here it was once that of CFG.
    add_option(invert, "--strong", "--guidance", type=float, default=1.0, help="guidance scale w of both ways")
    add_option(invert, "--edit-strong", "--edit-guidance", type=float, help="another scale for the edits")
    for name, (kind, pipelines, own, text) in _BY_MODEL.items():
        said = [
            f"{which} has none" if value is NEITHER else f"{value} of {which}"
            for value, which in ((pipelines, "a pipeline"), (own, "a learned model"))
            if value is not None
        ]
        default = "" if pipelines is NEITHER else "default: "
        add_option(invert, option(name), type=kind, help=f"{text} ({default}{'; '.join(said)})")
    invert.add_argument("--seed", type=int, default=0, help="seed of the scene, and of the noise that a scheme draws")
    add_option(invert, "--out", type=Path, default=Path("out/invert"), help="folder for the images and the report")
    invert.set_defaults(run=_invert)


def _invert(args: argparse.Namespace) -> None:
    learned = args.model in MODELS
    for name, (_, pipelines, own, _) in _BY_MODEL.items():
        default = own if learned else pipelines
        if getattr(args, name) is None:
            setattr(args, name, default)
        elif default is NEITHER:
            raise ValueError(f"{option(name)} means nothing to {args.model}")
    args.edit = tuple(args.edit or ())
    module: Any = import_module("zigzag.cli.invert_learned" if learned else "zigzag.cli.invert_pipeline")
    settings = module.Settings(**{f.name: getattr(args, f.name) for f in fields(module.Settings)})
    module.run(settings, args.out)
