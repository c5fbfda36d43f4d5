"""`zigzag generate`: the standard and the zigzag image of each prompt, by any text-to-image pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zigzag.adapters.diffusers.attach import attach, models_of
from zigzag.cli.drawing_cells import draw_all
from zigzag.cli.generate_roles import check_roles, load_adapters, places, set_strengths, told, weak_of
from zigzag.cli.jobs import Drawn, Job, check_pipeline, check_sampling, check_size, plan
from zigzag.evaluation.engines import Shard
from zigzag.evaluation.pipelines import files_of, load_pipeline, scheduled, silenced
from zigzag.methods import Method
from zigzag.trace import Trace

__all__ = ["PROMPTS", "Settings", "draw", "generate", "load_model", "verdict"]

# The prompts of the published infer.py, spelled as there: a figure can be compared with them only by the same words.
PROMPTS = (
    "A Man on a Bicycle, MineScaft Style",
    "A small yellow dog.",
    "A Man on a Bicycle, in the style of Van Gogh's Starry Night.",
)


@dataclass(frozen=True)
class Settings:
    """All that an image depends on besides its prompt and its method.

    `strong` and `weak` are the scales `w` of denoising and inversion, as in the released code (not the γ of the
    paper's eq. 5); `weak=None` joins the branches of a weak role as the pipeline does. The others are the options of
    the roles: see `zigzag.cli.generate_roles`.
    """

    model: str
    strong: float
    weak: float | None
    steps: int
    image_size: int
    seed: int
    device: str
    dtype: str
    scheduler: str
    negative_prompt: str | None = None
    guidance: float | None = None
    weak_prompt: str | None = None
    weak_negative_prompt: str | None = None
    weak_guidance: float | None = None
    adapter: tuple[str, ...] = ()
    strong_adapter: tuple[str, ...] = ()
    weak_adapter: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_sampling(self)
        check_size(self.image_size)
        check_pipeline(self)
        check_roles(self)


def generate(
    settings: Settings,
    prompts: Sequence[str],
    method: Method,
    out: Path,
    progress: bool = False,
    say: Callable[[str], None] = print,
    engine: str | None = None,
    shard: Shard | None = None,
) -> list[Path]:
    """Writes, for each prompt, the image of standard sampling and that of `method` from the same noise.

    Each image `<slug>-<hash>-<method>.png` has a sidecar of the same name in JSON: the settings, the versions and the
    rows, and the command that makes it again. The hash is of the settings, the prompt, the method and, for a model in
    a folder, of its place and its files' sizes and dates, so that no two overwrite each other; what is already there,
    with its sidecar, is skipped.

    Args:
        engine, shard: as in `zigzag.evaluation.engines.run`.

    Returns:
        The paths of the images, in order, skipped ones included.

    Raises:
        ValueError: for an empty prompt, a number of steps that the method does not take, a pipeline without images,
            and a scheduler whose steps cannot be led.
        OSError: for a model that cannot be loaded, saying why; where the folder cannot be written.
        Failed: after the others are there, for images that failed every time.
        KeyboardInterrupt: when interrupted, saying what is kept.
    """
    files = [files_of(Path(place)) for place in (settings.model, *places(settings).values())]
    jobs = plan(settings, prompts, method, out, [file for each in files for file in each])
    draw_all(jobs, __name__, say, progress, engine, shard, bars=progress and engine is None)
    return [job.image for job in jobs]


def load_model(settings: Settings, progress: bool = False) -> Any:
    """The pipeline with its adapters, on its device; with bars, or without.

    Raises:
        OSError, ValueError: as `load_pipeline` and `load_adapters`.
    """
    with silenced(not progress):
        pipe = load_pipeline(settings)
        load_adapters(pipe, settings)
    pipe.set_progress_bar_config(disable=not progress)
    return pipe


def draw(pipe: Any, job: Job, trace: Trace | None = None, tick: Callable[[], None] | None = None) -> Drawn:
    """The image of a job.

    Args:
        trace: filled with the walk. tick: called before each call of the pipeline's model; what it raises ends the
            walk, and the pipeline is as it was.

    Raises:
        ValueError: for what does not fit the pipeline, before the first model call.
    """
    s: Settings = job.settings
    call = {
        "prompt": job.prompt,
        "height": s.image_size,
        "width": s.image_size,
        "num_inference_steps": s.steps,
        # On the host: the same noise on every device.
        "generator": torch.Generator("cpu").manual_seed(s.seed),
        **told(pipe, s),
    }
    set_strengths(pipe, s)
    try:
        with scheduled(pipe, s.scheduler, s.steps):
            config = _plain(dict(pipe.scheduler.config))
            with ticking(pipe, tick), attach(pipe, job.method, weak=weak_of(s), trace=trace) as run:
                image = pipe(**call).images[0]
    except ValueError as error:
        if not str(error).startswith("scheduler: "):
            raise
        raise ValueError(f"{error}; or pass --scheduler ddim") from error
    return Drawn(image, run.rows, {"pipeline": type(pipe).__name__, "scheduler_config": config})


def verdict(said: Mapping[str, Any]) -> str:
    """Nothing: nobody here knows what such an image shows."""
    return ""


@contextmanager
def ticking(pipe: Any, tick: Callable[[], None] | None) -> Iterator[None]:
    """Calls `tick` before each call of the pipeline's models."""

    def called(*_: Any) -> None:
        if tick is not None:
            tick()

    hooks = [model.register_forward_pre_hook(called) for model in models_of(pipe)] if tick is not None else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if isinstance(value, str | int | float | bool | None | list)}
