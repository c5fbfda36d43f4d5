"""The tables of a bench say what the scores say: their numbers are read back from the text."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

import pytest

pytest.importorskip("scipy")
from zigzag import Standard, ZSampling
from zigzag.evaluation.bench import Outcome
from zigzag.evaluation.bench_tables import bench_figures, bench_tables
from zigzag.evaluation.compare import Line
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.scored import Scored, duel, mean

PLAIN, Z = Sampler(Standard(), 5, 4.0), Sampler(ZSampling(), 5, 4.0)
MATCHED = replace(PLAIN, matched=ZSampling())
LINES = [
    Line("Standard", PLAIN),
    Line("Z-Sampling", Z, (PLAIN, MATCHED)),
    Line("  CFG at the matched scale of Z-Sampling", MATCHED, (PLAIN,)),
]
KINDS = ("animals", "things")


def scored(seed: int, shift: float, categories: tuple[str, ...] = KINDS) -> list[Scored]:
    rng = random.Random(seed)
    return [
        Scored(k, s, categories[k % len(categories)], f"prompt {k}", 10.0 + seed, 3.25 if seed == 1 else None, {
            "taste": 20 + rng.gauss(shift, 1), "right": float(rng.random() < 0.5),
        })
        for s in (0, 1)
        for k in range(30)
    ]  # fmt: skip


def outcomes(categories: tuple[str, ...] = KINDS) -> dict[Sampler, Outcome]:
    samplers = (PLAIN, Z, MATCHED)
    return {s: Outcome(scored(k, 0.3 * k, categories), 0.5 + k) for k, s in enumerate(samplers)}


def numbers(text: str) -> list[float]:
    return [float(word) for word in re.findall(r"(?<![\w-])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?", text)]


def test_means_costs_and_scales_stand_in_the_first_table() -> None:
    found = outcomes()
    head, rule, *lines = bench_tables(LINES, found, ["taste", "right"]).split("\n\n")[0].splitlines()
    assert head.split()[:5] == ["steps", "w", "rows", "s", "beta"] and set(rule) == {"-"} and len(lines) == 3
    for line, shown in zip(LINES, lines, strict=True):
        assert shown.startswith(line.label)
        outcome = found[line.sampler]
        wanted = [5.0] + ([] if line.sampler is MATCHED else [4.0]) + [outcome.rows, outcome.seconds]
        wanted += [] if outcome.beta is None else [outcome.beta]
        for scorer in ("taste", "right"):
            value = mean(outcome.scored, scorer)
            wanted += [value.value, value.low, value.high]
        assert numbers(shown[len(LINES[2].label) :]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        assert ("by step" in shown) == (line.sampler is MATCHED)


def test_every_line_stands_against_each_of_its_rivals() -> None:
    found = outcomes()
    parts = bench_tables(LINES, found, ["taste", "right"]).split("\n\n")
    assert len(parts) == 7  # the means, and of each score the duels, and means and duels by category
    labels = {line.sampler: line.label.strip() for line in LINES}
    pairs = [(line.sampler, other) for line in LINES for other in line.against]
    for scorer, part in (("taste", parts[1]), ("right", parts[4])):
        head, _, *lines = part.splitlines()
        assert head.startswith(scorer) and len(lines) == len(pairs) == 3
        for (first, second), shown in zip(pairs, lines, strict=True):
            ours, _, rest = shown.partition(" against ")
            assert ours.strip() == labels[first] and rest.startswith(labels[second])
            one = duel(found[first].scored, found[second].scored, scorer)
            wanted = [*one.difference, one.pair.wins, one.pair.losses, one.ties]
            wanted += [100 * value for value in one.rate]
            wanted += [one.pair.p] if one.pair.p >= 1e-4 else [0.0001]
            assert numbers(rest.removeprefix(labels[second])) == pytest.approx(wanted, rel=2e-3, abs=0.06)


def test_categories_stand_where_there_are_some() -> None:
    means, part = bench_tables(LINES, outcomes(), ["taste"]).split("\n\n")[2:]
    head, _, *lines = means.splitlines()
    assert head.split() == ["taste", "by", "category", *KINDS, "mean", "of", "these"] and len(lines) == 3
    for line, shown in zip(LINES, lines, strict=True):
        by = [mean([s for s in outcomes()[line.sampler].scored if s.category == kind], "taste").value for kind in KINDS]
        assert shown.startswith(line.label) and numbers(shown) == pytest.approx([*by, sum(by) / 2], rel=1e-3)
    head, _, *lines = part.splitlines()
    assert head.startswith("taste by category") and len(lines) == 2  # of the method, against standard sampling
    assert all(shown.split()[:2] == ["Z-Sampling", kind] for shown, kind in zip(lines, KINDS, strict=True))
    found = outcomes()
    ours, theirs = ([s for s in found[k].scored if s.category == "things"] for k in (Z, PLAIN))
    one = duel(ours, theirs, "taste")
    assert numbers(lines[1])[:4] == pytest.approx([mean(ours, "taste").value, *one.difference], rel=2e-3, abs=1e-3)
    for categories in (("",), ("all alike",)):
        assert "by category" not in bench_tables(LINES, outcomes(categories), ["taste"])


def test_figures_are_the_same_in_json() -> None:
    found = outcomes()
    content = json.loads(json.dumps(bench_figures(LINES, found, ["taste", "right"]), allow_nan=False))
    assert [figure["name"] for figure in content] == [line.label.strip() for line in LINES]
    assert [figure["baseline"] for figure in content] == [False, False, True]
    z = content[1]["scores"]["taste"]
    one = duel(found[Z].scored, found[MATCHED].scored, "taste")
    told = z["against"]["CFG at the matched scale of Z-Sampling"]
    assert (told["all"]["wins"], told["all"]["p"]) == (one.pair.wins, one.pair.p) and set(told) == {"all", *KINDS}
    assert told["all"]["difference"] == pytest.approx(list(one.difference))
    assert z["mean"]["all"]["value"] == pytest.approx(mean(found[Z].scored, "taste").value)
    assert (content[1]["beta"], content[0]["beta"], content[2]["w"]) == (3.25, None, "by step")
    slower = {sampler: replace(outcome, seconds=99.0) for sampler, outcome in found.items()}
    assert bench_figures(LINES, slower, ["taste", "right"]) == bench_figures(LINES, found, ["taste", "right"])


def test_equal_scores_are_ties_without_a_winning_rate() -> None:
    same = {PLAIN: Outcome(scored(0, 0), 1.0), Z: Outcome(scored(0, 0), 1.0)}
    text = bench_tables([LINES[0], Line("Z-Sampling", Z, (PLAIN,))], same, ["taste"]).split("\n\n")[1]
    assert numbers(text.splitlines()[2]) == [0, 0, 0, 0, 0, 30, 1]
