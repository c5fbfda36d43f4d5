"""Predictors `eps_fn(x, t, cond)` over diffusers' U-Nets and transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.adapters.diffusers.conventions import CONVENTIONS, UNET, Convention, convention_of
from zigzag.adapters.diffusers.probing import input_factors
from zigzag.adapters.diffusers.schedulers import prediction_of, solver_from_scheduler
from zigzag.adapters.diffusers.stepping import detached, name_of
from zigzag.adapters.diffusers.unfit import refuse_caches
from zigzag.sampling import Predictor
from zigzag.solvers import Solver
from zigzag.solvers.affine import state_dtype
from zigzag.solvers.predictions import MadeFor, made_for

__all__ = ["arguments_of_forward", "dit_predictor", "unet_predictor"]

CONCAT = "concat"


def unet_predictor(unet: Any, *, scheduler: Any = None, common: Mapping[str, Any] | None = None) -> Predictor:
    """A predictor over a U-Net of diffusers: 2D, 3D, motion (AnimateDiff), and whatever is called `(sample, timestep)`.

    Args:
        unet: `UNet2DConditionModel`, `UNet3DConditionModel`, `UNetMotionModel`, …, also compiled, with offload hooks,
            or wrapped (a PeftModel, DataParallel, DDP, FSDP): the wrapper is called, what it wraps tells how.
        scheduler: the one the solver was read off, its grid set. Needed where it scales the model's input, as
            `EulerDiscreteScheduler` does: x becomes `x/√(1 + σ²)`. The predictor is then made for the grid that is
            set now: `walk` refuses another, and called by hand at a time off it, it returns NaN. The first walk reads
            the grid off the scheduler's steps, which takes 0.1 to 3 s.
        common: arguments of `forward` that hold no batch and are the same for both conditions; see `dit_predictor`.

    Returns:
        `eps_fn(x, t, cond)`, whose `cond` is a mapping of the U-Net's own arguments (`encoder_hidden_states`,
        `added_cond_kwargs`, …) as its pipeline passes them: on the U-Net's device, embeddings in its dtype, and for
        AnimateDiff once a frame. The key `concat` is a tensor that is put behind the (scaled) state's channels: the
        mask and masked image of an inpainting U-Net. What comes back is the U-Net's output as it is, without the half
        of it that is a learned variance: it predicts what the scheduler's configuration, and so the solver, says.
        `walk` refuses a solver of another prediction; without a scheduler any is taken.

    Raises:
        TypeError: for a model that is not called `(sample, timestep)`; at a call, before the model runs, for a
            `cond` that is not a mapping, or has arguments that `forward` lacks, or lacks what it needs.
        ValueError: for a scheduler whose grid is not set, or does not tell the scale from the time.
    """
    forward = arguments_of_forward(unet)
    if not {"sample", "timestep"} <= forward.keys():
        kind = "a transformer; use dit_predictor" if "hidden_states" in forward else "no U-Net of diffusers"
        raise TypeError(f"unet must be called (sample, timestep, ...), got {name_of(_bare(unet))}, which is {kind}")
    # Stable Video Diffusion's alone counts (B, F, C, H, W).
    spatio_temporal = "UNetSpatioTemporalConditionModel" in (cls.__name__ for cls in type(_bare(unet)).__mro__)
    convention = Convention(state="sample", channels=2) if spatio_temporal else UNET
    return _predictor(unet, convention, scheduler, common)


def dit_predictor(
    transformer: Any,
    *,
    scheduler: Any = None,
    common: Mapping[str, Any] | None = None,
    convention: Convention | None = None,
) -> Predictor:
    """A predictor over a transformer of diffusers, told the time and read as its pipeline does it.

    Flux, Chroma, Qwen-Image and AuraFlow are told `t/1000`, Lumina and Z-Image `1 − t/1000`, Sana a multiple of `t`,
    the others `t`, which is the time step of diffusers' schedulers, 0 to 1000: `solver_from_scheduler` has them, and
    `FlowEuler.uniform(time_scale=1000)`. The velocity of Lumina and Z-Image points to the data and is negated.

    Args:
        transformer: one of `zigzag.adapters.diffusers.conventions.CONVENTIONS`, also compiled, with offload hooks, or
            wrapped, as a U-Net may be. The state has the shape that its pipeline works on: packed `(B, S, C)` for Flux,
            Flux2, Chroma, Qwen-Image and LTX, `(B, F, C, H, W)` for CogVideoX, `(B, C, F, H, W)` for other video
            models.
        scheduler: the one the solver was read off. It tells the number of training steps (1000 without it), and what
            the model's input is scaled by, if it is.
        common: arguments of `forward` that hold no batch and are the same for both conditions: `img_ids`, `txt_ids`,
            `image_rotary_emb`, `attention_kwargs`. The two conditions can then be doubled into one batch.
        convention: how to call a transformer that is not listed.

    Returns:
        `eps_fn(x, t, cond)`, as of `unet_predictor`. What a listed flow transformer predicts is known without a
        scheduler too.

    Raises:
        TypeError: for a transformer that is not listed, without a `convention`; at a call as in `unet_predictor`.
        ValueError: for a flow transformer with a scheduler that predicts something else, one with a cache enabled
            (which a path that visits a time twice would misread), or a scheduler as in `unet_predictor`.
    """
    convention = convention or convention_of(_bare(transformer))
    if convention is None:
        kind = "a U-Net; use unet_predictor" if "sample" in arguments_of_forward(transformer) else "not listed"
        raise TypeError(
            f"transformer: {name_of(_bare(transformer))} is {kind}. Known are {', '.join(CONVENTIONS)}; for another "
            "pass convention=Convention(...), as its pipeline's denoising loop calls it"
        )
    predicted = None if scheduler is None else prediction_of(scheduler)
    if None not in (predicted, convention.prediction) and predicted != convention.prediction:
        raise ValueError(
            f"scheduler: {name_of(scheduler)} takes predictions of {predicted!r}, but {name_of(_bare(transformer))} "
            f"predicts {convention.prediction!r}"
        )
    return _predictor(transformer, convention, scheduler, common)


def _predictor(model: Any, convention: Convention, scheduler: Any, common: Mapping[str, Any] | None) -> Predictor:
    refuse_caches([_bare(model)])
    channels = convention.channels
    N = 1000 if scheduler is None else scheduler.config.num_train_timesteps
    scale = None if scheduler is None else _input_scaling(scheduler)
    merged = _argument_check(model, convention, dict(common or {}))
    bare = _bare(model)
    home = _home(bare)
    compiled = any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in (model, bare))

    def predict(x: Tensor, t: Tensor, cond: Any) -> Any:
        arguments = merged(cond)
        concat = arguments.pop(CONCAT, None)
        sample = x if scale is None else scale(x, t)
        # An offloaded model moves its inputs itself, from wherever they are; its own device is that of its rest.
        device, dtype = home()
        device = x.device if hasattr(bare, "_hf_hook") else device
        sample, t = sample.to(device, dtype), t.to(device)
        if concat is not None:
            sample = torch.cat([sample, concat.to(sample)], channels)
        arguments[convention.state] = list(sample.unsqueeze(2)) if convention.listed else sample
        arguments[convention.time_name] = convention.told(t, N, bare, dtype)
        e = model(**arguments, return_dict=False)[0]
        if convention.listed:
            e = torch.stack(e).squeeze(2)
        if e.ndim == x.ndim and e.shape[channels] == 2 * x.shape[channels]:
            e = e.chunk(2, channels)[0]
        if compiled:
            e = e.clone()  # what a captured graph returns, its next call overwrites
        return (-e if convention.negated else e).to(x.device)

    said: Any = convention.prediction
    if scale is not None:
        return _Scaled(predict, said, detached(scheduler))
    if said is None and scheduler is not None:
        said = prediction_of(scheduler)
    return predict if said is None else made_for(predict, said)


class _Scaled:
    """A predictor whose scheduler scales the model's input by its grid, and which was so made for that grid.

    The grid is read off the scheduler's steps, which may take seconds: not until a walk asks.

    Args:
        predict: the predictor itself. said: what it predicts; None, if the scheduler is to say it. scheduler: a copy
            that nothing else sets another grid on.
    """

    def __init__(self, predict: Predictor, said: Any, scheduler: Any) -> None:
        self.__wrapped__ = predict  # by the name that a capture finds the model by
        self._said, self._scheduler = said, scheduler

    def __call__(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return self.__wrapped__(x, t, cond)

    @cached_property
    def made_for(self) -> MadeFor | None:
        """What it predicts, also where only the steps say it, as EDM's, and the grid."""
        grid, said = _grid_of(self._scheduler), self._said
        if said is None:
            said = prediction_of(self._scheduler) if grid is None else grid.prediction
        return None if said is None else MadeFor(said, grid)


