"""The calls of a pipeline's model, edited as the role has it whose pass the pipeline is in, and where they end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from zigzag.adapters.diffusers.cast import NAMES, Source
from zigzag.adapters.diffusers.encodings import Encodings
from zigzag.adapters.diffusers.lora import Strengths, check_adapters
from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.predictors import arguments_of_forward, not_taken
from zigzag.adapters.diffusers.progress import Progress
from zigzag.adapters.diffusers.roles import Role
from zigzag.adapters.diffusers.timesteps import with_data
from zigzag.adapters.diffusers.unfit import refuse_caches, refuse_kept

__all__ = ["Edits"]

END: Final = "timestep_r"  # by which models of mean velocities (meanflow) are told where the step ends


class Edits:
    """Stands between a pipeline and its models, and edits the calls that are made for a `Role`.

    Args:
        now: what is attached, and whose pass it is in. models: the pipeline's.

    Raises:
        TypeError, ValueError: for a role that the pipeline has nothing for.
    """

    def __init__(self, now: Progress, models: Sequence[nn.Module]) -> None:
        self.now, self.models = now, models
        self.roles: dict[Source, Role] = {name: role for name in NAMES if (role := now.cast.edits(name)) is not None}
        self.encodings = Encodings(self.roles)
        self.strengths = {
            name: _as_it_is if role.adapters is None else Strengths(now.pipe, role.adapters)
            for name, role in self.roles.items()
        }
        self._checked: tuple[object, list[nn.Module]] = None, []  # of the loop under way, the models called in it
        self._within = False  # a role's module, whose calls of the pipeline's own network are part of its one
        for name, role in self.roles.items():
            self._check(name, role)

    def take_over(self, patches: Patches) -> None:
        """Goes between, until `patches` are undone."""
        if self.encodings.wanted:
            patches.wrap(self.now.pipe, "encode_prompt", self.encodings.encode)
        for model in self.models:
            if not self.roles and END not in arguments_of_forward(model):
                continue
            # Before hooks, and whatever else wraps a model's forward: what they do, they do for the edited call.
            original = model._compiled_call_impl or model._call_impl
            patches.set(model, "_compiled_call_impl", partial(self._call, model, original))

    def outside(self, saw: Callable[..., None]) -> Callable[..., None]:
        """`saw`, told of the pipeline's calls alone, and not of those that a role's module makes of its network."""
        return lambda *call: None if self._within else saw(*call)

    def _check(self, name: Source, role: Role) -> None:
        pipe = self.now.pipe
        if role.adapters is not None:
            check_adapters(name, pipe, role.adapters)
        if role.module is not None:
            if len(self.models) > 1:
                raise ValueError(
                    f"{name}={role!r}: module would take the place of each of the {len(self.models)} models of "
                    f"{type(pipe).__name__}; it works on pipelines of one"
                )
            refuse_caches([role.module])
        if role.prompts and not callable(getattr(pipe, "encode_prompt", None)):
            raise TypeError(f"{name}={role!r}: {type(pipe).__name__} has no encode_prompt; pass edit=")

    def _call(self, model: nn.Module, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of a call of `model`."""
        if self._within:
            return original(*args, **kwargs)
        now, kwargs = self.now, self._ending(kwargs)
        loop, known = self._checked
        if now.loop is not None and not now.stepped and (now.loop is not loop or model not in known):
            self._checked = now.loop, [model, *(known if now.loop is loop else ())]
            for name in dict.fromkeys(each.source for each in now.loop.passes if each.source in self.roles):
                self._edited(name, model, args, kwargs)
        self.encodings.used()
        if now.playing not in self.roles:
            return original(*args, **kwargs)
        role, arguments = self.roles[now.playing], self._edited(now.playing, model, args, kwargs)
        with self.strengths[now.playing](now.loop):
            if role.module is not None:
                self._within = True
                try:
                    return role.module(**arguments)
                finally:
                    self._within = False
            # What came by its place goes by its place: hooks may look there.
            placed = [arguments.pop(argument) for argument, _ in zip(arguments_of_forward(model), args, strict=False)]
            return original(*placed, **arguments)

    def _ending(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """With the time where the step of this call ends, for which a pipeline takes that of its next call."""
        now, end = self.now, kwargs.get(END)
        if not isinstance(end, Tensor) or now.loop is None or now.loop.ended or now.told is None or now.plan is None:
            return kwargs
        call = now.plan.layout.call(now.loop.asked[now.loop.calls])
        return kwargs | {END: with_data(now.grid.times)[call + 1].expand(end.shape).to(end)}

    def _edited(self, name: Source, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, as the role of that name has them.

        Raises:
            TypeError, ValueError: for an edit that does not fit the model, or the call.
        """
        role, known = self.roles[name], arguments_of_forward(model)
        arguments = {**dict(zip(known, args, strict=False)), **kwargs}
        refuse_kept(name, role, self.now.pipe, arguments)
        if role.guidance is not None:
            arguments |= self._guidance(name, role.guidance, arguments)
        if role.prompts:
            arguments = self.encodings.exchanged(name, arguments)
        if role.edit is not None:
            edit = role.edit(arguments) if callable(role.edit) else role.edit
            if not isinstance(edit, Mapping):
                raise TypeError(f"{name}={role!r}: edit must return a mapping of arguments, got {type(edit).__name__}")
            if unknown := sorted(edit.keys() - known.keys()):
                raise TypeError(
                    f"{name}={role!r}: edit has {', '.join(unknown)}, which {type(model).__name__} does not take; it "
                    f"takes {', '.join(known)}"
                )
            arguments.update(edit)
        if role.module is not None and (unknown := not_taken(role.module, arguments)):
            raise TypeError(
                f"{name}={role!r}: the pipeline calls its model with {', '.join(unknown)}, which module does not take"
            )
        return arguments

    def _guidance(self, name: Source, scale: float, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """The argument that has the embedded scale, as a number (Flux) or as an embedding of it (LCM)."""
        role, pipe = self.roles[name], self.now.pipe
        own, vector = arguments.get("guidance"), arguments.get("timestep_cond")
        given = getattr(pipe, "guidance_scale", None)
        embed = getattr(pipe, "get_guidance_scale_embedding", None)
        if isinstance(own, Tensor):
            told = float(own.flatten()[0])
            if isinstance(given, int | float) and given * told > 0:
                # As it is, or 1000 times (HunyuanVideo).
                return {"guidance": torch.full_like(own, scale * 10.0 ** round(math.log10(told / given)))}
        elif isinstance(vector, Tensor) and embed is not None and isinstance(given, int | float):
            mine, other = (_embedded(embed, vector, of) for of in (given, scale))
            if torch.equal(mine, vector):
                return {"timestep_cond": other}
        else:
            raise ValueError(
                f"{name}={role!r}: the pipeline's model is told no embedded guidance scale; guidance is for models "
                "distilled with one. Pass another prompt, edit=, adapters=, or a number for guidance by two branches"
            )
        raise ValueError(
            f"{name}={role!r}: the unit of the embedded scale cannot be read off the pipeline's own, "
            f"guidance_scale={given!r}; pass edit= with the model's own argument"
        )


def _as_it_is(loop: object) -> AbstractContextManager[None]:
    """The strengths of a role without any."""
    return nullcontext()


def _embedded(embed: Callable[..., Tensor], like: Tensor, scale: float) -> Tensor:
    """The embedding of a scale that latent consistency models are told, which count it from 1 on."""
    return embed(torch.tensor(scale - 1).repeat(len(like)), embedding_dim=like.shape[-1]).to(like)
