"""One tiny pipeline of the sweep: how it is run, what is known of it, and what is left behind in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 3
MODELS = (
    "unet", "image_unet", "transformer", "transformer_2", "unconditional_transformer", "prior", "decoder",
    "prior_prior",
)  # fmt: skip


@dataclass
class Swept:
    """A pipeline, and what is known of it.

    Attributes:
        pipe, call: and how it is called.
        scale: its guidance is `u + scale·(c − u)`, up to a sign; None where it is not. guides: and what it makes of
            that, with `c`.
        refused: what a method that zigzags is refused with, or nothing; z_refused, z2_refused: of one of them alone.
        samples: in a batch of the model's, for one branch, on average. steps: of the call.
        before: rows of a prior that samples first.
        lays: a branch of the model's output as it lies in the prediction that the scheduler is given.
        says: that prediction, of the model's own, at a state and its sigma.
        known: of how many first frames the pipeline makes the prediction itself, whatever the branch.
        models: whose calls are rows.
    """

    pipe: Any
    call: dict[str, Any]
    scale: float | None = 4.0
    guides: Callable[[Tensor, Tensor], Tensor] = lambda guided, c: guided
    refused: str = ""
    z_refused: str = ""
    z2_refused: str = ""
    samples: float = 1
    steps: int = STEPS
    before: int = 0
    lays: Callable[[Tensor, Tensor], Tensor] = lambda part, m: lay(part, m)
    says: Callable[[Tensor, Tensor, float], Tensor] = lambda e, x, sigma: e
    known: int = 0
    models: list[nn.Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = (getattr(self.pipe, name, None) for name in MODELS)
        self.models = self.models or [model for model in found if isinstance(model, nn.Module)]
        self.pipe.set_progress_bar_config(disable=True)

    def run(self) -> Tensor:
        """What the pipeline gives, from seeds of its own."""
        torch.manual_seed(0)
        taken = inspect.signature(self.pipe.__call__).parameters
        given: dict[str, Any] = {"num_inference_steps": self.steps, "output_type": "latent"}
        given |= {"generator": torch.Generator().manual_seed(1), "return_dict": False}
        given = {name: value for name, value in given.items() if name in taken}
        with torch.no_grad():
            return flat(self.pipe(**(given | self.call)))

    @contextmanager
    def seen(self, outputs: list[Any] | None = None, stop: int | None = None) -> Iterator[list[int]]:
        """The rows of every call of a model, counted by hooks of the test's own; an error at call `stop`."""
        rows: list[int] = []
        prior = getattr(
            self.pipe, "prior_prior", getattr(self.pipe, "prior", None) if "unet" in vars(self.pipe) else None
        )

        def note(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if len(rows) == stop:
                raise Stopped
            out = first_of(output)
            x = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            rows.append(len(x if out is None else out))
            if outputs is not None and out is not None and module is not prior:
                outputs.append(torch.stack(list(out)) if isinstance(out, list | tuple) else out)

        hooks = [model.register_forward_hook(note, with_kwargs=True) for model in self.models]
        try:
            yield rows
        finally:
            for hook in hooks:
                hook.remove()

    def left_behind(self) -> list[str]:
        """What of an attached block is still in the pipeline."""
        found = [f"a hook of {type(model).__name__}" for model in self.models if model._forward_hooks]
        for owner in (self.pipe, self.pipe.scheduler):
            methods = [name for name, value in vars(owner).items() if callable(value) and hasattr(type(owner), name)]
            found += [f"{name} of {type(owner).__name__}" for name in methods if name != "scheduler"]
        return found


class Stopped(Exception):
    """Raised in the middle of a loop."""


def first_of(output: Any) -> Any:
    return output if isinstance(output, Tensor) else getattr(output, "sample", output[0])


def flat(out: Any) -> Tensor:
    """All numbers of what a pipeline gives."""
    if isinstance(out, Tensor):
        return out.detach().float().flatten()
    if isinstance(out, np.ndarray):
        return torch.from_numpy(out.astype("float32")).flatten()
    if isinstance(out, list | tuple | dict):
        out = out.values() if isinstance(out, dict) else out
        parts = [flat(part) for part in out if part is not None and not isinstance(part, bool | str)]
        return torch.cat(parts) if parts else torch.zeros(0)
    if hasattr(out, "convert"):
        return torch.from_numpy(np.asarray(out).astype("float32")).flatten()
    return torch.zeros(0)


def lay(part: Tensor, m: Tensor) -> Tensor:
    """One branch in the layout of the prediction: without a learned variance or a reference, frames in the batch."""
    if part.ndim == m.ndim + 1:
        part = part.movedim(2, 1).flatten(0, 1)
    return part[tuple(slice(size) for size in m.shape)]
