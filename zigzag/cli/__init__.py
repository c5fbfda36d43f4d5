"""The command line: `zigzag demo`, `zigzag path`, `zigzag generate`, `zigzag eval`."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zigzag import __version__
from zigzag.cli.demo import Settings as DemoSettings
from zigzag.cli.drawing import draw_path
from zigzag.evaluation.named import METHODS, make_method, parse_method
from zigzag.methods import Method
from zigzag.rows import count_rows
from zigzag.support.extras import require_figure
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS, best_scale

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # One line: a usage text above it would hide what is wrong.
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


_BEST = "that of standard sampling at its best"  # what `_take_best_scale` takes, in words

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[_Parser]


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="zigzag", description="Zigzag sampling for diffusion and flow models.")
    parser.add_argument("--version", action="version", version=f"zigzag {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (_add_demo, _add_path, _add_generate, _add_eval):
        add(commands)
    return parser


def _add_demo(commands: _Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="draw a page of prompts with all six methods from the same noise",
        description="Draws prompts of the world of shapes with all six methods from the same noise, by a learned "
        "model, and has each image judged by the checker. Prints a table, and writes demo.png and demo.json.",
        formatter_class=_Help,
    )
    demo.add_argument("--model", choices=MODELS, default=DemoSettings.model, help="the learned model")
    demo.add_argument("--steps", type=int, default=DemoSettings.steps, help="steps of the grid, T")
    demo.add_argument("--prompts", type=int, default=DemoSettings.prompts, help="captions drawn of each category")
    demo.add_argument("--prompt", action="append", help="a caption in place of those drawn; may be repeated")
    demo.add_argument("--strong", type=float, help=f"guidance scale of Denoise (default: {_BEST})")
    demo.add_argument("--weak", type=float, default=DemoSettings.weak, help="guidance scale of Invert")
    demo.add_argument(
        "--warmup", type=int, default=DemoSettings.warmup, help="plain steps of Z²-Sampling before its first shift"
    )
    demo.add_argument("--seed", type=int, default=DemoSettings.seed, help="seed of captions and noise")
    demo.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the page and the figures")
    demo.set_defaults(run=_demo)


def _add_path(commands: _Commands) -> None:
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


# Options of `generate` whose default depends on the model: of a pipeline, and of a learned model (None: it has none).
_BY_MODEL: dict[str, tuple[type, Any, Any, str]] = {
    "gamma_1": (float, 5.5, _BEST, "guidance scale w of denoising"),
    "infer_step": (int, 50, 20, "steps, T"),
    "image_size": (int, 1024, None, "height and width"),
    "device": (str, "cuda", "cpu", "where the model runs"),
    "dtype": (str, "float16", None, "float16, bfloat16 or float32"),
    "scheduler": (str, "ddim", None, "'ddim', in place of any scheduler of a diffusion model, or 'keep'"),
}


def _add_generate(commands: _Commands) -> None:
    generate = commands.add_parser(
        "generate",
        help="write the standard and the zigzag image of each prompt, by a diffusers pipeline or a learned model",
        description="Writes, for each prompt, the image of standard sampling and that of the method from the same "
        "noise, by any text-to-image pipeline of diffusers, local or from the hub, or by a learned model in the "
        f"package ({', '.join(MODELS)}). The defaults for pipelines are those of the published Z-Sampling code. "
        "Images that are there already are skipped.",
        formatter_class=_Help,
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
    for name, (kind, pipelines, own, text) in _BY_MODEL.items():
        default = f"default: {pipelines}; " + ("not of a learned model" if own is None else f"{own} of a learned model")
        generate.add_argument(_option(name), type=kind, help=f"{text} ({default})")
    generate.add_argument("--gamma-2", type=float, default=0.0, help="guidance scale w of inversion")
    generate.add_argument("--seed", type=int, default=42, help="seed of the noise")
    generate.add_argument("--save-dir", type=Path, default=Path("res"), help="folder for the images")
    _add_method_options(generate)
    generate.set_defaults(run=_generate)


def _add_eval(commands: _Commands) -> None:
    evaluate = commands.add_parser(
        "eval",
        help="measure methods on a learned model, beside plain CFG at the matched scale and with the same rows",
        description="Samples prompts of the six categories by each method, by plain CFG at the scale that the method "
        "amounts to, and by plain CFG with as many rows, all from the same noise; has every image judged by the "
        "checker, and prints a table. Run the same command again to go on after a stop: what is there is not sampled "
        "again. A method may have options: z:span=2,refine=1  z:released  z2:warmup=2.",
        formatter_class=_Help,
    )
    evaluate.add_argument("--model", choices=MODELS, default=MODELS[0], help="the learned model")
    evaluate.add_argument("--weights", type=Path, help="its weights.safetensors (default: those in the package)")
    evaluate.add_argument(
        "--methods", nargs="+", default=list(METHODS)[1:], metavar="METHOD", help=f"of {', '.join(METHODS)}"
    )
    evaluate.add_argument("--steps", type=int, default=20, help="steps of the grid, T")
    evaluate.add_argument("--prompts", type=int, default=600, help="prompts a seed, shared among the categories")
    evaluate.add_argument("--strong", type=float, help=f"guidance scale of Denoise (default: {_BEST})")
    evaluate.add_argument("--weak", type=float, default=0.0, help="guidance scale of Invert")
    evaluate.add_argument("--seed", type=int, nargs="+", default=[0], help="seeds of prompts and noise")
    evaluate.add_argument("--amp", action="store_true", help="matrix products in bfloat16")
    evaluate.add_argument("--device", default="cpu", help="where the model runs")
    evaluate.add_argument("--out", type=Path, default=Path("out/eval"), help="folder of verdicts, timings and table")
    evaluate.set_defaults(run=_eval)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
        ValueError: for an option that means nothing to it, and as the method.
    """
    prefix = "method_"
    given = {k.removeprefix(prefix): v for k, v in vars(args).items() if k.startswith(prefix) and v is not None}
    if unknown := sorted(given.keys() - {f.name for f in fields(METHODS[args.method])}):
        raise ValueError(f"--{'lambda' if unknown[0] == 'steps' else unknown[0]} means nothing to {args.method}")
    return make_method(args.method, steps, given)


