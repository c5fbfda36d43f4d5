"""`python -m zigzag.zoo.shapes`: how often detector and checker are right on rendered scenes, by category."""

from __future__ import annotations

from random import Random

from zigzag.support.commands import Parser, ending
from zigzag.zoo.shapes.checker import draw_scene, holds
from zigzag.zoo.shapes.detector import detect
from zigzag.zoo.shapes.grammar import CATEGORIES, alterations, draw_caption
from zigzag.zoo.shapes.scenes import render

BATCH = 500


def measure(category: str, scenes: int, seed: int = 0) -> tuple[int, int, int]:
    """Of `scenes` rendered scenes with a caption of the category: how many captions are held to be true.

    And of their captions altered in one word that the scene itself makes false: how many are rejected, of how many.
    """
    rng = Random(f"{seed} {category}")
    accepted = rejected = false = 0
    for start in range(0, scenes, BATCH):
        captions = [draw_caption(category, rng) for _ in range(min(BATCH, scenes - start))]
        drawn = [draw_scene(caption, rng) for caption in captions]
        for caption, scene, found in zip(captions, drawn, detect(render(drawn)), strict=True):
            accepted += holds(caption, found)
            wrong = [other for other in alterations(caption) if not holds(other, scene)]
            false += len(wrong)
            rejected += sum(not holds(other, found) for other in wrong)
    return accepted, rejected, false


def main() -> None:
    """Prints the table; exits with 130 and one line when interrupted."""
    parser = Parser(prog="python -m zigzag.zoo.shapes", description=__doc__)
    parser.add_argument("--scenes", type=int, default=10_000, help="scenes, shared among the categories")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes")
    args = parser.parse_args()
    with ending(parser.prog, "nothing is kept"):
        print(f"{'category':<14}{'scenes':>8}{'true held':>11}{'altered':>10}{'rejected':>10}")
        for k, category in enumerate(CATEGORIES):
            scenes = args.scenes // len(CATEGORIES) + (k < args.scenes % len(CATEGORIES))
            accepted, rejected, false = measure(category, scenes, args.seed)
            print(
                f"{category:<14}{scenes:>8}{accepted / scenes:>11.2%}{false:>10}{rejected / false:>10.2%}", flush=True
            )


if __name__ == "__main__":
    main()
