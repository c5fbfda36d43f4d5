"""A bench of 288 images on a cheap model, as a command that takes a folder, `--shard` and `--engine`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.evaluations import moody
from zigzag import Standard, Z2Sampling, ZSampling
from zigzag.evaluation.engines import add_engine_options, sharing
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.zoo.learned import LearnedModel

SAMPLERS = [Sampler(method, 2, 2.0) for method in (Standard(), ZSampling(), Z2Sampling(warmup=1))]
TRIALS = [Trial(48), Trial(48, seed=1)]
IMAGES = 288


@dataclass(frozen=True)
class MoodyWorker:
    """Makes the model where it is needed."""

    def load(self) -> LearnedModel:
        return moody()


def main(words: list[str]) -> None:
    """Samples what is not on record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    add_engine_options(parser)
    args = parser.parse_args(words)
    # As the module that workers find, not as the script that this may be.
    from support.engine_bench import MoodyWorker

    evaluation = Evaluation(moody(), args.folder, MoodyWorker())
    with sharing(args) as shard:
        if shard is None:
            count = sum(
                len(result.verdicts) for result in evaluation.run(SAMPLERS, TRIALS, engine=args.engine).values()
            )
            assert count == IMAGES
        else:
            print(evaluation.run_shard(SAMPLERS, TRIALS, shard, engine=args.engine))


if __name__ == "__main__":
    main(sys.argv[1:])
