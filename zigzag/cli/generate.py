"""`zigzag generate`: the standard and the zigzag image of each prompt, by a pipeline or a learned model."""

from __future__ import annotations

import argparse
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from zigzag.cli.options import BEST, Commands, Help, add_method_options, add_option, method_of, option, take_best_scale
from zigzag.evaluation.named import METHODS
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS

__all__ = ["add"]

# Options of `generate` whose default depends on the model: of a pipeline, and of a learned model (None: it has none);
# with the names that they have in the published code and in diffusers.
_BY_MODEL: dict[str, tuple[type, Any, Any, str, tuple[str, ...]]] = {
    "strong": (float, 5.5, BEST, "guidance scale w of denoising, γ₁", ("--gamma-1", "--gamma1", "--guidance-scale")),
    "steps": (int, 50, 20, "steps, T", ("--infer-step", "--inference-steps", "--num-inference-steps")),
    "image_size": (int, 1024, None, "height and width", ("--size",)),
    "device": (str, "cuda", "cpu", "where the model runs", ()),
    "dtype": (str, "float16", None, "float16, bfloat16 or float32", ()),
    "scheduler": (str, "keep", None, "'keep' the pipeline's own, or put 'ddim' in place of a diffusion model's", ()),
}
_WEAK = ("--gamma-2", "--gamma2", "--inversion-guidance", "--inversion-guidance-scale", "--inv-guidance-scale")


def add(commands: Commands) -> None:
    """Adds the command."""
    generate = commands.add_parser(
        "generate",
        help="write the standard and the zigzag image of each prompt, by a diffusers pipeline or a learned model",
        description="Writes, for each prompt, the image of standard sampling and that of the method from the same "
        "noise, by any text-to-image pipeline of diffusers, local or from the hub, or by a learned model in the "
        f"package ({', '.join(MODELS)}). The defaults for pipelines are those of the published Z-Sampling code, which "
        "runs on --scheduler ddim; by default a pipeline keeps its own. "
        "Images that are there already are skipped. "
        "Options may go by their published names: --gamma-1 or --guidance-scale, --gamma-2 or --inversion-guidance, "
        "--infer-step, --lambda-step, --T_max, --save-dir.",
        formatter_class=Help,
    )
    model = "stabilityai/stable-diffusion-xl-base-1.0"
    generate.add_argument("--model", default=model, help=f"a folder, a name on the hub, or {' or '.join(MODELS)}")
    generate.add_argument(
        "--prompt",
        action="append",
        help="a prompt; may be repeated (default: the published three; a caption for a learned model)",
    )
    generate.add_argument("--prompt-file", type=Path, help="a text file with a prompt a line")
    generate.add_argument("--method", choices=list(METHODS), default="z", help="the method beside standard sampling")
    for name, (kind, pipelines, own, text, aliases) in _BY_MODEL.items():
        default = f"default: {pipelines}; " + ("not of a learned model" if own is None else f"{own} of a learned model")
        add_option(generate, option(name), *aliases, type=kind, help=f"{text} ({default})")
    add_option(generate, "--weak", *_WEAK, type=float, default=0.0, help="guidance scale w of inversion, γ₂")
    generate.add_argument("--seed", type=int, default=42, help="seed of the noise")
    add_option(generate, "--out", "--save-dir", type=Path, default=Path("res"), help="folder for the images")
    add_method_options(generate)
    generate.set_defaults(run=_generate)


def _generate(args: argparse.Namespace) -> None:
    prompts, learned = _prompts(args), args.model in MODELS
    if learned:
        take_best_scale(args, "strong")
    for name, (_, pipelines, own, *_) in _BY_MODEL.items():
        if getattr(args, name) is None:
            setattr(args, name, own if learned else pipelines)
        elif learned and own is None:
            raise ValueError(f"{option(name)} means nothing to {args.model}")
    generate: Any = import_module("zigzag.cli.generate_learned" if learned else "zigzag.cli.generate_pipeline")
    settings = generate.Settings(**{f.name: getattr(args, f.name) for f in fields(generate.Settings)})
    method = method_of(args, args.steps)
    generate.generate(settings, prompts or generate.PROMPTS, method, args.out, progress=on_terminal())


def _prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt or [])
    if args.prompt_file is not None:
        try:
            lines = args.prompt_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"prompt-file {args.prompt_file} is no text in UTF-8: {error}") from error
        prompts += [line for line in lines if line.strip()]
        if not prompts:
            raise ValueError(f"prompt-file {args.prompt_file} holds no prompt")
    return prompts
