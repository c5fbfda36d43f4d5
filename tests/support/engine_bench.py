"""A bench of 288 images on a cheap model, as a command that takes `--out`, `--shard` and `--engine`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.evaluations import MoodyWorker, moody
from zigzag import ZSampling
from zigzag.cli.bench import run_bench
from zigzag.evaluation.bench import Plan, Tried
from zigzag.evaluation.engines import add_engine_options
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.learned_bed import LearnedBed

# Z, standard sampling, and plain CFG at the matched and at the effective scale: the last waits for all of Z.
PLAN = Plan((Tried(ZSampling(), 2),), 2.0, baselines=("standard", "matched", "effective"))
TRIALS = [Trial(72)]
IMAGES = 288


def main(words: list[str]) -> None:
    """Samples what is not on record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.set_defaults(name="bench")
    add_engine_options(parser)
    args = parser.parse_args(words)
    bed = LearnedBed(Evaluation(moody(), args.out, MoodyWorker()), TRIALS)
    print(run_bench(bed, PLAN, "A bench", args))


if __name__ == "__main__":
    main(sys.argv[1:])
