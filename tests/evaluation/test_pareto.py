"""The front of a picture, and the picture."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy")
from support.evaluations import made
from zigzag import Standard, ZSampling
from zigzag.evaluation.bench import Outcome
from zigzag.evaluation.compare import Line
from zigzag.evaluation.pareto import draw_pareto, front
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.scored import judged

points = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(float)), min_size=1, max_size=9)


@given(points)
def test_on_the_front_is_what_nothing_cheaper_or_as_cheap_beats(found: list[tuple[float, float]]) -> None:
    kept = front(found)
    for k, (cost, score) in enumerate(found):
        better = [(c, s) for c, s in found if (c < cost and s >= score) or (c <= cost and s > score)]
        assert (k in kept) == (not better)
    assert [found[k][0] for k in kept] == sorted(found[k][0] for k in kept)
    assert all(found[a][1] <= found[b][1] for a, b in pairwise(kept))


def test_a_picture_is_drawn_with_a_row_for_each_score(tmp_path: Path) -> None:
    """Also where nothing is timed, or a score has no interval."""
    pytest.importorskip("matplotlib")
    from PIL import Image

    plain, z = Sampler(Standard(), 4, 2.0), Sampler(ZSampling(), 4, 2.0)
    every = [Line("Standard", plain), Line("Z", z, (plain,)), Line("  CFG", replace(plain, strong=3.0), (plain,))]
    scored = {line.sampler: [judged(v, "a") for v in made(k, 0.5, rows=8 + k)] for k, line in enumerate(every)}
    outcomes = {s: Outcome(found, math.nan if s == z else 0.5) for s, found in scored.items()}
    draw_pareto(tmp_path / "one.png", every, outcomes, ["a"], "title")
    both = {
        s: Outcome([replace(x, scores={"a": 1.0, "b": 2.5}) for x in found[:1]], 0.5) for s, found in scored.items()
    }
    draw_pareto(tmp_path / "two.png", every, both, ["a", "b"], "title")
    sizes = [Image.open(tmp_path / f"{name}.png").size for name in ("one", "two")]
    assert sizes[0][0] == sizes[1][0] and sizes[0][1] < sizes[1][1]
