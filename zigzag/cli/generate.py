"""`zigzag generate`: the standard and the zigzag image of each prompt, by a pipeline or a learned model."""

from __future__ import annotations

import argparse
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from zigzag.cli.options import (
    Commands,
    add_by_model,
    add_method_options,
    add_option,
    method_of,
    option,
    take_by_model,
)
from zigzag.evaluation.engines import add_engine_options, sharing
from zigzag.evaluation.named import METHODS
from zigzag.methods import Method
from zigzag.support.commands import Parser
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS

__all__ = ["WEAK_OPTIONS", "add", "add_drawing_options", "settled"]

# Options that one kind of model alone has, and that change nothing where they are not given.
_PIPELINES: dict[str, tuple[type, str, str]] = {
    "negative_prompt": (str, "TEXT", "what the unconditional branch is told, where the pipeline has one"),
    "guidance": (float, "W", "the scale that a guidance-distilled model is told, where --strong is that of true CFG"),
    "weak_prompt": (str, "TEXT", "another prompt for the weak predictions"),
    "weak_negative_prompt": (str, "TEXT", "another negative prompt for the weak predictions"),
    "weak_guidance": (float, "W", "another scale that a guidance-distilled model is told for the weak predictions"),
}
_ADAPTERS = {
    "adapter": ("NAME=PLACE", "LoRA weights to load under a name: a file, a folder, a name on the hub"),
    "strong_adapter": ("NAME=X", "the strength of a LoRA in the strong predictions; of those not named 0"),
    "weak_adapter": ("NAME=X", "its strength in the weak predictions; of those not named 0"),
}
_LEARNED: dict[str, tuple[type, str, str]] = {
    "solver": (
        str,
        "NAME",
        "the steps on the model's grid: ddim:eta=1, 2m, sde-2m, heun, dpm2, lcm, tcd, deis, dpm:order=3",
    ),
}
WEAK_OPTIONS = ("weak_prompt", "weak_negative_prompt", "weak_guidance", "weak_adapter")


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
    )
    add_drawing_options(generate)
    generate.add_argument("--prompt-file", type=Path, help="a text file with a prompt a line")
    add_option(generate, "--out", type=Path, default=Path("res"), help="folder for the images")
    add_engine_options(generate)
    generate.set_defaults(run=_generate)


def add_drawing_options(parser: Parser) -> None:
    """Adds the options that an image depends on: those of `Settings`, its prompt, and its method."""
    model = "stabilityai/stable-diffusion-xl-base-1.0"
    parser.add_argument("--model", default=model, help=f"a folder, a name on the hub, or {' or '.join(MODELS)}")
    parser.add_argument(
        "--prompt",
        action="append",
        help="a prompt; may be repeated (default: the published three; a caption for a learned model)",
    )
    parser.add_argument("--method", choices=list(METHODS), default="z", help="the method beside standard sampling")
    add_by_model(parser)
    weak = "guidance scale w of inversion, γ₂ (default: 0; as the pipeline, where another --weak-… is given)"
    add_option(parser, "--weak", type=float, help=weak)
    parser.add_argument("--seed", type=int, default=42, help="seed of the noise")
    add_method_options(parser)
    for title, known in (("of pipelines", _PIPELINES), ("of learned models", _LEARNED)):
        group = parser.add_argument_group(f"options {title}")
        for name, (kind, metavar, text) in known.items():
            group.add_argument(option(name), type=kind, metavar=metavar, help=text)
        for name, (metavar, text) in _ADAPTERS.items() if known is _PIPELINES else ():
            group.add_argument(option(name), action="append", metavar=metavar, help=f"{text}; may be repeated")


def _generate(args: argparse.Namespace) -> None:
    prompts = _prompts(args)
    generate, settings, method = settled(args)
    with sharing(args) as shard:
        generate.generate(
            settings, prompts or generate.PROMPTS, method, args.out, progress=on_terminal(),
            engine=args.engine, shard=shard,
        )  # fmt: skip


def settled(args: argparse.Namespace) -> tuple[Any, Any, Method]:
    """What the options ask for: the module that draws by that kind of model, its `Settings`, and the method.

    Raises:
        ValueError: for options that do not fit the model or the method, and as the settings and the method.
    """
    learned = args.model in MODELS
    take_by_model(args)
    for name in (*_PIPELINES, *_ADAPTERS) if learned else _LEARNED:
        if getattr(args, name) is not None:
            raise ValueError(f"{option(name)} means nothing to {args.model}")
    for name in _ADAPTERS:
        setattr(args, name, tuple(getattr(args, name) or ()))
    if args.weak is None and not any(getattr(args, n) not in (None, ()) for n in WEAK_OPTIONS):
        args.weak = 0.0
    generate: Any = import_module("zigzag.cli.generate_learned" if learned else "zigzag.cli.generate_pipeline")
    settings = generate.Settings(**{f.name: getattr(args, f.name) for f in fields(generate.Settings)})
    return generate, settings, method_of(args, args.steps)


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
