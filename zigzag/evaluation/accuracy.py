"""`python -m zigzag.evaluation.accuracy shapes-unet`: how often standard sampling draws what the prompt says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from zigzag.evaluation.samplers import Sampler
from zigzag.methods import Standard
from zigzag.support.commands import Parser, add_older, ending
from zigzag.zoo.learned import MODELS, LearnedModel, best_scale, load
from zigzag.zoo.shapes import CATEGORIES, check, draw_caption

__all__ = ["Score", "accuracy", "batches", "main", "noise", "prompts", "shares", "wilson"]

BATCH = 60


@dataclass(frozen=True)
class Score:
    """How many of `count` images were right."""

    right: int
    count: int

    @property
    def share(self) -> float:
        """The share that was right."""
        return self.right / self.count


def wilson(score: Score, z: float = 1.959964) -> tuple[float, float]:
    r"""Wilson's 95 % interval of a share `p = right/n`.

    .. math:: \frac{p + z^2/2n \pm z\sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}

    Source: Wilson 1927.
    """
    n, p = score.count, score.share
    centre, spread = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((centre + sign * spread) / (1 + z**2 / n) for sign in (-1, 1))
    # In exact arithmetic it holds the share, and ends there where that is 0 or 1.
    return min(max(low, 0.0), p), max(min(high, 1.0), p)


def prompts(category: str, count: int, seed: int = 0) -> list[str]:
    """`count` captions of a category; those of a larger count begin with them."""
    rng = Random(f"{seed} {category}")
    return [str(draw_caption(category, rng)) for _ in range(count)]


def shares(count: int, parts: int) -> list[int]:
    """`count` shared among as many parts, as evenly as can be, the larger ones first."""
    return [count // parts + (k < count % parts) for k in range(parts)]


def batches(count: int, seed: int = 0) -> Iterator[tuple[str, int, list[str]]]:
    """`count` prompts of all categories in batches, always the same: category, index of the first prompt, prompts."""
    for category, share in zip(CATEGORIES, shares(count, len(CATEGORIES)), strict=True):
        texts = prompts(category, share, seed)
        for start in range(0, share, BATCH):
            yield category, start, texts[start : start + BATCH]


def noise(category: str, start: int, stop: int, seed: int = 0) -> Tensor:
    """The noise of the prompts `start` to `stop` of a category, `(stop − start, 3, 32, 32)`; each has its own."""
    generator, rows = torch.Generator(), []
    for k in range(start, stop):
        generator.manual_seed(Random(f"{seed} {category} {k}").getrandbits(63))
        rows.append(torch.randn(LearnedModel.shape, generator=generator, dtype=torch.float32, device="cpu"))
    return torch.stack(rows)


def accuracy(
    model: LearnedModel, count: int = 600, steps: int = 20, scale: float | None = None, seed: int = 0
) -> dict[str, Score]:
    """How often standard sampling is right by the checker, by category.

    Args:
        count: prompts, shared evenly among the categories. steps: of the model's solver. seed: of prompts and noise.
        scale: of CFG; by default `best_scale`.

    Raises:
        ValueError: unless `count` is at least the number of categories.
        ImportError: without scipy, naming the extra that brings it.
    """
    if count < len(CATEGORIES):
        raise ValueError(f"count must be at least {len(CATEGORIES)}, got {count}")
    sampler = Sampler(Standard(), steps, best_scale(model.name) if scale is None else scale)
    right, asked = Counter[str](), Counter[str]()
    for category, start, texts in batches(count, seed):
        x = noise(category, start, start + len(texts), seed).to(model.device)
        right[category] += sum(check(texts, sampler.draw(model, texts, x)))
        asked[category] += len(texts)
    return {category: Score(right[category], asked[category]) for category in asked}


def table(scores: Mapping[str, Score]) -> str:
    """The scores as text, with their Wilson intervals, and one of all."""
    every = {**scores, "overall": Score(sum(s.right for s in scores.values()), sum(s.count for s in scores.values()))}
    lines = [f"{'category':<14}{'prompts':>8}{'right':>8}   95 % interval"]
    for category, score in every.items():
        low, high = wilson(score)
        lines.append(f"{category:<14}{score.count:>8}{score.share:>8.1%}   {low:.1%} to {high:.1%}")
    return "\n".join(lines)


def main() -> None:
    """The command line; exits with 2 and one line on bad input, with 130 when interrupted."""
    parser = Parser(
        prog="python -m zigzag.evaluation.accuracy",
        description=__doc__,
    )
    parser.add_argument("name", choices=MODELS, help="the model")
    parser.add_argument("--weights", type=Path, help="a weights.safetensors (default: those in the package)")
    count = parser.add_argument("--count", type=int, default=600, metavar="N", help="prompts in all")
    add_older(parser, count, "--prompts")
    parser.add_argument("--steps", type=int, default=20, help="steps of the solver")
    parser.add_argument("--strong", "--scale", type=float, help="guidance scale (default: the best on record)")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts and noise")
    args = parser.parse_args()
    with ending(parser.prog, "nothing is kept"):
        model = load(args.name, args.weights)
        print(table(accuracy(model, args.count, args.steps, args.strong, args.seed)))


if __name__ == "__main__":
    main()
