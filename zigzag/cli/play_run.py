"""What the page of `zigzag play` does when it is asked to draw: the two pictures, one after the other, or a stop."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from time import perf_counter
from typing import Any

from zigzag.cli.drawing import draw_path
from zigzag.cli.jobs import Drawn, Job
from zigzag.cli.play_fields import Field, asked
from zigzag.cli.play_plots import plot
from zigzag.evaluation.named import label
from zigzag.trace import Trace

__all__ = ["Asked", "Picture", "Stopped", "ask", "draw"]


class Stopped(Exception):
    """A walk was told to stop."""


@dataclass(frozen=True)
class Asked:
    """What is asked for, before anything is drawn.

    Attributes:
        module: that draws. jobs: of standard sampling, and of the method beside it. path: its drawing in text.
        command: the command line that makes the same pictures.
    """

    module: Any
    jobs: Sequence[Job]
    path: str
    command: str


@dataclass(frozen=True)
class Picture:
    """A picture, with what is said of it.

    Attributes:
        image: as PIL has it. title: its method. said: rows, seconds, β and the checker's verdict. figure: of its trace,
            None where it has injected nothing.
    """

    image: Any
    title: str
    said: str
    figure: Any


def ask(values: Mapping[str, Any], form: Sequence[Field], prompt: str, settings: Any) -> Asked:
    """What the fields ask for.

    Raises:
        ValueError: for values that do not fit, in the words of `zigzag generate`.
    """
    module, jobs = asked(values, form, prompt, settings)
    path = tuple(jobs[-1].method.path(jobs[-1].settings.steps))
    return Asked(module, jobs, draw_path(path), shlex.join(jobs[-1].command()))


def draw(model: Any, what: Asked, stop: Event, report: Callable[[float, str], None]) -> Iterator[Picture]:
    """The pictures, each as soon as it is there.

    Args:
        model: that the module loaded. stop: ends a walk between two model calls, when it is set. report: is told after
            each move how much of all is done, in [0, 1], and what is under way.

    Raises:
        Stopped: when it is.
        ValueError, …: as the library, before the first model call wherever that can be known.
    """
    for k, job in enumerate(what.jobs):
        trace, moves = Trace(), len(tuple(job.method.path(job.settings.steps)))
        title = label(job.method)

        def tick(k: int = k, title: str = title, trace: Trace = trace, moves: int = moves) -> None:
            if stop.is_set():
                raise Stopped
            done = len(trace.records)
            report((k + done / moves) / len(what.jobs), f"{title}: {done} of {moves} moves")

        tick()
        begun = perf_counter()
        drawn: Drawn = what.module.draw(model, job, trace=trace, tick=tick)
        seconds = perf_counter() - begun
        beta = "" if trace.beta is None else f"β {float(trace.beta[0]):.2f} on average"
        said = [f"{drawn.rows} model rows", f"{seconds:.2f} s", beta, what.module.verdict(drawn.more)]
        yield Picture(drawn.image, title, " · ".join(filter(None, said)), plot(trace, job.settings.steps))
