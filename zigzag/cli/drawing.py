"""A path as a drawing in text."""

from __future__ import annotations

from collections.abc import Sequence

from zigzag.moves import Denoise, Invert, Move, Renoise, Shift

__all__ = ["draw_path"]

SIGNS = {
    "denoise": ("╲", "\\", "Denoise (strong guidance)"),
    "invert": ("╱", "/", "Invert (weak guidance)"),
    "fresh": ("≈", "=", "Shift by a fresh gap"),
    "cached": ("~", "~", "Shift by the cached gap"),
    "renoise": ("↑", "^", "Renoise"),
}


def draw_path(
    path: Sequence[Move], width: int = 100, ascii_only: bool = False, orders: Sequence[int | None] = ()
) -> str:
    """The moves from left to right over the steps of the grid, noise at the top and data at the bottom, and a legend.

    Args:
        path: moves that connect.
        width: columns at most; a longer path goes on in another block, of the steps that it crosses there.
        ascii_only: for terminals without the box characters.
        orders: of the solver's step in each move, below them; None for a move without.
    """
    low, high = min(min(m.start, m.end) for m in path), max(max(m.start, m.end) for m in path)
    lines = max(high - low, 1)
    label = max(len(f"{high} -> {high}"), len("order") if orders else 0)
    sign = {name: (plain if ascii_only else boxed) for name, (boxed, plain, _) in SIGNS.items()}
    columns, used = [], []
    for move in path:
        name, crossed = _crossing(move)
        columns.append([sign[name] if low + line in crossed else " " for line in range(lines)])
        used += [name] if name not in used else []

    room = max(width - label - 2, 1)
    blocks = []
    for begin in range(0, len(columns), room):
        part = columns[begin : begin + room]
        rows = ["".join(column[k] for column in part).rstrip() for k in range(lines)]
        drawn = [f"{f'{low + k} -> {low + k + 1}':>{label}}  {row}" for k, row in enumerate(rows) if row]
        if orders:
            below = "".join(" " if order is None else str(order) for order in orders[begin : begin + room])
            drawn.append(f"{'order':>{label}}  {below}".rstrip())
        blocks.append("\n".join(drawn))
    legend = "   ".join(f"{sign[name]} {SIGNS[name][2]}" for name in used)
    return "\n\n".join(blocks) + f"\n\n{legend}"


def _crossing(move: Move) -> tuple[str, range]:
    """The sign of a move, and the steps of the grid it crosses (the one it stands at, for a Shift)."""
    match move:
        case Denoise(i, j):
            return "denoise", range(i, j)
        case Invert(j, i):
            return "invert", range(i, j)
        case Renoise(j, i):
            return "renoise", range(i, j)
        case Shift(i, fresh):
            return "fresh" if fresh else "cached", range(i, i + 1)
