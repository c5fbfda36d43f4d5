"""`python -m zigzag.evaluation.studies gap`: a study of the papers on a learned model, as a table and a picture."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from zigzag.evaluation.engines import Failed, Shard, add_engine_options, sharing
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.report import report, samplers_of
from zigzag.evaluation.studies.picture import draw_study
from zigzag.evaluation.studies.sweeps import STUDIES
from zigzag.evaluation.verdict_cells import LearnedWorker
from zigzag.support.commands import Parser, add_older, ending
from zigzag.support.extras import require_figure
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS, best_scale

__all__ = ["main"]

# 1,800 pairs for what is claimed: 600 resolve about 3 points.
SEEDS = dict.fromkeys(("headline", "solvers", "strengths", "partial", "w2sd"), (0, 1, 2))
# Those of both models: their scale is the one on record.
BY_MODEL = (
    "headline",
    "ancestral",
    "budget",
    "strengths",
    "partial",
    "weak-scales",
    "weak-scales-implicit",
    "weak-scales-solvers",
    "weak-scales-end-to-end",
    "weak-scales-end-to-end-solvers",
    "w2sd",
    *(f"{kind}{T}" for kind in ("solvers", "methods", "matched") for T in ("", "-20")),
)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m zigzag.evaluation.studies",
        description="Runs studies of the papers, and writes tables and pictures. Run it again to go on after a stop.",
    )
    parser.add_argument("studies", nargs="+", choices=[*STUDIES, "attention", "all"], metavar="study", help="; ".join(
        [*(f"{name}: {make().title}" for name, make in STUDIES.items()), "attention: cross-attention maps", "all"]
    ))  # fmt: skip
    parser.add_argument("--model", choices=MODELS, default="shapes-unet", help="the model")
    count = parser.add_argument("--count", type=int, default=600, metavar="N", help="prompts a seed")
    add_older(parser, count, "--prompts")
    parser.add_argument(
        "--out", type=Path, default=Path("out/studies"), help="folder; what is there is not sampled again"
    )
    many = " and ".join(SEEDS)
    parser.add_argument(
        "--seed", "--seeds", type=int, nargs="+", help=f"seeds of prompts and noise (default: 0; 0 1 2 of {many})"
    )
    parser.add_argument("--amp", action="store_true", help="matrix products in bfloat16, but for the study inversion")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the model runs")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: torch's)")
    add_engine_options(parser)
    return parser


def main() -> None:
    """The command line; exits with 2 and one line on bad input, with 130 when interrupted."""
    parser = _parser()
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    names = [*STUDIES, "attention"] if "all" in args.studies else args.studies
    with ending(parser.prog, f"finished batches are kept in {args.out}, and the same command goes on after them"):
        if args.model == "shapes-dit" and (others := [name for name in names if name == "attention"]):
            raise ValueError(f"{others[0]} is a study of shapes-unet: name the others, for {args.model}")
        evaluation = Evaluation.of(LearnedWorker(args.model, device=args.device), args.out)
        with sharing(args) as shard:
            _every(names, evaluation, args, shard)


def _every(names: Sequence[str], evaluation: Evaluation, args: argparse.Namespace, shard: Shard | None) -> None:
    failed: list[Failed] = []
    for name in names:
        try:
            print(_one(name, evaluation, args, shard) + "\n", flush=True)
        except Failed as error:  # the other studies are done all the same
            failed.append(error)
    if failed:
        raise Failed.together(failed)


def _one(name: str, evaluation: Evaluation, args: argparse.Namespace, shard: Shard | None) -> str:
    begin = time.monotonic()
    if name == "attention" and shard is not None:
        text = "attention is not cut into shards: it is left to the same command without --shard"
    elif name == "attention":
        from zigzag.evaluation.studies import attention

        try:
            text = attention.run(evaluation.model, args.out)
        except KeyboardInterrupt:  # it has no batches that could be gone on after
            kept = f"attention is kept when it is done, and finished batches of other studies are in {args.out}"
            raise KeyboardInterrupt(kept) from None
    else:
        require_figure()
        study = STUDIES[name](best_scale(args.model)) if name in BY_MODEL else STUDIES[name]()
        trials = [Trial(args.count, seed, args.amp and not study.exact) for seed in args.seed or SEEDS.get(name, (0,))]
        stem = f"{name}-{args.model}"
        title = f"{study.title} ({study.source})"
        if shard is not None:
            said = evaluation.run_shard(samplers_of(study.lines), trials, shard, on_terminal(), args.engine)
            return f"{title}: {said}"
        text, results = report(evaluation, stem, title, study.lines, trials, study.errors, on_terminal(), args.engine)
        draw_study(args.out / f"{stem}.png", study, results, args.model)
    return f"{text}\n{name}: {time.monotonic() - begin:.0f} s"


if __name__ == "__main__":
    main()
