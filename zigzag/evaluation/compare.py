"""Tables of samplers: what was right, at what cost, and the paired comparisons on the same prompts and noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from zigzag.evaluation.accuracy import wilson
from zigzag.evaluation.evaluation import Result
from zigzag.evaluation.named import label
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.evaluation.solvers import Made, solver_label
from zigzag.evaluation.verdicts import Paired, overall, paired, scores
from zigzag.guidance import Guidance
from zigzag.methods import Method, Standard, Steered
from zigzag.solvers import Solver
from zigzag.zoo.shapes import CATEGORIES

__all__ = ["Line", "Results", "duels", "errors", "figures", "lines", "rows", "table"]

Results = Mapping[Sampler, Result]


class Line(NamedTuple):
    """A line of a table, and whom it is compared with: in the table with the first, in `duels` with the others."""

    label: str
    sampler: Sampler
    against: tuple[Sampler, ...] = ()

    @property
    def baseline(self) -> bool:
        """Whether it is only there to compare another with."""
        return self.label.startswith(" ")


_LINK = {"matched scale": "at the matched scale of", "same rows": "with the rows of"}


def lines(
    methods: Sequence[Method | Steered],
    steps: int,
    strong: float | Guidance,
    weak: float | Guidance = 0.0,
    solver: Made = "ddim",
    own: Callable[[int], Solver] | None = None,
    rows: Callable[[Sampler], int] | None = None,
    **roles: Any,
) -> list[Line]:
    """Standard sampling, then each method and its `baselines`; with a solver, whose name the labels begin with.

    Args:
        methods, steps, strong, weak, solver: as in `Sampler`, each a name, a number or an object of one's own.
        own: the model's solver of a number of steps, as in `Sampler.rows`.
        rows: as in `baselines`.
        roles: of the methods, as in `Sampler`: `weak_prompt="a circle"`, `plain=2.0`, `weak_fn=…`.

    Raises:
        ValueError, TypeError: for anything out of range.
    """
    standard = Sampler(Standard(), steps, strong, weak, solver=solver)
    prefix = "" if solver == "ddim" else f"{solver_label(solver)}: "
    found = [Line(f"{prefix}Standard", standard)]
    for sampler in dict.fromkeys(replace(standard, method=method, **roles) for method in methods):
        if isinstance(sampler.method, Standard):
            continue
        name, taken = prefix + label(sampler.method), {line.label for line in found}
        alike = next(k for k in range(1, len(found) + 2) if f"{name} ({k})" not in taken)
        name = f"{name} ({alike})" if name in taken else name
        others = baselines(sampler, own, rows)
        found.append(Line(name, sampler, (standard, *others.values())))
        found += [Line(f"  CFG {_LINK[why]} {name}", other, (standard,)) for why, other in others.items()]
    return found


_SHORT = ("single", "two", "count", "colour", "place", "attrib")


def table(lines: Sequence[Line], results: Results) -> str:
    """Steps, rows and milliseconds of a sample, the share that is right by category and overall with Wilson's 95 %
    interval, and against the line's first rival: wins, losses, the difference with its interval, and McNemar's p.

    Where it is known, the mean `β` as well: how much larger a scale of plain guidance a method amounts to.
    """
    wide = max(len(line.label) for line in lines)
    betas = {line.sampler: _mean([v.beta for v in results[line.sampler].verdicts]) for line in lines}
    measured = any(beta is not None for beta in betas.values())
    head = (
        f"{'':<{wide}} steps  rows    ms " + ("   beta" if measured else "") + "".join(f"{word:>7}" for word in _SHORT)
    )
    head += "  overall  95 % interval"
    if any(line.against for line in lines):
        head += "    wins losses  difference                    p"
    out = [head, "-" * len(head)]
    for shown, sampler, against in lines:
        result = results[sampler]
        by, every = scores(result.verdicts), overall(result.verdicts)
        low, high = wilson(every)
        text = f"{shown:<{wide}} {sampler.steps:>5} {rows(result):>5g} {1000 * result.seconds:>5.0f} "
        if measured:
            text += f"{'' if (beta := betas[sampler]) is None else f'{beta:.2f}':>7}"
        text += "".join(f"{100 * by[category].share:>7.1f}" for category in CATEGORIES)
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        text += f"{every.share:>9.1%}  {interval:<13}"
        if against:
            text += f"    {_paired(paired(result.verdicts, results[against[0]].verdicts))}"
        out.append(text)
    return "\n".join(line.rstrip() for line in out)


def duels(lines: Sequence[Line], results: Results) -> str:
    """A line for each rival but the first that a line names: who was right where the other was not."""
    labels = {line.sampler: line.label.strip() for line in reversed(lines)}
    found = [
        (line.label.strip(), labels[other], paired(results[line.sampler].verdicts, results[other].verdicts))
        for line in lines
        for other in line.against[1:]
    ]
    if not found:
        return ""
    wide = [max(len(names[k]) for *names, _ in found) for k in (0, 1)]
    head = f"{'':<{wide[0]}} against {'':<{wide[1]}}  wins losses  difference                    p"
    rows = [f"{a:<{wide[0]}} against {b:<{wide[1]}}  {_paired(pair)}" for a, b, pair in found]
    return "\n".join([head, "-" * len(head), *rows])


def errors(lines: Sequence[Line], results: Results) -> str:
    """δ, the sum of `‖x̃ − x‖²` along the path, and the mean `‖τ₁‖` and `‖τ₂‖` of its zigzags, over the samples."""
    wide = max(len(line.label) for line in lines)
    head = f"{'':<{wide}} {'delta':>10} {'tau1':>8} {'tau2':>8}"
    out = [head, "-" * len(head)]
    for line in lines:
        verdicts = results[line.sampler].verdicts
        means = [_mean([getattr(v, key) for v in verdicts]) for key in ("delta", "tau1", "tau2")]
        if any(mean is not None for mean in means):
            cells = ["" if mean is None else f"{mean:.3f}" for mean in means]
            out.append(f"{line.label:<{wide}} {cells[0]:>10} {cells[1]:>8} {cells[2]:>8}")
    return "\n".join(out)


def _mean(values: Sequence[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else None


def rows(result: Result) -> float:
    """Model rows per sample."""
    return sum(v.rows for v in result.verdicts) / len(result.verdicts)


def _paired(pair: Paired) -> str:
    low, high = pair.interval()
    p = "<0.0001" if pair.p < 1e-4 else f"{pair.p:.4f}"
    interval = f"({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{pair.wins:>4} {pair.losses:>6}  {100 * pair.difference:>+5.1f} {interval:<16} {p:>8}"


def figures(lines: Sequence[Line], results: Results) -> list[dict[str, Any]]:
    """The tables as JSON, without the seconds, which no rerun reproduces."""
    labels = {line.sampler: line.label.strip() for line in reversed(lines)}
    content = []
    for text, sampler, against in lines:
        verdicts = results[sampler].verdicts
        every = overall(verdicts)
        pairs = {labels[other]: paired(verdicts, results[other].verdicts) for other in against}
        content.append(
            {
                "name": text.strip(),
                "sampler": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(sampler)),
                "rows": rows(results[sampler]),
                "beta": _mean([verdict.beta for verdict in verdicts]),
                "right": {category: score.right for category, score in scores(verdicts).items()},
                "overall": every.right,
                "prompts": every.count,
                "interval": wilson(every),
                "against": {
                    k: {"wins": pair.wins, "losses": pair.losses, "interval": pair.interval(), "p": pair.p}
                    for k, pair in pairs.items()
                },
            }
        )
    return content