def _grid_of(scheduler: Any) -> Solver | None:
    """The grid that a scheduler scales the model's input on; None where its steps or levels cannot be read off it."""
    try:
        solver = solver_from_scheduler(scheduler)
    except (ValueError, TypeError):  # one that no solver of this library steps as may still be sampled with another
        return None
    return solver if solver.alphas.isfinite().all() else None


def _home(model: Any) -> Callable[[], tuple[torch.device, torch.dtype]]:
    """The device and the dtype of a model, as its own properties say, which walk all of its modules for it.

    For SDXL that takes milliseconds. They are asked again only where the first parameter says that the model moved.
    """
    known: dict[tuple[torch.device, torch.dtype], tuple[torch.device, torch.dtype]] = {}

    def home() -> tuple[torch.device, torch.dtype]:
        first = next(model.parameters())
        key = (first.device, first.dtype)
        if key not in known:
            known.clear()
            known[key] = (model.device, model.dtype)
        return known[key]

    return home


def _input_scaling(scheduler: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What a scheduler does to the model's input, as a function of the time; None if it leaves it alone."""
    factors = input_factors(scheduler)
    if factors is None:
        return None
    times = scheduler.timesteps.detach().cpu()
    on_device: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def scale(x: Tensor, t: Tensor) -> Tensor:
        key = (t.device, t.dtype)
        if key not in on_device:
            on_device[key] = (times.to(*key), factors.to(t.device, state_dtype(t.dtype)))
        grid, factor = on_device[key]
        here = t.unsqueeze(-1) == grid
        # Wrong without a word would be worse than NaN, and an error would have to wait for the device.
        found = factor[here.int().argmax(-1)].where(here.any(-1), torch.nan)
        return (x * found.reshape(-1, *(1,) * (x.ndim - 1))).to(x.dtype)

    return scale


def _argument_check(
    model: Any, convention: Convention, common: dict[str, Any]
) -> Callable[[Mapping[str, Any] | None], dict[str, Any]]:
    """`cond` merged with what is common, checked against `forward` before the model runs."""
    forward, name = arguments_of_forward(model), name_of(_bare(model))
    given = {convention.state, convention.time_name, "return_dict"}
    known = (forward.keys() - given) | {CONCAT}
    needed = {key for key, argument in forward.items() if argument.default is argument.empty} - given
    config = _bare(model).config
    if config.get("guidance_embeds") and "guidance" in forward:
        needed.add("guidance")
    if config.get("addition_embed_type") is not None and "added_cond_kwargs" in forward:
        needed.add("added_cond_kwargs")
    if not common.keys() <= known:
        raise TypeError(f"common: {name} takes no {', '.join(sorted(common.keys() - known))}")

    def merged(cond: Mapping[str, Any] | None) -> dict[str, Any]:
        if cond is not None and not isinstance(cond, Mapping):
            raise TypeError(
                f"cond must be a mapping of the arguments of {name}, such as {{'encoder_hidden_states': ...}}, got "
                f"{type(cond).__name__}"
            )
        arguments = {**common, **(cond or {})}
        if not arguments.keys() <= known:
            raise TypeError(f"cond: {name} takes no {', '.join(sorted(arguments.keys() - known))}")
        if not needed <= arguments.keys():
            raise TypeError(f"cond: {name} needs {', '.join(sorted(needed - arguments.keys()))}")
        return arguments

    return merged


def _bare(model: Any) -> Any:
    """The network of diffusers within what wraps it: a compiled module, a PeftModel, DataParallel, DDP."""
    while isinstance(model, nn.Module):
        parts, base = model._modules, getattr(type(model), "get_base_model", None)
        inner = base(model) if base is not None else parts.get("_orig_mod", parts.get("module"))
        if not isinstance(inner, nn.Module) or inner is model:
            break
        model = inner
    return model


def arguments_of_forward(model: Any) -> dict[str, inspect.Parameter]:
    """What the forward of the network within `model` takes, by name."""
    forward = getattr(type(_bare(model)), "forward", None)
    if forward is None:
        raise TypeError(f"the model must be a module of diffusers, got {model!r}")
    parameters = inspect.signature(forward).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in ("self", "args", "kwargs")}


def not_taken(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Which arguments the network within `model` does not take; one that wraps another may take whatever comes."""
    forward = inspect.signature(type(_bare(model)).forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in forward):
        return []
    return sorted({*names} - arguments_of_forward(model).keys())
