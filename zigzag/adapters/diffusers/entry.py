"""How a state of one's own enters a pipeline: in place of the latents that it prepares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Entry", "check_takes_latents"]


class Entry:
    """Between a pipeline's `prepare_latents` and its loop.

    What the pipeline goes on with is a buffer, for the state that the model is to see first may depend on the grid,
    which many pipelines set after the latents.

    Attributes:
        state: that was handed in, as the pipeline lays it out; None where it has prepared none.
    """

    def __init__(self) -> None:
        self.state: Tensor | None = None
        self._buffer: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """That of the pipeline's latents."""
        assert self._buffer is not None
        return self._buffer.dtype

    def prepare(self, original: Callable[..., Any], args: Any, kwargs: Any, kept: Tensor | None, scheduler: Any) -> Any:
        """What `prepare_latents` gives, with the buffer in place of its latents.

        Args:
            kept: the state that enters; None is the `latents` that the pipeline was given, whatever it scales them by.
            scheduler: that is led; the latents of another one, a prior's, are left as they are.

        Raises:
            ValueError: where there are none, or beside a state that is `kept`; for a state of another shape than the
                pipeline's own; and for a pipeline that makes other numbers of its latents.
        """
        call = inspect.signature(original).bind(*args, **kwargs)
        if call.arguments.get("scheduler", scheduler) is not scheduler:
            return original(*args, **kwargs)
        latents = call.arguments.get("latents")
        if kept is None and latents is None:
            raise ValueError("latents is missing: pass latents=z0, as encode_image(pipe, image) gives it")
        if kept is not None and latents is not None:
            raise ValueError("latents: a reconstruction begins with what its inversion has found; leave latents out")
        # The pipeline draws latents of its own both times, so that what else it draws is the same both times.
        call.arguments["latents"] = None
        own = original(*call.args, **call.kwargs)
        first = _first(own)
        if latents is None:
            assert kept is not None
            self.state = _fitting(kept, first, "inverted holds states")
        else:
            call.arguments["latents"] = latents
            if "generator" in call.signature.parameters:
                call.arguments["generator"] = torch.Generator().manual_seed(0)
            fitting = _fitting(_first(original(*call.args, **call.kwargs)), first, "latents are")
            self.state = latents if latents.shape == fitting.shape else _laid_out(latents, fitting)
        self._buffer = self.state.to(first.device, first.dtype, copy=True)
        return (self._buffer, *own[1:]) if isinstance(own, tuple) else self._buffer

    def show(self, x: Tensor) -> Tensor:
        """Lets `x` be what the model sees first; as the pipeline has it."""
        assert self._buffer is not None
        return self._buffer.copy_(x)


def check_takes_latents(pipe: Any) -> None:
    """Raises ValueError for a pipeline that no state can be handed to."""
    takers = (type(pipe).__call__, getattr(pipe, "prepare_latents", None))
    if any(taker is None or "latents" not in inspect.signature(taker).parameters for taker in takers):
        raise ValueError(
            f"pipe: {type(pipe).__name__} takes no latents of one's own, with which a path from below knot 0 and an "
            "inversion begin (neither by its call nor by its prepare_latents); take the text-to-image, or -video, "
            "pipeline of the model"
        )


def _first(prepared: Any) -> Tensor:
    """The latents, which come first of what is prepared."""
    first = prepared[0] if isinstance(prepared, tuple) else prepared
    if not isinstance(first, Tensor):
        raise ValueError(f"pipe: its prepare_latents gives {type(first).__name__} first, where latents are to be")
    return first


def _fitting(state: Tensor, own: Tensor, what: str) -> Tensor:
    if state.shape != own.shape:
        raise ValueError(
            f"{what} of shape {tuple(state.shape)}, and the pipeline's own are {tuple(own.shape)} at the height, width "
            "(num_frames) and number of prompts that it was called with; pass those that the image has, and a prompt "
            "for each sample"
        )
    return state.to(own.device)


def _laid_out(latents: Tensor, prepared: Tensor) -> Tensor:
    """The latents as the pipeline packs them, where that is all that it does to them."""
    one, other = (x.detach().flatten().sort().values for x in (latents.to(prepared), prepared))
    if one.shape != other.shape or not torch.equal(one, other):
        raise ValueError(
            f"the pipeline makes of latents {tuple(latents.shape)} others, {tuple(prepared.shape)}, of other numbers: "
            f"they are not its loop's states; pass latents {tuple(prepared.shape)}, as its loop has them"
        )
    return prepared
