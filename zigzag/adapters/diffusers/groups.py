"""Calls of a scheduler that are one step: Heun's two, PNDM's first two, the two or three of singlestep solvers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from zigzag.adapters.diffusers.knots import Chain, Feed, feed_of
from zigzag.adapters.diffusers.rehearsal import Rehearsal, Row, Symbol

__all__ = ["Group", "combined", "groups_of"]

VANISHES: Final = 1e-6  # of what is added up


class Group(NamedTuple):
    """The calls `first … last` of one step."""

    first: int
    last: int


def groups_of(rehearsal: Rehearsal, chain: Chain | None) -> list[Group] | None:
    """The calls of each step, in their order; None where they cannot be told.

    What a multistep solver remembers is one quantity, and vanishes on one of three feeds, whatever the step: on states
    with no prediction (memories of `e` alone), on pure data (of the noise), or on pure noise (of x₀). There, what is
    left of a row comes of one call's state and prediction, its base: the state that the step keeps. The base of an
    ordinary step is its own call; a later call of a step has an earlier one. A row of which nothing is left is a step
    onto clean data, and its own.
    """
    found = []
    for feed in _feeds(rehearsal, chain):
        bases = [_bases(row, feed) for row in rehearsal.rows()]
        if all(len(base) <= 1 for base in bases):
            found.append([base[0] if base else None for base in bases])
    if not found:
        return None
    return _joined(min(found, key=lambda bases: bases.count(None)))


def combined(rehearsal: Rehearsal, group: Group, begun: int) -> dict[Symbol, float]:
    """The group as one step of the run begun at call `begun`: the coefficient of every symbol but its inner states."""
    inner: dict[int, dict[Symbol, float]] = {}
    for k in range(group.first, group.last + 1):
        out: dict[Symbol, float] = {}
        for symbol, c in rehearsal.row(k, begun).terms().items():
            inside = symbol[0] == "x" and symbol[1] in inner
            for s, f in (inner[symbol[1]] if inside else {symbol: 1.0}).items():
                out[s] = out.get(s, 0.0) + c * f
        inner[k + 1] = out
    return inner[group.last + 1]


def _feeds(rehearsal: Rehearsal, chain: Chain | None) -> list[Feed]:
    count = rehearsal.calls + 1
    feeds = [Feed([1.0] * count, [0.0] * count)]
    if chain is not None:
        feeds += [feed_of(rehearsal.scheduler, chain, x0, eps) for x0, eps in ((1.0, 0.0), (0.0, 1.0))]
    return feeds


def _bases(row: Row, feed: Feed) -> list[int]:
    reads = {**row.memory, row.k: (row.a, row.b)}
    parts = {m: (u * feed.x[m], v * feed.e[m]) for m, (u, v) in reads.items()}
    scale = max(max(abs(p), abs(q)) for p, q in parts.values())
    return [m for m, (p, q) in parts.items() if abs(p + q) > VANISHES * scale]


def _joined(bases: Sequence[int | None]) -> list[Group]:
    first = list(range(len(bases)))
    for k, base in enumerate(bases):
        if base is not None and base < k:
            for j in range(base, k + 1):
                first[j] = min(first[j], first[base])
    starts = sorted(set(first))
    return [Group(start, end - 1) for start, end in zip(starts, [*starts[1:], len(bases)], strict=True)]
