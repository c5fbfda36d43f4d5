"""What decides the samples of a sampler, as JSON: by it verdicts are kept, and found again."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from zigzag.checks import as_guidance
from zigzag.evaluation.named import name_of
from zigzag.evaluation.samplers import Sampler
from zigzag.guidance import CFG, Guidance, LinearGuidance
from zigzag.methods import is_steered
from zigzag.moves import Move, Renoise
from zigzag.paths import plan_path
from zigzag.solvers import Solver, StepInfo

__all__ = ["decides", "names"]


def names(sampler: Sampler) -> dict[str, Any]:
    """What a sampler is called, for whoever reads a file; no part of what decides."""
    return {k: v if isinstance(v, str | int | float | None) else name_of(v) for k, v in vars(sampler).items()}


def decides(sampler: Sampler, grid: Solver) -> dict[str, Any]:
    """All that the samples depend on, besides weights, prompts and noise: each long list as its length and its hash.

    The moves of the path (of a method that is steered by its walk, its state and code); for each move the coefficients
    of its step (a, b, memory, noise), what it reads and whether its noise is drawn; the solver's levels and times; the
    strong and the weak guidance at each step of the path; the prompts and networks that are not the model's own. A rule
    that is linear in the gap is its scale there, any other its state and its code, as a solver or a sampler of one's
    own is besides. (What such code calls elsewhere is not looked into.)

    Args:
        grid: the model's own solver of `sampler.steps` steps.

    Raises:
        TypeError, ValueError: as `walk`, for a path that cannot be walked; for a rule whose state cannot be told.
    """
    solver = sampler.solver_on(grid)
    moves: Any
    held: list[Any]
    if is_steered(sampler.method):
        moves = _told("method", sampler.method)
        infos = [solver.info(i) for i in range(len(solver))]
        held = [(solver.step(i, None, range(i)), solver.inner(i, i + 1)) for i in range(len(solver))]
    else:
        path, steps = plan_path(sampler.method, solver)
        moves = _digest([*path])
        between = (sorted((m.start, _end(m))) for m in path if not isinstance(m, Renoise))
        infos = list(dict.fromkeys(solver.info(*knots) for knots in between))
        held = [(h.step, h.inner, h.reads, h.interval, h.draws) for h in steps]
    levels = (*solver.knots, solver.all_times, solver.prediction, _kind(type(solver)))
    found = {
        "moves": moves,
        "steps": _digest(held),
        "levels": _digest(levels),
        "strong": _rule("strong", as_guidance("strong", sampler.guidance(solver)), infos),
        "weak": _rule("weak", as_guidance("weak", sampler.weak), infos),
        "error": sampler.error + 0.0,
    }
    if not (sampler.weak_prompt is None and sampler.weak_fn is None):
        found["weak role"] = _digest(sampler.weak_prompt, sampler.weak_fn)
    if not (sampler.strong_fn is None and sampler.plain_fn is None):
        found["networks"] = _digest(sampler.strong_fn, sampler.plain_fn)
    if sampler.weak_negative_prompt is not None:
        found["weak negative prompt"] = _digest(sampler.weak_negative_prompt)
    if not (sampler.plain_prompt is None and sampler.plain_negative_prompt is None):
        found["plain prompts"] = _digest(sampler.plain_prompt, sampler.plain_negative_prompt)
    if sampler.plain is not None:
        found["plain"] = _rule("plain", as_guidance("plain", sampler.plain), infos)
    own = {} if type(sampler) is Sampler else {"sampler": _digest(_kind(type(sampler)), _others(sampler))}
    return {**found, **own}


def _end(move: Move) -> int:
    return move.start + 1 if move.start == move.end else move.end


def _others(sampler: Sampler) -> dict[str, Any]:
    return {k: v for k, v in vars(sampler).items() if k not in Sampler.__dataclass_fields__}


def _rule(role: str, guidance: Guidance, infos: Iterable[StepInfo]) -> Any:
    if isinstance(guidance, LinearGuidance):
        try:
            return _digest("w", [(info.i, info.j, guidance.at(info)) for info in infos])
        except TypeError:  # an Interval of a rule that has no scale
            if isinstance(guidance, CFG):
                raise
    if (reset := getattr(guidance, "reset", None)) is not None:
        reset()  # as a walk does: what the last one left is no part of the rule
    return _told(role, guidance)


def _told(name: str, value: Any) -> Any:
    """An object by its state and code."""
    try:
        return _digest("rule", value)
    except ValueError as error:
        raise ValueError(f"{name}={name_of(value)} cannot be evaluated: {error}") from error


def _digest(*parts: Any) -> list[Any]:
    """How many there are in the last of the parts, and the hash of all."""
    text = json.dumps([_plain(part, ()) for part in parts], sort_keys=True)
    count = len(parts[-1]) if isinstance(parts[-1], list | tuple) else 1
    return [count, hashlib.sha256(text.encode()).hexdigest()[:16]]


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    """A value as JSON that is the same in every process; two values that act alike may differ in it, not the reverse.

    Raises:
        ValueError: for what neither has state to be read nor can be pickled.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        # More digits than a state in float32 holds, fewer than the logarithms of two processors agree in.
        return f"{value + 0.0:.10g}"
    if id(value) in above:
        return ["above", len(above) - above.index(id(value))]
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return ["map", sorted(([_plain(k, inside), _plain(v, inside)] for k, v in value.items()), key=json.dumps)]
    if isinstance(value, list | tuple):
        return [_plain(item, inside) for item in value]
    if isinstance(value, set | frozenset):
        return ["set", sorted((_plain(item, inside) for item in value), key=json.dumps)]
    if isinstance(value, Tensor):
        held = value.detach().cpu().contiguous()
        data = hashlib.sha256(held.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        return ["tensor", str(held.dtype), list(held.shape), data]
    return _of_object(value, inside)


def _of_object(value: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(value, CodeType):
        return [value.co_code.hex(), list(value.co_names), [_plain(c, inside) for c in value.co_consts]]
    if isinstance(value, FunctionType):
        # A cell is empty where a function is asked for before the variable that it names is bound.
        cells = [_cell(cell) for cell in value.__closure__ or ()]
        return ["def", _plain([value.__code__, value.__defaults__, value.__kwdefaults__, cells], inside)]
    if isinstance(value, partial):
        return ["partial", _plain([value.func, value.args, value.keywords], inside)]
    if isinstance(value, MethodType):
        return ["method", _plain(value.__func__, inside), _plain(value.__self__, inside)]
    if isinstance(value, type):
        return ["class", _kind(value)]
    if isinstance(value, BuiltinFunctionType | Enum | PurePath | torch.dtype | torch.device):
        return [type(value).__qualname__, str(getattr(value, "__qualname__", value))]
    slots = [name for base in type(value).__mro__ for name in _words(getattr(base, "__slots__", ()))]
    if slots or hasattr(value, "__dict__"):
        state = getattr(value, "__dict__", {}) | {name: getattr(value, name, None) for name in slots}
        return ["object", _kind(type(value)), _plain(state, inside)]
    try:
        return ["pickled", hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()]
    except Exception as error:  # whatever a user's object raises there
        raise ValueError(f"it holds {name_of(value)}, of which nothing tells it from another: {error}") from error


def _words(slots: Any) -> list[str]:
    names = [slots] if isinstance(slots, str) else slots
    return [name for name in names if name not in ("__dict__", "__weakref__")]


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


_LIBRARIES = ("zigzag", "torch", "builtins", "typing", "abc")


def _kind(kind: type) -> list[Any]:
    """The names of a class and its bases, with the code of those that are of no library."""
    found: list[Any] = []
    for base in kind.__mro__[:-1]:
        own = base.__module__.partition(".")[0] not in _LIBRARIES
        found.append([base.__qualname__, _code(base) if own else None])
    return found


def _code(kind: type) -> list[Any]:
    """What a class has of functions and constants; what Python adds of its own, as its place in a file, is left out."""
    held: list[Any] = []
    for name, item in sorted(vars(kind).items()):
        item = getattr(item, "__func__", getattr(item, "fget", getattr(item, "func", item)))
        if isinstance(item, FunctionType):
            held.append([name, _plain(item.__code__, ()), _plain([item.__defaults__, item.__kwdefaults__], ())])
        elif not name.startswith("_") and isinstance(item, str | int | float | bool | tuple | Tensor):
            held.append([name, _plain(item, ())])
    return held
