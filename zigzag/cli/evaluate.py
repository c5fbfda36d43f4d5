"""`zigzag eval`: methods measured on a learned model."""

from __future__ import annotations

import argparse
from pathlib import Path

from zigzag.cli.options import BEST, Commands, add_option, rule, take_best_scale
from zigzag.evaluation.engines.options import add_engine_options, sharing
from zigzag.evaluation.named import METHODS, name_of, parse_method
from zigzag.evaluation.solvers import SOLVERS, Made, solver_label
from zigzag.guidance import Guidance
from zigzag.support.objects import find_object, names_object
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS

__all__ = ["add"]

ROLES = ("weak_prompt", "weak_negative_prompt", "plain", "plain_prompt", "plain_negative_prompt")


def add(commands: Commands) -> None:
    """Adds the command."""
    evaluate = commands.add_parser(
        "eval",
        help="measure methods on a learned model, beside plain CFG at the matched scale and with the same rows",
        description="Samples prompts of the six categories by each method, by plain CFG at the scale that the method "
        "amounts to, and by plain CFG with as many rows, all from the same noise; has every image judged by the "
        "checker, and prints a table. Run the same command again to go on after a stop: what is there is not sampled "
        "again. A method may have options: z:span=2,refine=1  z:released  z2:warmup=2. Methods, guidance rules and "
        "solvers of your own are module:object, found from the current folder.",
    )
    evaluate.add_argument("--model", choices=MODELS, default=MODELS[0], help="the learned model")
    evaluate.add_argument("--weights", type=Path, help="its weights.safetensors (default: those in the package)")
    evaluate.add_argument(
        "--methods",
        nargs="+",
        default=list(METHODS)[1:],
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}; or module:object",
    )
    evaluate.add_argument(
        "--solver",
        default="ddim",
        help="the solver: ddim (the model's own, first order), ddim:eta=1, "
        "2m, 3m, sde-2m, deis, lms, plms, heun, dpm2, lcm, tcd, or with options: dpm:order=2,sde,fresh, "
        "dpm:lower_order_final=no,euler_at_final, tcd:gamma=0.5; or module:object, a Solver or a function of the "
        "model's own",
    )
    add_option(evaluate, "--steps", type=int, default=20, help="steps of the grid, T")
    count = "prompts a seed, shared among the categories"
    add_option(evaluate, "--count", "--prompts", type=int, default=600, metavar="N", help=count)
    add_option(
        evaluate,
        "--strong",
        type=rule,
        metavar="W",
        help=f"guidance scale of Denoise, or module:object (default: {BEST})",
    )
    add_option(
        evaluate, "--weak", type=rule, metavar="W", default=0.0, help="guidance scale of Invert, or module:object"
    )
    evaluate.add_argument("--weak-prompt", metavar="TEXT", help="prompt of Invert (default: that of the sample)")
    evaluate.add_argument("--weak-negative-prompt", metavar="TEXT", help="of its unconditional branch (default: none)")
    evaluate.add_argument(
        "--plain",
        type=rule,
        metavar="W",
        help="guidance scale of plain Denoise moves (--methods z:plain), or module:object (default: that of --strong)",
    )
    evaluate.add_argument("--plain-prompt", metavar="TEXT", help="prompt of plain Denoise moves")
    evaluate.add_argument("--plain-negative-prompt", metavar="TEXT", help="of their unconditional branch")
    evaluate.add_argument("--seed", "--seeds", type=int, nargs="+", default=[0], help="seeds of prompts and noise")
    evaluate.add_argument("--amp", action="store_true", help="matrix products in bfloat16")
    evaluate.add_argument("--device", default="cpu", help="where the model runs")
    add_option(evaluate, "--out", type=Path, default=Path("out/eval"), help="folder of verdicts, timings and table")
    add_engine_options(evaluate)
    evaluate.set_defaults(run=_eval)


def _solver(text: str) -> Made:
    known = text.partition(":")[0] in SOLVERS
    return text if known or not names_object(text) else find_object("--solver", text)


def _said(guidance: float | Guidance) -> str:
    return f"w = {guidance:g}" if isinstance(guidance, float) else name_of(guidance)


def _eval(args: argparse.Namespace) -> None:
    from zigzag.cli.jobs import check_device
    from zigzag.evaluation.compare import lines
    from zigzag.evaluation.evaluation import Evaluation, Trial
    from zigzag.evaluation.report import report, samplers_of
    from zigzag.evaluation.verdict_cells import LearnedWorker

    take_best_scale(args, "strong")
    trials = [Trial(args.count, seed, args.amp) for seed in dict.fromkeys(args.seed)]
    methods = [parse_method(text, args.steps) for text in dict.fromkeys(args.methods)]
    check_device(args.device, "--device cpu")
    solver = _solver(args.solver)
    evaluation = Evaluation.of(LearnedWorker(args.model, args.weights, args.device), args.out)
    own = evaluation.model.solver
    roles = {name: value for name in ROLES if (value := getattr(args, name)) is not None}
    every = lines(methods, args.steps, args.strong, args.weak, solver, own, **roles)
    scales = f"strong {_said(args.strong)}, weak {_said(args.weak)}"
    for name, value in roles.items():
        scales += f", {name.replace('_', ' ')} {_said(value) if name == 'plain' else repr(value)}"
    title = f"{args.model}, {args.steps} steps, {solver_label(solver)}, {scales}"
    try:
        with sharing(args) as shard:
            if shard is not None:
                print(evaluation.run_shard(samplers_of(every), trials, shard, on_terminal(), args.engine))
                return
            text, _ = report(evaluation, "table", title, every, trials, progress=on_terminal(), engine=args.engine)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"finished batches are kept in {args.out}, and the same command goes on after them"
        ) from None
    print(f"{text}\n\nwrote {args.out / 'table.txt'}, table.json and verdicts/")
