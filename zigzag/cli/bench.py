"""`zigzag bench`: methods on prompts of a file, scored, beside plain guidance that is as strong and as dear."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zigzag.cli.jobs import check_device, check_pipeline, check_size
from zigzag.cli.options import Commands, add_by_model, add_option, take_by_model
from zigzag.evaluation.engines import Failed, Shard, add_engine_options, complete, meet, sharing
from zigzag.evaluation.named import METHODS, parse_method
from zigzag.support.progress import on_terminal
from zigzag.zoo.learned import MODELS

if TYPE_CHECKING:
    from zigzag.evaluation.bench import Bed, Plan, Tried
    from zigzag.evaluation.cells import Cell

__all__ = ["add", "run_bench"]

BASELINES = "standard,matched,effective,rows"


def add(commands: Commands) -> None:
    """Adds the command."""
    bench = commands.add_parser(
        "bench",
        help="score methods on prompts of a file by a pipeline, beside plain CFG as strong and as dear",
        description="Samples every prompt at every seed by each method and by its baselines, all from the same noise; "
        "scores every image, and prints tables: means with paired intervals, winning rates with exact sign tests, by "
        "category too. Baselines: standard sampling; plain CFG at the scale that the method equals on a constant field "
        "(matched); at the scale raised by what was measured of the method (effective); with as many rows (rows). The "
        "model is any text-to-image pipeline of diffusers, local or from the hub, or a learned model in the package "
        f"({', '.join(MODELS)}), whose prompts are drawn from its grammar. Run the same command again to go on after a "
        "stop: what is there is not sampled again.",
    )
    bench.add_argument("--model", required=True, help=f"a folder, a name on the hub, or {' or '.join(MODELS)}")
    prompts = bench.add_mutually_exclusive_group(required=True)
    prompts.add_argument(
        "--prompts",
        metavar="FILE",
        help="prompts of a pipeline: .txt (one a line), GenEval's .jsonl, PartiPrompts' .tsv, a .csv",
    )
    prompts.add_argument("--count", type=int, metavar="N", help="of a learned model, how many prompts a seed")
    bench.add_argument(
        "--methods",
        nargs="+",
        default=["z", "z2"],
        metavar="METHOD[@T]",
        help=f"of {', '.join(METHODS)}, or module:object, each on T steps",
    )
    bench.add_argument("--scores", nargs="+", default=[], metavar="SCORE", help="scores, by name or module:object")
    bench.add_argument("--baselines", default=BASELINES, help="what methods are compared with, with commas between")
    bench.add_argument("--seed", "--seeds", type=int, nargs="+", default=[0], help="seeds of the noise")
    add_by_model(bench)
    add_option(bench, "--weak", type=float, default=0.0, help="guidance scale w of inversion, γ₂")
    bench.add_argument("--batch", type=int, default=1, help="prompts that a pipeline samples together, which is a cell")
    add_option(bench, "--out", type=Path, default=Path("out/bench"), help="folder of images, scores and tables")
    bench.add_argument("--name", default="bench", help="of the tables and the picture in that folder")
    bench.add_argument("--dry-run", action="store_true", help="print cells, rows and hours, and sample nothing")
    add_engine_options(bench)
    bench.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> None:
    from zigzag.evaluation.bench import Plan
    from zigzag.evaluation.estimate import estimate

    take_by_model(args)
    methods = tuple(_tried(text, args.steps) for text in dict.fromkeys(args.methods))
    plan = Plan(methods, args.strong, args.weak, tuple(filter(None, args.baselines.split(","))))
    bed = (_learned if args.model in MODELS else _pipeline)(args)
    steps = ", ".join(str(steps) for steps in dict.fromkeys(tried.steps for tried in methods))
    title = f"{args.model}, {steps} steps, strong w = {args.strong:g}, weak w = {args.weak:g}"
    if args.dry_run:
        print(f"{title}\n\n{estimate(bed, plan)}")
        return
    try:
        print(run_bench(bed, plan, title, args))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what is done is kept in {args.out}, and the same command goes on after it") from None


def run_bench(bed: Bed, plan: Plan, title: str, args: argparse.Namespace) -> str:
    """The tables, or after a shard what is to be done.

    Raises:
        Failed: after the others are done, for cells that failed every time.
        Exception: as `bench_report`.
    """
    from zigzag.evaluation.bench import Unfinished, measure
    from zigzag.evaluation.bench_report import bench_report

    failed: list[Failed] = []
    with sharing(args) as shard:

        def do(cells: Sequence[Cell]) -> None:
            try:
                complete(cells, args.engine, shard, on_terminal())
            except Failed as error:  # the others' scores are made all the same
                failed.append(error)
            meet(args)

        try:
            if shard is None:
                text = bench_report(bed, plan, title, do, args.name)
                return f"{text}\n\nwrote {bed.folder / args.name}.txt and .json"
            measure(bed, plan, do)
        except Unfinished as error:
            if failed:
                raise Failed.together(failed) from error
            if shard is None:
                raise
            return f"{_done(shard)}. {error}: when the other shards are done, {_AGAIN}"
        return f"{_done(shard)}, and so is all else. Now the same command without --shard: the tables"


_AGAIN = "run them all again, for what waits for the first (scores, the effective scales), or without --shard the rest"


def _done(shard: Shard) -> str:
    return f"shard {shard[0]}/{shard[1]}: all that could be done of it is done"


def _tried(text: str, steps: int) -> Tried:
    """A method as one word, on its own number of steps where it ends in `@T`.

    Raises:
        ValueError: for a T that is no number, and as `parse_method`.
    """
    from zigzag.evaluation.bench import Tried

    word, given, own = text.rpartition("@")
    if not given:
        return Tried(parse_method(text, steps), steps)
    if not own.isdecimal():
        raise ValueError(f"method {text!r}: what follows @ must be a number of steps, got {own!r}")
    return Tried(parse_method(word, int(own)), int(own))


def _learned(args: argparse.Namespace) -> Bed:
    from zigzag.evaluation.evaluation import Evaluation, Trial
    from zigzag.evaluation.learned_bed import LearnedBed
    from zigzag.evaluation.verdict_cells import LearnedWorker

    if args.count is None:
        if not args.prompts.isdecimal():  # a number is taken, as it was before there was --count
            raise ValueError(
                f"prompts of {args.model} are drawn from its grammar: pass how many by --count, got {args.prompts!r}"
            )
        args.count = int(args.prompts)
    if set(args.scores) - {"shapes"}:
        raise ValueError(f"scores: what {args.model} draws is judged by the checker, shapes; got {args.scores}")
    if args.batch != 1:
        raise ValueError(f"batch means nothing to {args.model}, whose batches are always the same")
    check_device(args.device, "--device cpu")
    evaluation = Evaluation.of(LearnedWorker(args.model, device=args.device), args.out)
    return LearnedBed(evaluation, [Trial(args.count, seed) for seed in args.seed])


def _pipeline(args: argparse.Namespace) -> Bed:
    from zigzag.evaluation.prompts import read_prompts

    if args.prompts is None:
        raise ValueError(f"--count means nothing to {args.model}, whose prompts are a file's: pass --prompts FILE")
    prompts = read_prompts(args.prompts)
    if args.dry_run:
        args.device = "cpu"  # what is there to be done may be asked where it is not to be done
    check_pipeline(args)
    check_size(args.image_size)
    from zigzag.evaluation.beds import PipelineBed, Shown

    shown = Shown(args.model, args.image_size, args.dtype, args.scheduler, args.device)
    scores = [] if args.dry_run else args.scores
    return PipelineBed(shown, prompts, args.seed, args.out, scores, args.batch)
