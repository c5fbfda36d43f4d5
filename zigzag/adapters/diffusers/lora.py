"""LoRA strengths of a pipeline, changed for the time of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn
from torch.nn import Parameter

__all__ = ["check_adapters", "strengths"]


def check_adapters(name: str, pipe: Any, adapters: Mapping[str, float]) -> None:
    """Raises unless the pipeline has these adapters, and applies them by strength.

    name: of the role that wants them.

    Raises:
        TypeError: for a pipeline without LoRA functions.
        ValueError: for an adapter that it has not loaded, or weights that an adapter was fused into.
    """
    what = f"{name}=Role(adapters={dict(adapters)!r})"
    if not all(hasattr(pipe, function) for function in ("set_adapters", "get_list_adapters")):
        raise TypeError(f"{what}: {type(pipe).__name__} has no LoRA functions (set_adapters)")
    known = sorted({adapter for its in pipe.get_list_adapters().values() for adapter in its})
    if unknown := sorted(adapters.keys() - set(known)):
        raise ValueError(
            f"{what}: the pipeline has no adapter {', '.join(map(repr, unknown))}, but {', '.join(known) or 'none'}; "
            "load_lora_weights(…, adapter_name=…) it before the block"
        )
    if any(getattr(layer, "merged", False) for layer in _layers(pipe)):
        raise ValueError(
            f"{what}: an adapter is fused into the weights, where its strength is fixed; unfuse_lora() first"
        )


@contextmanager
def strengths(pipe: Any, adapters: Mapping[str, float]) -> Iterator[None]:
    """Within the block the adapters have these strengths, and others are off; after it all is as it was."""
    before = [_Layer.of(layer) for layer in _layers(pipe)]
    try:
        if adapters:
            pipe.enable_lora()
            pipe.set_adapters([*adapters], [*adapters.values()])
        else:
            pipe.disable_lora()
        yield
    finally:
        for layer in before:
            layer.put_back()


class _Layer(NamedTuple):
    """What a layer of peft has of its adapters: which are on, how strong, and which of its weights learn."""

    layer: Any
    active: Any
    disabled: bool
    scaling: dict[str, float]
    learning: list[tuple[Parameter, bool]]

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        active = layer._active_adapter
        return cls(
            layer, list(active) if isinstance(active, list) else active, layer._disable_adapters, dict(layer.scaling),
            [(parameter, parameter.requires_grad) for parameter in layer.parameters()],
        )  # fmt: skip

    def put_back(self) -> None:
        self.layer._active_adapter, self.layer._disable_adapters = self.active, self.disabled
        self.layer.scaling.update(self.scaling)
        for parameter, learns in self.learning:
            parameter.requires_grad_(learns)


def _layers(pipe: Any) -> list[Any]:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:  # no adapter can have been loaded
        return []
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return [module for part in parts for module in part.modules() if isinstance(module, BaseTunerLayer)]
