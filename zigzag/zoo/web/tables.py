"""What the page walks and judges by, as JSON: the move tables, the captions, and the numbers of the world of shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

from zigzag.held import HeldStep
from zigzag.methods import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.moves import Move, gap_is_read
from zigzag.paths import plan_path
from zigzag.roles import roles_asked
from zigzag.solvers import Solver
from zigzag.zoo.learned import LearnedModel, best_scale
from zigzag.zoo.shapes import checker, detector, scenes
from zigzag.zoo.shapes.grammar import CATEGORIES, NUMBERS, RELATIONS, Caption, captions, tokenize
from zigzag.zoo.states import MEAN, SCALE

__all__ = ["METHODS", "STEPS", "caption_entry", "move_table", "spelled", "tables", "world"]

STEPS: Final = (4, 6, 8, 10, 15, 20, 30)
"""The numbers of steps that the page offers."""

METHODS: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "standard": (Standard, ()),
    "resampling": (Resampling, ("steps",)),
    "end-to-end": (EndToEnd, ()),
    "z": (ZSampling, ("steps",)),
    "implicit": (ImplicitZ, ("steps",)),
    "z2": (Z2Sampling, ("warmup", "steps")),
}
"""The methods that the page offers, by the names of the command line, with those of their options that it offers."""


def tables(model: LearnedModel) -> dict[str, Any]:
    """All of them, of a learned model: what `json.dumps` writes for the page."""
    return {
        "model": model.name,
        "shape": list(model.shape),
        "scale": best_scale(model.name),
        "state": {"mean": MEAN, "scale": SCALE},
        "world": world(),
        "methods": {name: options for name, (_, options) in METHODS.items()},
        "numbers": NUMBERS,
        "relations": RELATIONS,
        "nothing": tokenize([""])[0].tolist(),
        "captions": [caption_entry(caption) for category in CATEGORIES for caption in captions(category)],
        "grids": {steps: move_table(model.solver(steps)) for steps in STEPS},
    }


def world() -> dict[str, Any]:
    """What the detector and the checker go by."""
    return {
        "side": scenes.SIDE,
        "ground": scenes.GROUND,
        "peak": scenes.PEAK,
        "shapes": scenes.SHAPES,
        "colours": scenes.COLOURS,
        "square": scenes.SQUARE,
        "triangle": scenes.TRIANGLE,
        "leastArea": detector.LEAST_AREA,
        "leastFit": detector.LEAST_FIT,
        "margin": checker.MARGIN,
    }


def caption_entry(caption: Caption) -> dict[str, Any]:
    """A caption, as the network reads it and as the checker does."""
    return {
        "text": str(caption),
        "tokens": tokenize([str(caption)])[0].tolist(),
        "nouns": [[noun.shape, noun.colour] for noun in caption.nouns],
        "count": caption.count,
        "relation": caption.relation,
    }


def move_table(solver: Solver) -> dict[str, Any]:
    """Every move of every path on a grid, and the paths as the numbers of their moves.

    A move has the knots `from` and `to`, the coefficients of its step, `a, b` and of the inverse `c, d`, the time `t`
    that the model is told, and in `asks` the roles whose predictions it needs: two where their gap is kept.

    Returns:
        `moves`, and `paths` by the spelling of the method, "z2:warmup=2"; in the place of a path that a method refuses
        stands its sentence.

    Raises:
        ValueError: for a solver with memory, noise or steps of two evaluations: they need more than these numbers.
    """
    moves: list[dict[str, Any]] = []
    known: dict[str, int] = {}
    paths: dict[str, list[int] | str] = {}
    for name, options in _choices(len(solver)):
        try:
            path, steps = plan_path(METHODS[name][0](**options), solver)
        except ValueError as refused:
            paths[spelled(name, options)] = str(refused)
            continue
        numbers = []
        for move, held, caches in zip(path, steps, gap_is_read(path), strict=True):
            entry = _entry(move, held, caches, solver)
            if str(entry) not in known:
                known[str(entry)] = len(moves)
                moves.append(entry)
            numbers.append(known[str(entry)])
        paths[spelled(name, options)] = numbers
    return {"moves": moves, "paths": paths}


def _entry(move: Move, held: HeldStep, caches: bool, solver: Solver) -> dict[str, Any]:
    if held.holds or held.inner is not None:
        raise ValueError(f"{solver!r} holds more than a and b at {move!r}: the page walks first-order steps only")
    asks, step = roles_asked(move, caches), held.step
    return {
        "move": type(move).__name__,
        "from": move.start,
        "to": move.end,
        "asks": asks,
        "a": float(step.a),
        "b": float(step.b),
        # A Renoise up to pure noise has a = 0; nothing inverts it.
        "c": float(step.c) if step.a else None,
        "d": float(step.d) if step.a else None,
        "t": solver.info(min(move.start, move.end)).t if asks else None,
    }


def _choices(T: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Every method with every choice of its options on a grid, and with its own."""
    for name, (_, options) in METHODS.items():
        for values in product([None, *range(T + 1)], repeat=len(options)):
            yield name, {key: value for key, value in zip(options, values, strict=True) if value is not None}


def spelled(name: str, options: Mapping[str, int]) -> str:
    """A method as `zigzag eval` spells it: "z2:warmup=2,steps=8"."""
    text = ",".join(f"{key}={value}" for key, value in options.items())
    return f"{name}:{text}" if text else name
