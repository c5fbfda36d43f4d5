"""The jobs of `zigzag generate` as cells, so that any engine may draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

from zigzag.cli.jobs import Job, missing, stoppable
from zigzag.evaluation.cells import hashed
from zigzag.evaluation.engines import Refused, Shard, complete, left_of, share
from zigzag.evaluation.named import label
from zigzag.rows import row_bounds

__all__ = ["Drawing", "Loading", "cells_of", "draw_all"]


@dataclass(frozen=True)
class Loading:
    """What loads the model of settings, by the module that draws with it.

    Attributes:
        bars: whether the model is to show how far it is.
    """

    module: str
    settings: Any
    bars: bool = field(default=False, compare=False)

    def load(self) -> Any:
        """The model; raises as `load_model` of the module."""
        shown = {"progress": True} if self.bars else {}
        return import_module(self.module).load_model(self.settings, **shown)


@dataclass(frozen=True)
class Drawing:
    """A job, and what draws it: `draw(model, job)` of the worker's module.

    Attributes:
        cost: the fewest model rows that it takes; a pipeline may run both branches where one would do.
    """

    job: Job
    worker: Loading
    cost: int

    @property
    def digest(self) -> str:
        """Of where its image goes, which is named by all that it depends on."""
        return hashed(str(self.job.image))

    @property
    def about(self) -> str:
        """Method and prompt."""
        return f"{label(self.job.method)}, {self.job.prompt!r}"

    def done(self) -> bool:
        """Whether image and sidecar are there."""
        return self.job.done()

    def run(self, model: Any) -> None:
        """Draws the image, and writes it with its sidecar.

        Raises:
            Refused: for what does not fit the model, and so no other job.
        """
        try:
            drawn = import_module(self.worker.module).draw(model, self.job)
        except ValueError as error:
            raise Refused(str(error)) from error
        self.job.write(drawn.image, {"diffusers": version("diffusers")}, rows=drawn.rows, **drawn.more)


def draw_all(
    jobs: Sequence[Job],
    module: str,
    say: Callable[[str], None],
    progress: bool = False,
    engine: str | None = None,
    shard: Shard | None = None,
    bars: bool = False,
    verdict: Callable[[Job], str] = lambda job: "",
) -> None:
    """Draws what is not there of the jobs, or of a shard of them, and says of each where it is.

    Args:
        module: that has `load_model` and `draw`. bars: whether the model shows them, in place of one of all rows.
        verdict: what to say of an image besides.

    Raises:
        ValueError: for what does not fit the model.
        OSError: for a model that cannot be loaded, and where the folder cannot be written.
        Failed: after the others are drawn, for jobs that failed every time.
        KeyboardInterrupt: when interrupted, saying what is kept.
    """
    cells = cells_of(jobs, module, bars)
    if list(missing([cell.job for cell in share(cells, shard)], say)):
        with stoppable(jobs):
            complete(cells, engine, shard, progress=progress and engine is not None, each=partial(_wrote, say, verdict))
    if shard is not None:
        say(left_of(cells, shard, "whatever is left"))


def cells_of(jobs: Sequence[Job], module: str, bars: bool = False) -> list[Drawing]:
    """The cells of jobs with the same settings; the arguments as in `draw_all`."""
    s = jobs[0].settings
    methods = {repr(job.method): job.method for job in jobs}
    rows = {name: row_bounds(method, s.steps, s.strong, s.weak or 0.0)[0] for name, method in methods.items()}
    return [Drawing(job, Loading(module, s, bars), rows[repr(job.method)]) for job in jobs]


def _wrote(say: Callable[[str], None], verdict: Callable[[Job], str], cell: Any) -> None:
    text = verdict(cell.job)
    say(f"wrote {cell.job.image}{f'   {text}' if text else ''}")
