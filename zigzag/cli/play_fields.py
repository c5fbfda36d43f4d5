"""The fields of the page of `zigzag play`: the options of `zigzag generate`, and what is typed as its command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any, Final, Literal, NoReturn, get_args, get_type_hints

from zigzag.cli.generate import add_drawing_options, settled
from zigzag.cli.jobs import SCHEDULERS, Job, plan
from zigzag.cli.options import option
from zigzag.evaluation.named import METHODS
from zigzag.evaluation.solvers import SHORT, SOLVERS
from zigzag.support.commands import Parser

__all__ = ["EMPTY", "LOADED", "Field", "asked", "fields_of"]

LOADED: Final = ("model", "device", "dtype", "adapter")
"""What a model is loaded with: settled when the page is opened, and no fields of it."""

EMPTY: Final = '""'
"""How an empty text is written in a field, which left empty is not given."""

CHOICES: Final = {"method": tuple(METHODS), "scheduler": SCHEDULERS, "solver": (*SOLVERS, *SHORT)}

Kind = Literal["text", "list", "number", "integer", "flag", "choice"]


@dataclass(frozen=True)
class Field:
    """One field of the page.

    Attributes:
        name: the destination of the option. label: as on the command line, without its dashes. help: what it is.
        kind: of what is typed. value: at first; None where it is not given. optional: whether it may be left out.
        choices: to choose from. default: what it is where it is left out, of an option of methods by method.
    """

    name: str
    label: str
    help: str
    kind: Kind
    value: Any
    optional: bool
    choices: tuple[str, ...]
    default: Mapping[str, str]

    def of(self, method: str) -> bool:
        """Whether it is one of a method, or of all."""
        return not self.default or method in self.default


class Reader(Parser):
    """Reads what is typed in a page, which an error does not end."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong.

        Raises:
            ValueError: with it.
        """
        raise ValueError(message.removeprefix("argument "))


def reader() -> Reader:
    """A parser of all that an image depends on."""
    made = Reader(prog="zigzag play", add_help=False, allow_abbrev=False)
    add_drawing_options(made)
    return made


def fields_of(args: argparse.Namespace, settings: Any) -> list[Field]:
    """The fields of a page, with what was given on the command line in them: method, settings, options of the methods.

    Args:
        args: as given, not settled. settings: as they were settled.
    """
    known, hints = reader().options(), get_type_hints(type(settings))
    made = [_field(known["method"], args.method)]
    for field in fields(settings):
        if field.name not in LOADED and (field.name != "strong_adapter" or settings.adapter):
            optional = NoneType in get_args(hints[field.name])
            value = getattr(args if optional else settings, field.name)
            made.append(_field(known[field.name], value, optional))
    made = [field for field in made if field.name != "weak_adapter" or settings.adapter]
    for dest, action in known.items():
        if dest.startswith("method_"):
            name = dest.removeprefix("method_")
            own = {method: {f.name: f.default for f in fields(kind)} for method, kind in METHODS.items()}
            default = {method: _shown(name, has[name]) for method, has in own.items() if name in has}
            made.append(_field(action, getattr(args, dest), True, default))
    return made


def asked(values: Mapping[str, Any], form: Sequence[Field], prompt: str, settings: Any) -> tuple[Any, list[Job]]:
    """The module that draws, and the jobs: of standard sampling, and of the method that is asked for.

    Args:
        values: what is in the fields, by name. form: the fields. prompt: the prompt. settings: that the page has.

    Raises:
        ValueError: for values that do not fit, in the words of `zigzag generate`.
    """
    words = [f"--prompt={prompt}"]
    for name in (name for name in LOADED if hasattr(settings, name)):
        value = getattr(settings, name)
        words += [f"{option(name)}={each}" for each in (value if isinstance(value, tuple) else [value])]
    for field in form:
        if field.of(values["method"]):
            words += _words(field, values[field.name])
    module, settings, method = settled(reader().parse_args(words))
    return module, plan(settings, [prompt], method, Path(), ())


def _field(
    action: argparse.Action, value: Any, optional: bool = False, default: Mapping[str, str] | None = None
) -> Field:
    name = action.dest
    kind: Kind = "text"
    if name in CHOICES:
        kind = "choice"
    elif isinstance(value, tuple):
        kind, value = "list", " ".join(value)
    elif value == "":
        value = EMPTY
    elif action.const is True:
        kind, value = "flag", bool(value)
    elif action.type in (int, float):
        kind = "integer" if action.type is int else "number"
    text = action.help or ""
    if not optional or default:  # what it is by default stands in the field
        text = re.sub(r" \(default: .*\)$|; \S+$", "", text)
    label = option_of(action).removeprefix("--").replace("-", " ")
    return Field(name, label, text, kind, value, optional, CHOICES.get(name, ()), default or {})


def option_of(action: argparse.Action) -> str:
    """The first name of an option."""
    return action.option_strings[0]


def _shown(name: str, default: Any) -> str:
    """What an option of a method is where it is not given."""
    if name == "warmup":
        return f"{default}, or 1 of fewer than 6 steps"
    return "as many as it takes" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _words(field: Field, value: Any) -> list[str]:
    """The words of a command line that say a value; none where it is not given."""
    dashed = option_of(reader().options()[field.name])
    if field.kind == "flag":
        return [dashed] if value else []
    if value is None or (text := str(value).strip()) == "":
        return []
    if field.kind == "list":
        return [f"{dashed}={each}" for each in text.split()]
    if field.kind == "integer" and isinstance(value, float) and value.is_integer():
        text = str(int(value))
    return [f"{dashed}={'' if text == EMPTY else text}"]
