"""The forward of a pipeline's model as CUDA graphs, one for each form of its arguments, for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zigzag.adapters.diffusers.patches import Patches
from zigzag.adapters.diffusers.stepping import name_of
from zigzag.capture.cuda import Recording, can_record
from zigzag.capture.fed import cloned
from zigzag.capture.weights import refusal
from zigzag.conditions import same_leaf

__all__ = ["Graphed", "graphed"]

MOST: Final = 8  # forms of arguments of one model: whole loops have one, two or four
INSTEAD: Final = "leave graphs=True out"


class Buffer(NamedTuple):
    """A tensor that stays where it is, laid out as one that came: also where that has holes, or is expanded."""

    memory: Tensor
    tensor: Tensor

    @classmethod
    def like(cls, x: Tensor, device: torch.device) -> Buffer:
        """On `device`: a scalar that waits on the host, as a time does, is data for a graph like all else."""
        memory = torch.empty_like(_memory(x), device=device)
        return cls(memory, memory.as_strided(x.shape, x.stride()))

    def fits(self, x: object) -> bool:
        """Strides too: they are part of what a model computes with, and choose kernels, and so bits."""
        own = self.tensor
        return isinstance(x, Tensor) and (x.shape, x.dtype, x.stride()) == (own.shape, own.dtype, own.stride())

    def take(self, x: Tensor) -> None:
        """Copies what `x` holds."""
        self.memory.copy_(_memory(x))


def _memory(x: Tensor) -> Tensor:
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((1 + last if x.numel() else 0,), (1,))


class Form(NamedTuple):
    """A form of arguments: buffers for the tensors, all else as it came, and the graph that reads them.

    role: what the model is at the calls of this form.
    """

    role: object
    leaves: list[Any]
    tree: Any
    recording: Recording[None]

    def fits(self, role: object, leaves: Sequence[Any], tree: Any) -> bool:
        """Whether a call differs from those of this form in the values of tensors alone."""
        return self.role == role and self.tree == tree and all(map(_fits, self.leaves, leaves))


def _fits(own: Any, x: Any) -> bool:
    return own.fits(x) if isinstance(own, Buffer) else not isinstance(x, Tensor) and same_leaf(own, x)


class Graphed:
    """A model's forward, replayed: its arguments are copied into the buffers that a graph reads, and its outputs out.

    Args:
        model: whose forward it is. forward: called as `forward(*args, **kwargs)`, for each new form of arguments a few
            times, and never again for those that differ in the values of tensors alone.
        role: says what the model is at a call; another one has graphs of its own, of LoRA weights at another scale,
            say.

    Raises:
        RuntimeError: at a call, for what cannot be captured, with the reason; for an argument that is no tensor and
            changes all the time; for gradients; for an output that holds more than tensors; for weights that moved.
    """

    def __init__(self, model: nn.Module, forward: Callable[..., Any], role: Callable[[], object]) -> None:
        self.model, self.forward, self.role = model, forward, role
        self.device = next(model.parameters()).device
        self.forms: list[Form] = []
        self._unchecked: set[int] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the forward returns, in tensors of its own."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"the pipeline records gradients of {name_of(self.model)}, which graphs do not; {INSTEAD}"
            )
        role, (leaves, tree) = self.role(), pytree.tree_flatten((args, kwargs))
        form = next((form for form in self.forms if form.fits(role, leaves, tree)), None)
        if form is None:
            form = self._record(role, leaves, tree)
        elif id(form) in self._unchecked:
            form.recording.check_weights()
            self._unchecked.remove(id(form))
        _fill(form.leaves, leaves)
        # The next call writes to the same outputs, and a pipeline may still hold these: of the other branch, say.
        return cloned(form.recording.replay(None))

    def begin(self) -> None:
        """A loop begins: each form is to be held against the model once, in the role that it is of."""
        self._unchecked = {id(form) for form in self.forms}

    def _record(self, role: object, leaves: Sequence[Any], tree: Any) -> Form:
        if len(self.forms) == MOST:
            raise RuntimeError(
                f"{name_of(self.model)} was called in more than {MOST} forms ({self._differing(leaves, tree)}): each "
                f"takes a graph of its own; {INSTEAD}"
            )
        with torch.inference_mode(False):  # buffers made in that mode could not be written to outside it
            own = [Buffer.like(x, self.device) if isinstance(x, Tensor) else x for x in leaves]
        _fill(own, leaves)
        args, kwargs = pytree.tree_unflatten([x.tensor if isinstance(x, Buffer) else x for x in own], tree)
        recording = Recording(
            {None: lambda: self.forward(*args, **kwargs)}, self.device, calls=(self.model,), instead=INSTEAD
        )
        for leaf in pytree.tree_leaves(recording.outputs[None]):
            if not isinstance(leaf, Tensor | int | float | str | None):
                raise RuntimeError(
                    f"{name_of(self.model)} returns a {type(leaf).__name__}, whose tensors the next call would write "
                    f"to; {INSTEAD}"
                )
        self.forms.append(Form(role, own, tree, recording))
        return self.forms[-1]

    def _differing(self, leaves: Sequence[Any], tree: Any) -> str:
        last = self.forms[-1]
        if last.tree != tree:
            return "the last two differ in which arguments there are"
        for k, (own, x) in enumerate(zip(last.leaves, leaves, strict=True)):
            if not _fits(own, x):
                one, other = (tuple(t.shape) if isinstance(t, Tensor) else t for t in (getattr(own, "tensor", own), x))
                return f"leaf {k} of its arguments was {one!r}, and {other!r} then"
        return "the last two differ in their role"


def _fill(own: Sequence[Any], leaves: Sequence[Any]) -> None:
    for buffer, value in zip(own, leaves, strict=True):
        if isinstance(buffer, Buffer):
            buffer.take(value)


def graphed(models: Sequence[nn.Module], patches: Patches, role: Callable[[], object]) -> list[Graphed]:
    """Replaces the forward of each model until `patches` are undone. To be called before anything else is replaced.

    Raises:
        RuntimeError: without CUDA, and for models that are offloaded, keep a cache, or have graphs of their own.
    """
    for model in models:
        if (reason := refusal(list(model.modules()), model)) is not None:
            raise RuntimeError(f"graphs=True: {reason}, or {INSTEAD}")
        if not can_record(device := next(model.parameters()).device):
            raise RuntimeError(
                f"graphs=True needs CUDA, and {name_of(model)} is on {device}; move the pipeline to a CUDA device, or "
                f"{INSTEAD}"
            )
    return [_wrapped(model, patches, role) for model in models]


def _wrapped(model: nn.Module, patches: Patches, role: Callable[[], object]) -> Graphed:
    # After `model.compile()` a call does not go through `forward`.
    name = "forward" if getattr(model, "_compiled_call_impl", None) is None else "_compiled_call_impl"
    own = Graphed(model, getattr(model, name), role)
    patches.wrap(model, name, lambda original, *args, **kwargs: own(*args, **kwargs))
    patches.callback(own.forms.clear)
    return own
