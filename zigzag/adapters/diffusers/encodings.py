"""Prompts of roles: what the pipeline's own `encode_prompt` makes of them, and where it is in a model's arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zigzag.adapters.diffusers.cast import Source
from zigzag.adapters.diffusers.roles import Prompt, Role

__all__ = ["Encodings"]

# The arguments of `encode_prompt` that one prompt takes the place of: texts of further encoders, embeddings, masks.
GIVEN: Final = re.compile(r"((pooled|generated)_)?prompt(_(\d|embeds|pooled|attention|mask|t5|llama3))*")
SIDES: Final = "prompt", "negative_prompt"


class Slot(NamedTuple):
    """A tensor that the pipeline's prompts gave, and the role's in its place; side: whose prompt's it is, if known."""

    own: Tensor
    other: Tensor
    side: str


class Encodings:
    """What `encode_prompt` gave for the pipeline's own prompts, beside what it gives for the roles'.

    Args:
        roles: by their names.
    """

    def __init__(self, roles: Mapping[Source, Role]) -> None:
        self.wanted = {name: role for name, role in roles.items() if role.prompts}
        self._slots: dict[Source, list[Slot]] = {name: [] for name in self.wanted}
        self._calls, self._used = 0, False
        self._own: object = None  # the prompt of the first call

    def used(self) -> None:
        """The model was called: what is encoded next is for another call of the pipeline."""
        self._used = True

    def encode(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of the pipeline's `encode_prompt`."""
        if self._used:
            self._slots, self._calls, self._used = {name: [] for name in self.wanted}, 0, False
        call = inspect.signature(original).bind(*args, **kwargs)
        result = original(*args, **kwargs)
        self._calls += 1
        for name, role in self.wanted.items():
            sides = {side: self._encoded(original, call, side, getattr(role, side), result) for side in SIDES}
            for side, other in sides.items():
                _check_alike(result, other, f"{name}={role!r}: {side}")
            self._slots[name] += _slots(result, sides)
        return result

    def _encoded(
        self, original: Callable[..., Any], call: inspect.BoundArguments, side: str, prompt: Prompt | None, own: Any
    ) -> Any:
        """What this call of `encode_prompt` gives with another prompt on one side."""
        taken = inspect.signature(original).parameters
        # A pipeline that encodes its prompts one by one passes the negative one as `prompt` too, after its own.
        joint = "negative_prompt" in taken
        if prompt is None or (not joint and side != self._side(call.arguments.get("prompt"))):
            return own
        if isinstance(prompt, Mapping) and joint and self._calls > 1:
            raise ValueError(
                f"Role: {side}: the pipeline encodes its prompt {self._calls} times, for several encoders; pass a "
                "text, or edit= with the arguments of its model"
            )
        prefix = "negative_" if side == "negative_prompt" and joint else ""
        given = dict(call.arguments)
        replaced = _replaced(prompt, side, prefix, given)
        if unknown := sorted(replaced.keys() - taken.keys()):
            raise TypeError(f"Role: {side} has {', '.join(unknown)}, which the pipeline's encode_prompt does not take")
        takes = [name for name in taken if name.startswith(prefix) and GIVEN.fullmatch(name.removeprefix(prefix))]
        for name in takes:
            default = taken[name].default
            given[name] = None if default is inspect.Parameter.empty else default
        call = inspect.BoundArguments(call.signature, {**given, **replaced})
        try:
            return original(*call.args, **call.kwargs)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            what = "what else it needs of" if isinstance(prompt, Mapping) else "embeddings, if it has no text encoder,"
            raise ValueError(
                f"Role: {side}: the pipeline's encode_prompt makes nothing of {', '.join(replaced)} ({error}); pass "
                f"{what} {', '.join(name for name in takes if re.search('embeds|pooled|mask', name))}"
            ) from error

    def _side(self, prompt: object) -> str:
        """Which prompt a call of `encode_prompt` is for, that takes one: its own first, and then another one."""
        if self._calls == 1:
            self._own = prompt
        again = prompt is not None and prompt == self._own
        return "prompt" if self._calls == 1 or again else "negative_prompt"

    def exchanged(self, name: Source, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """A model's arguments with the encodings of a role in place of the pipeline's own.

        Raises:
            ValueError: where they are not found there, or cannot be told apart.
        """
        role, slots = self.wanted[name], self._slots[name]
        leaves, tree = pytree.tree_flatten(dict(arguments))
        found = [_matches(leaf, slots) if isinstance(leaf, Tensor) else [] for leaf in leaves]
        if not any(matches for blocks in found for matches in blocks):
            what = "calls its model with nothing that its encode_prompt gave" if slots else "called no encode_prompt"
            raise ValueError(
                f"{name}={role!r}: the pipeline {what}, so that its prompt cannot be exchanged; pass the model's own "
                "arguments, edit={'encoder_hidden_states': ...}"
            )
        # A mask may be that of either prompt: which it is, others of the same place in the batch tell.
        certain: dict[int, set[str]] = {}
        for blocks in found:
            for j, matches in enumerate(blocks):
                if len(sides := {slot.side for slot in matches}) == 1:
                    certain.setdefault(j, set()).update(sides)
        exchanged = [
            _joined(leaf, [_one(matches, certain.get(j, set()), name, role) for j, matches in enumerate(blocks)], name)
            if blocks
            else leaf
            for leaf, blocks in zip(leaves, found, strict=True)
        ]
        result: dict[str, Any] = pytree.tree_unflatten(exchanged, tree)
        return result


def _check_alike(own: Any, other: Any, what: str) -> None:
    """Raises ValueError unless a role's encodings can take the place of the pipeline's: as many, of as many prompts."""
    pairs = list(zip_longest(*map(pytree.tree_leaves, (own, other))))
    tensors = [[leaf for leaf in leaves if isinstance(leaf, Tensor)] for leaves in zip(*pairs, strict=True)]
    batches = [[len(leaf) for leaf in leaves if leaf.ndim > 2] for leaves in tensors]
    if batches[0] != batches[1] or any(isinstance(one, Tensor) != isinstance(two, Tensor) for one, two in pairs):
        shapes = [", ".join(str(tuple(leaf.shape)) for leaf in leaves) for leaves in tensors]
        raise ValueError(
            f"{what} is encoded as {shapes[1]}, where the pipeline's own is {shapes[0]}; pass one text or one row of "
            "embeddings, or as many as the pipeline has prompts, with all that its encode_prompt gives beside them"
        )


def _slots(own: Any, sides: Mapping[str, Any]) -> list[Slot]:
    slots = []
    for leaf, *others in zip(*map(pytree.tree_leaves, (own, *sides.values())), strict=True):
        if not isinstance(leaf, Tensor):
            continue
        new = [(side, other) for side, other in zip(sides, others, strict=True) if not _equal(leaf, other)]
        side, other = new[0] if new else ("", leaf)
        slots.append(Slot(leaf, other, side))
    return slots


def _matches(leaf: Tensor, slots: Sequence[Slot]) -> list[list[Slot]]:
    """Of each block of the batch of `leaf` the slots that it may be."""
    sizes = {len(slot.own) for slot in slots if slot.own.ndim and slot.own.shape[1:] == leaf.shape[1:]}
    for size in sorted(sizes, reverse=True):
        if leaf.ndim and size and len(leaf) % size == 0:
            blocks = [[slot for slot in slots if _equal(block, slot.own)] for block in torch.split(leaf, size)]
            if any(blocks):
                return blocks
    return []


def _one(matches: Sequence[Slot], certain: set[str], name: Source, role: Role) -> Slot | None:
    if len({slot.side for slot in matches}) > 1:
        matches = [slot for slot in matches if slot.side in certain] if len(certain) == 1 else matches
    if len({slot.side for slot in matches}) > 1 and not all(_equal(slot.other, matches[0].other) for slot in matches):
        raise ValueError(
            f"{name}={role!r}: the pipeline's prompt and negative prompt are encoded alike, so that the arguments of "
            "its model do not tell which is which; pass another negative prompt, or edit="
        )
    return matches[0] if matches else None


def _joined(leaf: Tensor, slots: Sequence[Slot | None], name: Source) -> Tensor:
    size = len(leaf) // len(slots)
    blocks = [
        block if slot is None or not slot.side else slot.other.to(leaf)
        for block, slot in zip(torch.split(leaf, size), slots, strict=True)
    ]
    if len({block.shape for block in blocks}) > 1:
        raise ValueError(
            f"{name}: the embeddings of the role's prompt, {tuple(blocks[-1].shape)}, do not go into one batch with "
            f"those of the pipeline's other one, {tuple(blocks[0].shape)}; encode both to one length"
        )
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _equal(one: Tensor, two: Tensor) -> bool:
    return one is two or (one.shape == two.shape and torch.equal(one, two.to(one)))


def _replaced(prompt: Prompt, side: str, prefix: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `encode_prompt` that a role's prompt is, one for each prompt of the pipeline's call.

    Raises:
        ValueError: for another number of prompts than the pipeline's.
    """
    count, positive = (_count(given.get(f"{its}prompt"), given.get(f"{its}prompt_embeds")) for its in (prefix, ""))
    every = count or positive or 1
    new = prompt if isinstance(prompt, Mapping) else {"prompt": prompt}
    new = {key.removeprefix("negative_"): value for key, value in new.items()}
    rows = _count(new.get("prompt"), new.get("prompt_embeds"))
    if rows not in (0, 1, every):
        raise ValueError(f"Role: {side} is of {rows} prompts, and the pipeline has {every}; pass one, or one for each")
    # A text stays one where the pipeline has one, or none: it makes as many of it as it needs.
    return {
        f"{prefix}{key}": _for_each(value, count if isinstance(value, str) else every)
        if GIVEN.fullmatch(key)
        else value
        for key, value in new.items()
    }


def _for_each(given: Any, count: int) -> Any:
    """A text, or a list or tensor of one, for each of `count` prompts; 0 leaves a text as it is. Else what it was."""
    if isinstance(given, str):
        return [given] * count if count else given
    if isinstance(given, list | tuple):
        return [*given] * (count if len(given) == 1 else 1)
    if isinstance(given, Tensor) and given.ndim > 1 and len(given) == 1:
        return torch.cat([given] * count)
    return given


def _count(prompt: object, embeddings: object) -> int:
    """How many prompts the pipeline has; 0 for one text."""
    if isinstance(prompt, list | tuple):
        return len(prompt)
    return len(embeddings) if isinstance(embeddings, Tensor | list) else 0
