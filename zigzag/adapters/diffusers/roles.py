"""Who predicts for the weak moves of an attached pipeline: an edit of its model's calls, or of what the model is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from torch import nn

from zigzag.checks import as_guidance
from zigzag.guidance import CFG, Guidance
from zigzag.guidance.base import finite

__all__ = ["Edit", "Prompt", "Role"]

Prompt: TypeAlias = "str | Sequence[str] | Mapping[str, Any]"
Edit: TypeAlias = "Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any]]"


@dataclass(frozen=True)
class Role:
    """What differs in the calls of a pipeline's model that are made for one role: `attach(…, weak=Role(…))`.

        Role(guidance=1.0)                                    # a lower embedded scale, of a distilled model
        Role(prompt="")                                       # another prompt
        Role(edit={"encoder_hidden_states": embeddings})      # other arguments of the model
        Role(adapters={"style": -1.5}, cfg=1.0)               # another LoRA strength, under another scale

    The pipeline makes each of these calls itself, in a pass of its loop of their own: at a state where a strong and a
    weak prediction are needed it is led through the same time twice, and `run.rows` counts both. So a role needs no
    unconditional branch, and works on guidance-distilled models. What is edited is put back after every call, and on
    leaving the block, also by an exception.

    (`zigzag.sample` has `weak_fn`, `weak_cond` and `weak_uncond` in place of this: there the model is called by the
    library, here by a pipeline whose calls can only be edited. `zigzag.roles.Role` is neither: it is a role as the
    loop knows it, a rule and the names of its branches.)

    Args:
        guidance: the embedded scale, in the unit of the pipeline's `guidance_scale`, of a model that takes one.
        prompt: in place of the pipeline's own: a text, one for each of a batch, or arguments of the pipeline's
            `encode_prompt`, such as `{"prompt_embeds": …, "pooled_prompt_embeds": …}`, one row or one for each.
        negative_prompt: the same for the unconditional branch, where the pipeline has one.
        edit: arguments of the model's forward by name that replace its own, in the calls of both branches, where there
            are two (embeddings that replace both leave nothing between them); or a function that is shown all of the
            call's and returns those. It is asked once more beforehand, at the first call of a loop, to see that they
            fit.
        adapters: by name the strengths that `pipe.set_adapters` is to give; adapters that are not named are off, and
            an empty mapping is the model without any.
        module: another network, called in place of the pipeline's model with the same arguments, all by name. It may be
            made of the pipeline's own, which it calls as it is; rows are those of its own calls.
        cfg: how the role joins its two branches, a number or a `Guidance`, where the pipeline evaluates two; by
            default as the pipeline does.

    Raises:
        TypeError, ValueError: for arguments that do not fit, or none that changes a call. What depends on the pipeline
            `attach` checks, and its loop before the first model call.

    Source: W2SD (Bai et al. 2502.00473) for adapters and networks; Karras et al. 2406.02507 for a weaker network.
    """

    guidance: float | None = None
    prompt: Prompt | None = None
    negative_prompt: Prompt | None = None
    edit: Edit | None = None
    adapters: Mapping[str, float] | None = None
    module: nn.Module | None = None
    cfg: float | Guidance | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, field.name) is None for field in fields(self) if field.name != "cfg"):
            raise ValueError(
                "Role changes no call of the model: pass guidance, prompt, negative_prompt, edit, adapters or module; "
                "for another scale of the same two branches pass the number itself, weak=0.0"
            )
        if self.guidance is not None:
            finite("Role: guidance", self.guidance)
        for name in ("prompt", "negative_prompt"):
            if not isinstance(getattr(self, name), None | str | Sequence | Mapping):
                raise TypeError(
                    f"Role: {name} must be a text, a list of them, or a mapping of arguments of the pipeline's "
                    f"encode_prompt, got {getattr(self, name)!r}"
                )
        if self.edit is not None and (isinstance(self.edit, type) or not isinstance(self.edit, Mapping | Callable)):
            raise TypeError(f"Role: edit must be a mapping of arguments, or a function of them, got {self.edit!r}")
        if self.adapters is not None and not isinstance(self.adapters, Mapping):
            raise TypeError(f"Role: adapters must map names to strengths, got {self.adapters!r}")
        for name, strength in (self.adapters or {}).items():
            finite(f"Role: adapters[{name!r}]", strength)
        if not isinstance(self.module, None | nn.Module):
            raise TypeError(f"Role: module must be an nn.Module, got {self.module!r}")
        if self.cfg is not None:
            as_guidance("Role: cfg", self.cfg)
        self._check_read()

    def _check_read(self) -> None:
        """Raises ValueError where a prompt is all that is edited, and of the branch that `cfg` leaves out."""
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        rule = given.pop("cfg", None)
        scale = rule.scale if isinstance(rule, CFG) else rule
        for name, left_out, branch in (("prompt", 0, "unconditional"), ("negative_prompt", 1, "conditional")):
            # A mapping may have the embeddings of both branches.
            both = isinstance(given.get(name), Mapping) and len({"negative" in key for key in given[name]}) > 1
            if given.keys() == {name} and isinstance(scale, int | float) and scale == left_out and not both:
                raise ValueError(f"Role: no prediction reads {name} at cfg={scale:g}, the {branch} branch alone")

    @property
    def prompts(self) -> bool:
        """Whether it has a prompt of its own."""
        return (self.prompt, self.negative_prompt) != (None, None)

    def __repr__(self) -> str:
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return f"Role({', '.join(f'{name}={_short(value)}' for name, value in given.items())})"


def _short(value: Any) -> str:
    """A value in messages: of networks and tensors only that they are there."""
    if isinstance(value, nn.Module):
        return f"{type(value).__name__}(...)"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name!r}: {_short(each)}' for name, each in value.items())}}}"
    return repr(value) if isinstance(value, int | float | str | Guidance) else "..."
