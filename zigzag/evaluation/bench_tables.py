"""The tables of a bench, as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from zigzag.evaluation.bench import Outcome
from zigzag.evaluation.compare import Line
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.scored import Duel, Mean, Scored, duel, mean

__all__ = ["bench_figures", "bench_tables"]

Outcomes = Mapping[Sampler, Outcome]


def bench_tables(every: Sequence[Line], outcomes: Outcomes, scorers: Sequence[str]) -> str:
    """Cost and mean scores of every line; then, for each score, every line against each of its rivals; then, where
    there are categories, the means of every line by category, and each method against its first rival by category."""
    parts = [_means(every, outcomes, scorers)]
    for scorer in scorers:
        parts.append(_duels(every, outcomes, scorer))
        parts.append(_means_by_category(every, outcomes, scorer))
        parts.append(_duels_by_category(every, outcomes, scorer))
    return "\n\n".join(part for part in parts if part)


def bench_figures(every: Sequence[Line], outcomes: Outcomes, scorers: Sequence[str]) -> list[dict[str, Any]]:
    """The same as JSON, every line by category too; without the seconds, which no rerun reproduces."""
    labels = {line.sampler: line.label.strip() for line in reversed(every)}
    return [
        {
            "name": line.label.strip(),
            "baseline": line.baseline,
            "steps": line.sampler.steps,
            "w": _scale(line.sampler),
            "rows": outcomes[line.sampler].rows,
            "beta": outcomes[line.sampler].beta,
            "scores": {scorer: _figures(line, outcomes, scorer, labels) for scorer in scorers},
        }
        for line in every
    ]


def _figures(line: Line, outcomes: Outcomes, scorer: str, labels: Mapping[Sampler, str]) -> dict[str, Any]:
    ours = outcomes[line.sampler].scored
    by = {"all": ours, **_categories(ours)}
    return {
        "mean": {name: _clean(mean(found, scorer)) for name, found in by.items()},
        "against": {
            labels[other]: {
                name: _told(duel(found, _of(outcomes[other].scored, name), scorer)) for name, found in by.items()
            }
            for other in line.against
        },
    }


def _means(every: Sequence[Line], outcomes: Outcomes, scorers: Sequence[str]) -> str:
    known = any(outcomes[line.sampler].beta is not None for line in every)
    head = ["", "steps", "w", "rows", "s", *(["beta"] if known else [])]
    head += [word for scorer in scorers for word in (scorer, "95 % interval")]
    body = []
    for line in every:
        outcome = outcomes[line.sampler]
        row = [line.label, str(line.sampler.steps), _scale(line.sampler), f"{outcome.rows:g}", _short(outcome.seconds)]
        row += ["" if outcome.beta is None else f"{outcome.beta:.2f}"] if known else []
        for scorer in scorers:
            found = mean(outcome.scored, scorer)
            row += [_short(found.value), f"{_short(found.low)} to {_short(found.high)}"]
        body.append(row)
    return _laid_out(head, body)


def _scale(sampler: Sampler) -> str:
    """The scale that its steps are guided by."""
    return f"{sampler.strong:g}" if isinstance(sampler.strong, float) and sampler.matched is None else "by step"


def _duels(every: Sequence[Line], outcomes: Outcomes, scorer: str) -> str:
    labels = {line.sampler: line.label.strip() for line in reversed(every)}
    body = [
        [line.label.strip(), f"against {labels[other]}", *_cells(_duel(outcomes, line.sampler, other, scorer))]
        for line in every
        for other in line.against
    ]
    return _laid_out([scorer, "", *_HEAD], body, left=2) if body else ""


def _means_by_category(every: Sequence[Line], outcomes: Outcomes, scorer: str) -> str:
    """With the mean of the categories, which is the overall figure of some benchmarks."""
    body, names = [], [*_categories(outcomes[every[0].sampler].scored)]
    for line in every:
        by = [mean(found, scorer).value for found in _categories(outcomes[line.sampler].scored).values()]
        body.append([line.label, *map(_short, by), _short(fmean(by)) if by else ""])
    return _laid_out([f"{scorer} by category", *names, "mean of these"], body) if len(names) > 1 else ""


def _duels_by_category(every: Sequence[Line], outcomes: Outcomes, scorer: str) -> str:
    body = []
    for line in every:
        if not line.against or line.baseline:
            continue
        for name, found in _categories(outcomes[line.sampler].scored).items():
            rival = _of(outcomes[line.against[0]].scored, name)
            if len(found) < len(outcomes[line.sampler].scored):
                row = [_short(mean(found, scorer).value), *_cells(duel(found, rival, scorer))]
                body.append([line.label.strip(), name, *row])
    return _laid_out([f"{scorer} by category", "", "mean", *_HEAD], body, left=2) if body else ""


_HEAD = ("difference", "95 % interval", "wins", "losses", "ties", "winning rate", "95 % interval", "p")


def _cells(found: Duel) -> list[str]:
    centre, low, high = found.difference
    rate, least, most = found.rate
    won = ["", ""] if math.isnan(rate) else [f"{rate:.1%}", f"{least:.1%} to {most:.1%}"]
    p = "<0.0001" if found.pair.p < 1e-4 else f"{found.pair.p:.4f}"
    counts = [str(count) for count in (found.pair.wins, found.pair.losses, found.ties)]
    return [f"{centre:+.4g}", f"{low:+.4g} to {high:+.4g}", *counts, *won, p]


def _duel(outcomes: Outcomes, first: Sampler, second: Sampler, scorer: str) -> Duel:
    return duel(outcomes[first].scored, outcomes[second].scored, scorer)


def _categories(found: Sequence[Scored]) -> dict[str, list[Scored]]:
    names = dict.fromkeys(scored.category for scored in found if scored.category)
    return {name: _of(found, name) for name in names}


def _of(found: Sequence[Scored], category: str) -> list[Scored]:
    return [scored for scored in found if category in ("all", scored.category)]


def _told(found: Duel) -> dict[str, Any]:
    return {
        "wins": found.pair.wins, "losses": found.pair.losses, "ties": found.ties, "p": found.pair.p,
        "difference": [_finite(value) for value in found.difference],
        "winning rate": [_finite(value) for value in found.rate],
    }  # fmt: skip


def _clean(found: Mean) -> dict[str, Any]:
    return {key: _finite(value) for key, value in asdict(found).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _laid_out(head: Sequence[str], body: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns under their heads, the first ones to the left, numbers to the right."""
    wide = [max(len(row[k]) for row in (head, *body)) for k in range(len(head))]
    sides = [str.ljust if k < left else str.rjust for k in range(len(head))]
    lines = ["  ".join(side(word, n) for side, word, n in zip(sides, row, wide, strict=True)) for row in (head, *body)]
    return "\n".join([lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])])