def _take_best_scale(args: argparse.Namespace, name: str) -> None:
    """Sets an option that was not given to the scale that is on record of the learned model."""
    if getattr(args, name) is None:
        setattr(args, name, best_scale(args.model))


def _demo(args: argparse.Namespace) -> None:
    from zigzag.cli import demo

    args.prompt = tuple(args.prompt or ())
    _take_best_scale(args, "strong")
    settings = DemoSettings(**{f.name: getattr(args, f.name) for f in fields(DemoSettings)})
    require_figure()
    texts, figures, images = demo.run(settings, progress=on_terminal(), out=args.out)
    picture, data = demo.write(args.out, settings, texts, figures, images)
    print(f"{demo.table(settings, texts, figures)}\n\nwrote {picture} and {data}")


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
    prompts, learned = _prompts(args), args.model in MODELS
    if learned:
        _take_best_scale(args, "gamma_1")
    for name, (_, pipelines, own, _) in _BY_MODEL.items():
        if getattr(args, name) is None:
            setattr(args, name, own if learned else pipelines)
        elif learned and own is None:
            raise ValueError(f"{_option(name)} means nothing to {args.model}")
    generate: Any = import_module("zigzag.cli.generate_learned" if learned else "zigzag.cli.generate_pipeline")
    settings = generate.Settings(**{f.name: getattr(args, f.name) for f in fields(generate.Settings)})
    method = _method(args, args.infer_step)
    generate.generate(settings, prompts or generate.PROMPTS, method, args.save_dir, progress=on_terminal())


def _eval(args: argparse.Namespace) -> None:
    from zigzag.cli.jobs import check_device
    from zigzag.evaluation.compare import lines
    from zigzag.evaluation.evaluation import Evaluation, Trial
    from zigzag.evaluation.report import report
    from zigzag.zoo.learned import load

    _take_best_scale(args, "strong")
    trials = [Trial(args.prompts, seed, args.amp) for seed in dict.fromkeys(args.seed)]
    methods = [parse_method(text, args.steps) for text in dict.fromkeys(args.methods)]
    every = lines(methods, args.steps, args.strong, args.weak)
    check_device(args.device, "--device cpu")
    evaluation = Evaluation(load(args.model, args.weights, args.device), args.out)
    title = f"{args.model}, {args.steps} steps, strong w = {args.strong:g}, weak w = {args.weak:g}"
    try:
        text, _ = report(evaluation, "table", title, every, trials, progress=on_terminal())
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on after the last finished batch in {args.out}", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{text}\n\nwrote {args.out / 'table.txt'}, table.json and verdicts/")


def _prompts(args: argparse.Namespace) -> list[str]:
    prompts = list(args.prompt or [])
    if args.prompt_file is not None:
        lines = args.prompt_file.read_text(encoding="utf-8-sig").splitlines()
        prompts += [line for line in lines if line.strip()]
        if not prompts:
            raise ValueError(f"prompt-file {args.prompt_file} holds no prompt")
    return prompts


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
