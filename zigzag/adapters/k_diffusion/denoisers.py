"""k-diffusion's denoisers: `model(x, sigma, **extra_args)`, with or without guidance around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zigzag.adapters.k_diffusion.asked import Asked, Need, found

__all__ = ["Denoiser"]

GUIDED = ("cond", "uncond", "cond_scale")

# What a denoiser is called with besides `x` and `sigma`, by place and by name.
_Rest: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class Denoiser:
    """A denoiser of k-diffusion, or a wrapper that guides one (`CFGDenoiser`).

    A wrapper is a module with the denoiser in its `inner_model`, called with `cond`, `uncond` and `cond_scale`. What it
    asks of the denoiser is watched, and the branches are told apart by the conditions that go in.

    Args:
        model: the denoiser. extra_args: its arguments besides `x` and `sigma`.
    """

    name, flow = "k-diffusion", False

    def __init__(self, model: Callable[..., Tensor], extra_args: Mapping[str, Any]) -> None:
        self._model, self._extra = model, extra_args
        inner = getattr(model, "inner_model", None)
        self._inner = inner if isinstance(inner, nn.Module) and extra_args.keys() >= {*GUIDED} else None
        self._layout: _Layout | None = None

    def input_scale(self, sigma: float) -> float:
        """`c_in`, which comes last of the denoiser's `get_scalings`.

        Raises:
            ValueError: where it has none.
        """
        scalings = found(self._model, "get_scalings")
        if scalings is None:
            raise ValueError(
                "an inversion shows the model a state of one noise level and tells it another, and the state has to be "
                "scaled for it; the model has no get_scalings, as k-diffusion's denoisers have, to say how. Pass "
                "rescale=False, or a function of sigma (1/(sigma**2 + 1)**0.5 for a variance-preserving model)"
            )
        return float(scalings(torch.tensor([sigma], dtype=torch.float64, device="cpu"))[-1])

    def check(self, needs: Iterable[Need]) -> None:
        """Raises ValueError where a branch is needed that the model does not have, or not within sight."""
        for branch, _, whose in needs:
            if branch == "cond" and "uncond" not in self._extra:
                continue
            if "uncond" not in self._extra:
                raise ValueError(
                    f"{whose} needs the {branch}itional prediction, and extra_args has no 'uncond': a denoiser by "
                    "itself has one branch. Wrap it as a CFGDenoiser is, called with cond, uncond and cond_scale, or "
                    "take weak=1 (then there is no gap)"
                )
            if self._inner is None:
                raise ValueError(
                    f"{whose} needs the {branch}itional prediction, which is read off the denoiser within a wrapper: "
                    f"model must have it as its inner_model, a torch.nn.Module, and extra_args {', '.join(GUIDED)}; "
                    f"got {type(self._model).__name__} and {sorted(self._extra)}"
                )

    def ask(self, x: Tensor, sigma: Tensor, branches: tuple[str, ...], whole: bool) -> Asked:
        """The denoised states; the branches as the denoiser within gave them."""
        if self._inner is None:
            D = self._model(x, sigma, **self._extra)
            return Asked(D, {} if "uncond" in self._extra else {"cond": D}, 1)
        if not whole and len(branches) == 1 and self._layout is not None and self._layout.repeats is not None:
            rest, named = self._layout.repeats[branches[0]]
            D = self._inner(x, sigma, *rest, **named)
            return Asked(D, {branches[0]: D}, 1)
        calls: list[_Call] = []
        watch = self._inner.register_forward_hook(
            lambda module, args, kwargs, output: calls.append(_Call(args, kwargs, output)), with_kwargs=True
        )
        try:
            D = self._model(x, sigma, **self._extra)
        finally:
            watch.remove()
        sizes = tuple(len(call.output) // len(x) for call in calls)
        if self._layout is None or self._layout.sizes != sizes:
            self._layout = _layout(calls, sizes, x, sigma, self._extra)
        shown = {
            name: calls[k].output.chunk(sizes[k])[chunk] for name, (k, chunk) in self._layout.places.items()
        }  # fmt: skip
        for name in branches:
            if name not in shown:
                raise ValueError(
                    f"the {name}itional prediction was not seen: the denoiser within {type(self._model).__name__} was "
                    f"never called with {name!r} of extra_args as it is, by itself or as a part of a batch; zigzag "
                    "cannot tell the branches apart there. Take method Standard()"
                )
        return Asked(D, shown, sum(sizes))


class _Call(NamedTuple):
    """A call of the denoiser within: `x, sigma` and the rest, by place and by name, and what it gave."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor


class _Layout(NamedTuple):
    """Where the branches are among the calls within: `places[name]` is `(call, chunk)`.

    repeats: by branch, with what besides `x` and `sigma` to call the denoiser for it alone; None where a call held more
    than the two conditions, so that there is no telling.
    """

    sizes: tuple[int, ...]
    places: Mapping[str, tuple[int, int]]
    repeats: Mapping[str, _Rest] | None


def _layout(calls: list[_Call], sizes: tuple[int, ...], x: Tensor, sigma: Tensor, extra: Mapping[str, Any]) -> _Layout:
    places: dict[str, tuple[int, int]] = {}
    for name in ("uncond", "cond"):
        own = _tensors(extra[name])
        for k, (call, size) in enumerate(zip(calls, sizes, strict=True)):
            given = _tensors((call.args[2:], call.kwargs))
            for chunk in range(size):
                parts = [leaf.chunk(size)[chunk] for leaf in given if len(leaf) == size * len(x)]
                if own and all(any(_same(leaf, part) for part in parts) for leaf in own):
                    places.setdefault(name, (k, chunk))
    repeats = _repeats(calls[0], sizes[0], places, x, sigma, extra) if len(calls) == 1 and len(places) == 2 else None
    return _Layout(sizes, places, repeats)


def _repeats(
    call: _Call, size: int, places: Mapping[str, tuple[int, int]], x: Tensor, sigma: Tensor, extra: Mapping[str, Any]
) -> dict[str, _Rest] | None:
    plain = len(call.args) >= 2 and all(
        isinstance(got, Tensor) and torch.equal(got, torch.cat([own] * size))
        for got, own in zip(call.args, (x, sigma), strict=False)
    )
    rest = (call.args[2:], dict(call.kwargs))
    batched = [leaf for leaf in _tensors(rest) if len(leaf) == size * len(x)]
    known = [
        all(
            any(_same(own, leaf.chunk(size)[chunk]) for own in _tensors(extra[name]))
            for name, (_, chunk) in places.items()
        )
        for leaf in batched
    ]
    if not plain or not all(known) or len(batched) != len(_tensors(rest)):
        return None

    def of(chunk: int) -> _Rest:
        own: _Rest = pytree.tree_map(lambda leaf: leaf.chunk(size)[chunk] if _is_batch(leaf) else leaf, rest)
        return own

    return {name: of(chunk) for name, (_, chunk) in places.items()}


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if _is_batch(leaf)]


def _is_batch(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def _same(own: Tensor, part: Tensor) -> bool:
    fits = own.shape[1:] == part.shape[1:] and len(own) in (1, len(part)) and own.dtype == part.dtype
    return fits and torch.equal(own.expand_as(part), part)
