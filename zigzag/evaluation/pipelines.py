"""Text-to-image pipelines of diffusers, as the commands load and call them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging

from zigzag.evaluation.hub import why_not_loaded
from zigzag.support.commands import one_line

__all__ = ["files_of", "first_order", "load_pipeline", "scale_of", "scheduled", "silenced", "size_of"]


@contextmanager
def silenced(bars: bool) -> Iterator[None]:
    """No warnings of the loaders, whose errors say it all once more, and no bars of theirs where none are wanted."""
    loggers = [diffusers_logging]
    if find_spec("transformers") is not None:
        from transformers.utils import logging as transformers_logging

        loggers.append(transformers_logging)
    before = [(logger, logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        if bars:
            logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger, verbosity, enabled in before:
            logger.set_verbosity(verbosity)
            if enabled:
                logger.enable_progress_bar()


def files_of(folder: Path) -> list[tuple[str, int, int]]:
    """The files of a local model, with sizes and dates; of one on the hub none, it is known by its name."""
    within = folder.resolve().rglob("*") if folder.is_dir() else [folder.resolve()]
    files = sorted(path for path in within if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def load_pipeline(settings: Any) -> Any:
    """The pipeline of a local folder or the hub, on its device, with its own scheduler.

    Raises:
        OSError: if it cannot be loaded, saying which file is missing.
        ValueError: for a pipeline that makes no images from a prompt.
    """
    load: Any = DiffusionPipeline.from_pretrained
    local = Path(settings.model).is_dir()
    if local and not (Path(settings.model) / "model_index.json").is_file():
        raise FileNotFoundError(f"model {settings.model} has no model_index.json: it is no diffusers pipeline")
    try:
        pipe = load(
            settings.model,
            dtype=getattr(torch, settings.dtype),
            low_cpu_mem_usage=find_spec("accelerate") is not None,
        )
    except Exception as error:  # the hub's client has errors of many kinds; all mean that a file could not be had
        reason = one_line(error) if local else why_not_loaded(settings.model, error)
        raise OSError(f"cannot load model {settings.model}: {reason}") from error
    asked = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in asked or "height" not in asked or "num_frames" in asked:
        raise ValueError(f"model {settings.model} is a {type(pipe).__name__}, which makes no image from a prompt alone")
    return pipe.to(settings.device)


@contextmanager
def scheduled(pipe: Any, kind: str, steps: int) -> Iterator[None]:
    """While it is called, the pipeline has the scheduler that is asked for: its own ("keep"), or `first_order` ("ddim")
    on so many steps."""
    own = pipe.scheduler
    if kind == "ddim":
        pipe.scheduler = first_order(own, steps)
    try:
        yield
    finally:
        pipe.scheduler = own


def first_order(scheduler: Any, steps: int) -> Any:
    """DDIM on the noise schedule of a diffusion model's scheduler, FlowMatchEuler on that of a flow's.

    The spacing of the time steps is kept where DDIM's steps chain on it, and else is Stable Diffusion's "leading".
    Schedulers that are neither a diffusion's nor a DPM-Solver's of a flow are left as they are.
    """
    config = scheduler.config
    make_ddim, make_flow = (cast(Any, kind) for kind in (DDIMScheduler, FlowMatchEulerDiscreteScheduler))
    if config.get("prediction_type") == "flow_prediction":
        return make_flow(shift=config.get("flow_shift", 1.0))
    if not hasattr(scheduler, "alphas_cumprod"):
        return scheduler
    chains = {"leading": True, "trailing": config.num_train_timesteps % steps == 0}
    keeps = chains.get(config.get("timestep_spacing"), False)
    spacing = {} if keeps else {"timestep_spacing": "leading", "steps_offset": 1}
    return make_ddim.from_config(config, clip_sample=False, thresholding=False, **spacing)


def scale_of(pipe: Any, scale: float) -> dict[str, Any]:
    """The arguments that say a guidance scale w to a pipeline."""
    if type(pipe).__name__.startswith("ZImage"):  # counts the scale from the conditional prediction
        return {"guidance_scale": scale - 1}
    # Pipelines of guidance-distilled models keep guidance_scale for what the model is told.
    if "true_cfg_scale" in inspect.signature(type(pipe).__call__).parameters:
        return {"true_cfg_scale": scale, "negative_prompt": ""}
    return {"guidance_scale": scale}


def size_of(pipe: Any, size: int) -> dict[str, Any]:
    """The arguments that say a height and width to a pipeline; one that would go to a size of its own list does not."""
    bins = {"use_resolution_binning": False}
    taken = inspect.signature(type(pipe).__call__).parameters
    return {"height": size, "width": size, **{name: value for name, value in bins.items() if name in taken}}
