"""Scores by name: what the command line calls them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import torch

from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.scorers.base import Scorer
from zigzag.support.objects import find_object, names_object

__all__ = ["SCORERS", "scorer"]

SCORERS: Final = {
    "shapes": ("checker", "Checker"),
    "pickscore": ("pickscore", "PickScore"),
    "hpsv2": ("hpsv2", "HPSv2"),
    "aesthetic": ("aesthetic", "Aesthetic"),
    "clip": ("clip_score", "ClipScore"),
    "imagereward": ("image_reward", "ImageReward"),
    "imscore": ("imscore", "Imscore"),
    "geneval": ("geneval", "GenEval"),
}
"""The scores by the names that the command line gives them: the module of this package, and the class in it."""


def scorer(text: str, device: torch.device | str = "cpu", prompts: Sequence[Prompt] = ()) -> Scorer:
    """A score as one word, ready to be asked: its name, and options after a colon: "pickscore", "hpsv2:weights=FILE",
    "imscore:model=MPS"; or one of one's own, "module:object".

    Whatever is missing is said here, before anything is sampled. The weights are loaded.

    Args:
        device: where a score in the box runs; one of one's own sees to that itself.
        prompts: those that will be scored, for the scores that can be asked of some prompts alone.

    Raises:
        ValueError: for another name or option, listing those known; for an object that is not to be had, or is no
            `Scorer`; for a prompt that the score cannot be asked of.
        OSError: for weights that are not to be had, saying how they are fetched.
        ImportError: without the packages that the score needs, naming the extra that brings them.
    """
    name, _, rest = text.partition(":")
    if name not in SCORERS:
        if not names_object(text):
            raise ValueError(f"score must be one of {', '.join(SCORERS)}, or module:object, got {text!r}")
        return _own(text)
    module, kind = SCORERS[name]
    make = getattr(import_module(f"zigzag.evaluation.scorers.{module}"), kind)
    given: dict[str, Any] = {"device": device, "prompts": prompts}
    known = inspect.signature(make).parameters
    options = {key: value for key, value in given.items() if key in known}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if key not in known or key in given:
            named = ", ".join(key for key in known if key not in given)
            raise ValueError(f"score {name} has no option {key!r}; it has: {named or 'none'}")
        if not value:
            raise ValueError(f"score {name}: {key} must be given a value, as {key}=VALUE, got {item!r}")
        options[key] = value
    made: Scorer = make(**options)
    return made


def _own(text: str) -> Scorer:
    found = find_object(f"score must be one of {', '.join(SCORERS)}, or module:object;", text)
    if not isinstance(getattr(found, "name", None), str) or not callable(found) or not hasattr(found, "weights"):
        raise ValueError(f"score {text!r} must have name, weights() and __call__(prompts, images), got {found!r}")
    own: Scorer = found
    return own
