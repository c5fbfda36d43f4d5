"""What the commands of `zigzag` share: their help, and the options of methods."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, TypeAlias

from zigzag.evaluation.named import METHODS, make_method, name_of, refinement
from zigzag.guidance import Guidance
from zigzag.methods import Method
from zigzag.moves import Tol
from zigzag.support.commands import Parser, add_older
from zigzag.support.objects import find_object, names_object
from zigzag.zoo.learned import MODELS, best_scale

__all__ = [
    "BEST", "Commands", "add_by_model", "add_method_options", "add_option", "method_of", "option", "rule",
    "take_best_scale", "take_by_model",
]  # fmt: skip

BEST = "that of standard sampling at its best"  # what `take_best_scale` takes, in words

# The words of every command, with the names that they have in the published code and in diffusers.
_PUBLISHED = {
    "--strong": ("--gamma-1", "--gamma1", "--guidance-scale"),
    "--weak": (
        "--gamma-2", "--gamma2", "--inversion-guidance", "--inversion-guidance-scale", "--inv-guidance-scale",
    ),
    "--steps": ("--infer-step", "--inference-steps", "--num-inference-steps"),
    "--lambda": ("--lambda-step",),
    "--rounds": ("--t-max",),
    "--image-size": ("--size",),
    "--out": ("--save-dir",),
}  # fmt: skip

# Options whose default depends on the model: of a pipeline, and of a learned model (None: it has none).
_BY_MODEL: dict[str, tuple[type, Any, Any, str]] = {
    "strong": (float, 5.5, BEST, "guidance scale w of denoising, γ₁"),
    "steps": (int, 50, 20, "steps, T"),
    "image_size": (int, 1024, None, "height and width"),
    "device": (str, "cuda", "cpu", "where the model runs"),
    "dtype": (str, "float16", None, "float16, bfloat16 or float32"),
    "scheduler": (str, "keep", None, "'keep' the pipeline's own, or put 'ddim' in place of a diffusion model's"),
}


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
Adds: TypeAlias = "argparse.ArgumentParser | argparse._ArgumentGroup"


def option(name: str) -> str:
    """The option whose destination is `name`."""
    return f"--{name.replace('_', '-')}"


def add_option(parser: Adds, name: str, *older: str, **given: Any) -> None:
    """Adds an option that also goes by its published names, and by older ones, which its help does not list."""
    add_older(parser, parser.add_argument(name, **given), *_PUBLISHED.get(name, ()), *older)


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options whose destinations are the fields of the methods; None where not given."""
    options = parser.add_argument_group("options of the methods")

    def add(name: str, **given: Any) -> None:
        # No default shown: each method has its own.
        add_option(options, name, **{"default": None, "type": int, "metavar": "N", **given})

    add("--lambda", dest="method_steps", help="the step before which the method is active")
    add("--rounds", dest="method_rounds", help="rounds at a step (resampling, z)")
    add("--span", dest="method_span", help="steps down and up again (z)")
    add(
        "--refine",
        dest="method_refine",
        type=_refinement,
        metavar="N|TOL",
        help="fixed-point iterations of an inversion, 3, or the residual to bring it to, 1e-4 (z, end-to-end)",
    )
    add("--start", dest="method_start", help="the first step that shifts (implicit)")
    add("--warmup", dest="method_warmup", help="plain steps before the first shift (z2); 5, or 1 of fewer than 6 steps")
    add(
        "--strength",
        dest="method_strength",
        type=float,
        metavar="X",
        help="how much of the gap a shift applies (z2, implicit), or of a zigzag is kept (z); 1",
    )
    options.add_argument(
        "--released", dest="method_released", action="store_const", const=True, help="the released code's inverse (z)"
    )


def method_of(args: argparse.Namespace, steps: int) -> Method:
    """The method that the arguments ask for.

    Raises:
        ValueError: for an option that means nothing to it, and as the method.
    """
    prefix = "method_"
    given = {k.removeprefix(prefix): v for k, v in vars(args).items() if k.startswith(prefix) and v is not None}
    if unknown := sorted(given.keys() - {f.name for f in fields(METHODS[args.method])}):
        raise ValueError(f"--{'lambda' if unknown[0] == 'steps' else unknown[0]} means nothing to {args.method}")
    return make_method(args.method, steps, given)


def _refinement(text: str) -> int | Tol:
    try:
        return refinement(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rule(text: str) -> float | Guidance:
    """A guidance scale, or a rule of one's own as `module:object`.

    Raises:
        ArgumentTypeError: for neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    if not names_object(text):
        raise argparse.ArgumentTypeError(f"must be a number or module:object, got {text!r}")
    try:
        found = find_object("rule", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(found, Guidance):
        raise argparse.ArgumentTypeError(f"{text!r} must be a Guidance (branches() and a call), got {name_of(found)}")
    return found


def take_best_scale(args: argparse.Namespace, name: str) -> None:
    """Sets an option that was not given to the scale that is on record of the learned model."""
    if getattr(args, name) is None:
        setattr(args, name, best_scale(args.model))


def add_by_model(parser: argparse.ArgumentParser) -> None:
    """Options of whatever samples by a pipeline or a learned model; None where not given."""
    for name, (kind, pipelines, own, text) in _BY_MODEL.items():
        default = f"default: {pipelines}; " + ("not of a learned model" if own is None else f"{own} of a learned model")
        add_option(parser, option(name), type=kind, help=f"{text} ({default})")


def take_by_model(args: argparse.Namespace) -> None:
    """Sets those that were not given to the defaults of the kind of `args.model`.

    Raises:
        ValueError: for one that means nothing to it.
    """
    learned = args.model in MODELS
    if learned:
        take_best_scale(args, "strong")
    for name, (_, pipelines, own, _) in _BY_MODEL.items():
        if getattr(args, name) is None:
            setattr(args, name, own if learned else pipelines)
        elif learned and own is None:
            raise ValueError(f"{option(name)} means nothing to {args.model}")
