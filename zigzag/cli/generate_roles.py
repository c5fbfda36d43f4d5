"""Who predicts in `zigzag generate` by a pipeline: the roles, LoRA strengths and scales that its options ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from zigzag.adapters.diffusers.roles import Role
from zigzag.evaluation.hub import why_not_loaded
from zigzag.evaluation.pipelines import scale_of
from zigzag.guidance.base import finite
from zigzag.support.commands import one_line

__all__ = ["check_roles", "load_adapters", "places", "set_strengths", "told", "weak_of"]

V = TypeVar("V")


def check_roles(s: Any) -> None:
    """Says whether the options of the roles can be.

    Raises:
        ValueError: for a scale that is not finite, a text that is not NAME=VALUE, a name twice, and the strength of an
            adapter that `--adapter` does not name.
    """
    for name in ("guidance", "weak_guidance"):
        if getattr(s, name) is not None:
            finite(name.replace("_", "-"), getattr(s, name))
    loaded = places(s)
    for option in ("strong_adapter", "weak_adapter"):
        for name in _by_name(option, getattr(s, option), float, "a number"):
            if name not in loaded:
                raise ValueError(f"{_dashed(option)} {name!r} is not loaded: pass --adapter {name}=PLACE")


def places(s: Any) -> dict[str, str]:
    """Where the adapters are, by name.

    Raises:
        ValueError: for a text that is not NAME=PLACE, and a name twice.
    """
    return _by_name("adapter", s.adapter, str, "a place")


def load_adapters(pipe: Any, s: Any) -> None:
    """Loads the adapters by the pipeline's own LoRA functions.

    Raises:
        ValueError: for a pipeline that has none. OSError: for weights that cannot be loaded, saying why. ImportError:
            without peft, which they need.
    """
    for name, place in places(s).items():
        if not hasattr(pipe, "load_lora_weights"):
            raise ValueError(f"adapter {name!r}: {type(pipe).__name__} has no LoRA functions")
        try:
            pipe.load_lora_weights(place, adapter_name=name)
        except ImportError:
            raise
        except Exception as error:  # as of a pipeline's own files
            reason = one_line(error) if Path(place).exists() else why_not_loaded(place, error)
            raise OSError(f"cannot load adapter {name} from {place}: {reason}") from error


def set_strengths(pipe: Any, s: Any) -> None:
    """Sets the adapters to their strengths in the strong predictions: those asked for, or 1 of each."""
    if loaded := places(s):
        strong = _by_name("strong_adapter", s.strong_adapter, float, "a number") or dict.fromkeys(loaded, 1.0)
        pipe.set_adapters([*strong], [*strong.values()])


def weak_of(s: Any) -> float | Role | None:
    """The weak role: a scale of the pipeline's two branches, or what differs in the calls for it."""
    weak: dict[str, Any] = {
        "prompt": s.weak_prompt,
        "negative_prompt": s.weak_negative_prompt,
        "guidance": s.weak_guidance,
        "adapters": _by_name("weak_adapter", s.weak_adapter, float, "a number") or None,
    }
    return s.weak if all(value is None for value in weak.values()) else Role(**weak, cfg=s.weak)


def told(pipe: Any, s: Any) -> dict[str, Any]:
    """The arguments that say scales and the negative prompt to a pipeline.

    Raises:
        ValueError: for one that takes no such argument.
    """
    asked, kind = inspect.signature(type(pipe).__call__).parameters, type(pipe).__name__
    given = scale_of(pipe, s.strong)
    if s.negative_prompt is not None:
        if "negative_prompt" not in asked:
            raise ValueError(f"negative-prompt means nothing to {kind}")
        given["negative_prompt"] = s.negative_prompt
    if s.guidance is not None:
        if "guidance_scale" in given or "guidance_scale" not in asked:
            raise ValueError(f"guidance means nothing to {kind}, whose one scale is strong")
        given["guidance_scale"] = s.guidance
    return given


def _by_name(option: str, texts: Sequence[str], kind: Callable[[str], V], wanted: str) -> dict[str, V]:
    values: dict[str, V] = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not (name and given and value):
            raise ValueError(f"{_dashed(option)} must be a name, '=' and {wanted}, got {text!r}")
        if name in values:
            raise ValueError(f"{_dashed(option)} names {name!r} twice")
        try:
            values[name] = kind(value)
        except ValueError:
            raise ValueError(f"{_dashed(option)} {name!r} must be {wanted}, got {value!r}") from None
    return values


def _dashed(option: str) -> str:
    return option.replace("_", "-")
