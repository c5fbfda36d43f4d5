"""The calls of a pipeline's models, their rows split over the ranks of a group for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from torch import Tensor, nn

from zigzag.adapters.diffusers.cast import NAMES, Cast, Source
from zigzag.adapters.diffusers.counting import arguments_of
from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.roles import Role
from zigzag.adapters.diffusers.stepping import name_of
from zigzag.adapters.diffusers.unfit import refuse_caches
from zigzag.parallel.pool import Pool
from zigzag.parallel.ranks import as_ranks
from zigzag.parallel.trees import rows_of

__all__ = ["split_calls"]

WHOLE: Final = ("image_rotary_emb", "img_ids", "txt_ids")  # of places, which all rows share


def split_calls(
    pipe: Any, models: Sequence[nn.Module], cast: Cast, playing: Callable[[], Source], group: Any, to: Patches
) -> None:
    """Splits the rows of each model until the patches are undone. To be called before anything else is replaced.

    Args:
        models: the pipeline's; those of roles are split too. cast: the roles. playing: whose pass the pipeline is in.
        group: as `attach` is given it. to: takes the changes.

    Raises:
        TypeError, ValueError: for what is no group, for a model with a cache, and for a network of a role that is made
            of the pipeline's own.
    """
    pool = Pool(as_ranks(group))
    roles: dict[Source, Role] = {name: role for name in NAMES if (role := cast.edits(name)) is not None}
    own = [role.module for role in roles.values() if role.module is not None]
    for module in own:
        if module not in models and not {*module.modules()}.isdisjoint(models):
            raise ValueError(
                f"split: {name_of(module)} is made of the pipeline's own network, whose rows would be split once more "
                "within its calls; make it of a copy, or leave split out"
            )
    models = list({id(model): model for model in (*models, *own)}.values())
    refuse_caches(models)
    to.enter_context(pool.together("the attach block"))

    def call(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if getattr(pipe, "do_perturbed_attention_guidance", False):
            raise ValueError(
                "split: the pipeline does perturbed-attention guidance, whose attention takes the batch apart by its "
                "branches, so that its rows cannot be split; set pag_scale=0, or leave split out"
            )
        state: Any = next(iter(arguments_of(args, kwargs)), None)
        if not isinstance(state[0] if isinstance(state, list) and state else state, Tensor):
            raise ValueError(f"split: {name} is called with no state first, whose rows could be split")
        role = roles.get(playing())
        # LoRA strengths are set for the time of a call, which cannot be made later then.
        waits = role is None or role.adapters is None
        take = partial(_take, rows=len(state), listed=isinstance(state, list))
        return pool.call(name, original, args, kwargs, state, take, waits)

    for k, model in enumerate(models):
        # After `model.compile()` a call does not go through `forward`.
        way = "forward" if getattr(model, "_compiled_call_impl", None) is None else "_compiled_call_impl"
        name = name_of(model) if len(models) == 1 else f"{name_of(model)}, {k + 1} of {len(models)},"
        to.wrap(model, way, partial(call, name))


def _take(
    args: Sequence[Any], kwargs: Mapping[str, Any], at: slice, *, rows: int, listed: bool
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Some rows of the arguments: of encodings too that come a row for each frame of a row (AnimateDiff)."""
    whole = {name: kwargs[name] for name in WHOLE if name in kwargs}
    args, taken = rows_of(args, {k: v for k, v in kwargs.items() if k not in whole}, at, rows=rows, listed=listed)
    e = kwargs.get("encoder_hidden_states")
    if isinstance(e, Tensor) and e.ndim == 3 and len(e) > rows and len(e) % rows == 0:
        each = len(e) // rows
        whole["encoder_hidden_states"] = e[at.start * each : at.stop * each]
    return args, {**taken, **whole}
