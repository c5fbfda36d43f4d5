"""Means, paired differences and winning rates of scores, against other ways to compute them."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.evaluations import made
from zigzag.evaluation.accuracy import wilson
from zigzag.evaluation.scored import Scored, duel, judged, mean, student
from zigzag.evaluation.verdicts import mcnemar, overall, paired


def scores(values: list[float], seed: int = 0, shift: int = 0) -> list[Scored]:
    return [Scored(k + shift, seed, "", f"prompt {k}", 20, None, {"s": value}) for k, value in enumerate(values)]


def test_students_quantile_is_scipys_to_one_per_cent() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 4, 7, 20, 599):
        assert student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.01)


def test_the_paired_interval_is_that_of_the_paired_t_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = random.Random(3)
    first, second = ([rng.gauss(0.3 * k, 1) for _ in range(40)] for k in (1, 0))
    found = duel(scores(first), scores(second), "s")
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.difference[0] == pytest.approx(fmean(first) - fmean(second))
    assert found.difference[1:] == pytest.approx((wanted.low, wanted.high), rel=1e-3)
    assert mean(scores(first), "s").value == pytest.approx(fmean(first))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_wins_are_of_the_higher_score_and_p_is_the_exact_sign_test(pairs: list[tuple[int, int]]) -> None:
    found = duel(scores([a + 0.5 for a, _ in pairs]), scores([b + 0.5 for _, b in pairs]), "s")
    wins, losses = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    assert (found.pair.wins, found.pair.losses, found.ties) == (wins, losses, len(pairs) - wins - losses)
    assert found.pair.p == mcnemar(wins, losses)
    if wins + losses:
        assert found.rate[0] == wins / (wins + losses) and found.rate[1] <= found.rate[0] <= found.rate[2]
    else:
        assert found.rate[0] != found.rate[0]


def test_a_checkers_verdicts_are_scores_of_0_and_1_with_the_figures_they_have_always_had() -> None:
    first, second = made(1, 0.5), made(2, 0.7)
    ours, theirs = ([judged(v, "shapes") for v in verdicts] for verdicts in (first, second))
    found, pair = duel(ours, theirs, "shapes"), paired(first, second)
    assert found.pair == pair and found.difference == (pair.difference, *pair.interval())
    score = overall(first)
    assert (mean(ours, "shapes").value, mean(ours, "shapes").low) == (score.share, wilson(score)[0])


def test_seeds_of_one_prompt_count_once_by_their_mean() -> None:
    """Whatever they are: many seeds of few prompts do not make a small difference sure."""
    rng = random.Random(0)
    one, two = [rng.gauss(0, 1) for _ in range(12)], [rng.gauss(0, 1) for _ in range(12)]
    repeated = [[s for seed in range(9) for s in scores(values, seed)] for values in (one, two)]
    once, often = duel(scores(one), scores(two), "s"), duel(*repeated, "s")
    assert often.pair == once.pair and often.difference == pytest.approx(once.difference)
    assert mean(repeated[0], "s").items == 12
    halves = [*scores(one, 0), *scores(two, 1)]
    assert mean(halves, "s").value == pytest.approx(fmean([*one, *two]))


def test_other_prompts_seeds_or_counts_are_refused() -> None:
    ours = scores([1.0, 2.0])
    for theirs in (scores([1.0]), scores([1.0, 2.0], seed=1), scores([1.0, 2.0], shift=1), [*ours, *ours]):
        with pytest.raises(ValueError, match="same prompts and noise"):
            duel(ours, theirs, "s")
    with pytest.raises(ValueError, match="same prompts and noise"):
        duel([*ours, *ours], [*ours, *ours], "s")


def test_one_prompt_has_a_mean_and_no_interval() -> None:
    found = mean(scores([2.5]), "s")
    assert found.value == 2.5 and found.low != found.low
