"""Verdicts on disk, and what is counted of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.evaluations import made
from zigzag.evaluation.accuracy import Score
from zigzag.evaluation.verdicts import Paired, Verdict, mcnemar, overall, paired, read, scores, write
from zigzag.zoo.shapes import CATEGORIES

HEAD = {"model": "shapes-unet", "sampler": {"steps": 10, "strong": 4.0}}
VERDICT = Verdict(0, "counting", 3, "two circles", True, ["red circle", "blue circle"], 20)
numbers = st.none() | st.floats(allow_nan=False)
verdicts = st.builds(
    Verdict,
    st.integers(0, 2**63), st.sampled_from(CATEGORIES), st.integers(0, 600), st.text(), st.booleans(),
    st.lists(st.text(), max_size=3), st.integers(1, 500), numbers, numbers, numbers,
)  # fmt: skip


def test_mcnemar_is_the_exact_two_sided_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert mcnemar(0, 0) == 1
    for b in (0, 1, 2, 3, 7, 12, 25, 60):
        for c in (0, 1, 2, 4, 9, 12, 31):
            if b + c:
                assert mcnemar(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-9), (b, c)


def test_mcnemar_of_many_pairs_neither_overflows_nor_fails() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert mcnemar(1500, 1300) == pytest.approx(stats.binomtest(1500, 2800).pvalue, rel=1e-9)
    assert mcnemar(5000, 0) == mcnemar(0, 5000) == 0  # less than a double holds
    assert mcnemar(2000, 2000) == 1


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_the_interval_is_walds_of_the_pairs_and_two_more(wins: int, losses: int, ties: int) -> None:
    """Agresti & Min: half a pair more in each cell of the table, a win being +1, a loss −1 and a tie 0."""
    cells = {1: wins + 0.5, -1: losses + 0.5, 0: ties + 1.0}
    n = sum(cells.values())
    mean = sum(value * count for value, count in cells.items()) / n
    deviation = (sum((value - mean) ** 2 * count for value, count in cells.items()) / n / n) ** 0.5
    pair = Paired(wins, losses, max(wins + losses + ties, 1))
    if wins + losses + ties:
        assert pair.interval() == pytest.approx((mean - 1.959964 * deviation, mean + 1.959964 * deviation))
        assert pair.interval()[0] < pair.difference < pair.interval()[1]
    mirrored = Paired(losses, wins, pair.pairs).interval()
    assert mirrored == pytest.approx((-pair.interval()[1], -pair.interval()[0]))


def test_wins_and_losses_are_of_the_first() -> None:
    first = [replace(VERDICT, index=k, right=right) for k, right in enumerate([True, True, True, False, False, True])]
    second = [replace(VERDICT, index=k, right=right) for k, right in enumerate([True, False, False, True, False, True])]
    pair = paired(first, second)
    assert pair == Paired(2, 1, 6) and pair.difference == 1 / 6 and pair.p == mcnemar(2, 1)
    assert paired(second, first) == Paired(1, 2, 6)


def test_the_order_of_verdicts_is_nothing() -> None:
    first, second = made(1, 0.5), made(2, 0.6)
    shuffled = random.Random(0).sample(second, len(second))
    assert shuffled != second and paired(first, shuffled) == paired(first, second)
    assert scores(shuffled) == scores(second) and overall(shuffled) == overall(second)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"category": "colours"}, {"index": 4}])
def test_pairs_of_other_prompts_or_noise_are_refused(changed: dict[str, object]) -> None:
    other = replace(VERDICT, **changed)  # type: ignore[arg-type]
    for first, second in (([VERDICT], [other]), ([VERDICT, other], [VERDICT]), ([VERDICT], [VERDICT, other])):
        with pytest.raises(ValueError, match="same prompts and noise"):
            paired(first, second)


def test_pairs_count_nothing_twice() -> None:
    with pytest.raises(ValueError, match="same prompts and noise"):
        paired([VERDICT, VERDICT], [replace(VERDICT, right=False)])


def test_scores_are_by_category_and_overall() -> None:
    found = [replace(VERDICT, index=k, right=k == 0) for k in range(3)] + [replace(VERDICT, category="position")]
    assert scores(found) == {"counting": Score(1, 3), "position": Score(1, 1)}
    assert overall(found) == Score(2, 4)
    assert list(scores(made(0, 0.5))) == list(CATEGORIES)


@given(st.lists(verdicts, max_size=4, unique_by=lambda v: v.key))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, found: list[Verdict]) -> None:
    path = tmp_path_factory.mktemp("verdicts") / "new" / "z.jsonl"
    assert read(path, HEAD) == []
    write(path, HEAD, found)
    assert read(path, HEAD) == found
    assert [p.name for p in path.parent.iterdir()] == ["z.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "",
        lambda text: text + "{}\n",
        lambda text: text + "3\n",
        lambda text: text.replace('"rows": 20, ', ""),
        lambda text: text.replace('"rows"', '"rowz"'),
        lambda text: text + text.splitlines()[-1] + "\n",
    ],
    ids=["cut", "empty", "nothing", "number", "short", "misnamed", "twice"],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "z.jsonl"
    write(path, HEAD, [VERDICT, replace(VERDICT, index=4)])
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"z\.jsonl"):
        read(path, HEAD)


def test_a_file_of_another_evaluation_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "z.jsonl", HEAD, [VERDICT])
    with pytest.raises(ValueError, match=r"z\.jsonl.*another evaluation"):
        read(tmp_path / "z.jsonl", {**HEAD, "model": "shapes-dit"})


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path, many = tmp_path / "z.jsonl", made(0, 0.5, prompts=600)
    write(path, HEAD, [VERDICT])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large"):
            write(path, HEAD, many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read(path, HEAD) == [VERDICT]
    assert list(tmp_path.iterdir()) == [path]
