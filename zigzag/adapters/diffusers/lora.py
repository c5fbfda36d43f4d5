"""LoRA strengths of a pipeline, changed for the time of a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import nn
from torch.nn import Parameter

__all__ = ["Strengths", "check_adapters"]


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


class Strengths:
    """The LoRA strengths of a role, for the time of a call: others are off, and after it all is as it was.

    The pipeline's own functions set them, at the first call of a loop. They go through all modules of its models, which
    takes longer than a step may (SDXL); later calls of the loop give the layers what was set then.

    Args:
        pipe: whose adapters they are. adapters: by name, their strengths.
    """

    def __init__(self, pipe: Any, adapters: Mapping[str, float]) -> None:
        self._pipe, self._adapters = pipe, adapters
        self._loop: object = None
        self._set: list[_Layer] = []

    @contextmanager
    def __call__(self, loop: object) -> Iterator[None]:
        """Within the block they are set. loop: the one that the call is in; another one sets them anew."""
        known = self._loop is loop
        before = [each.now() for each in self._set] if known else [*map(_Layer.of, _layers(self._pipe))]
        try:
            if known:
                for layer in self._set:
                    layer.put()
            else:
                self._apply()
                self._loop, self._set = loop, [each.now() for each in before]
            yield
        finally:
            for layer in before:
                layer.put()

    def _apply(self) -> None:
        if self._adapters:
            self._pipe.enable_lora()
            self._pipe.set_adapters([*self._adapters], [*self._adapters.values()])
        else:
            self._pipe.disable_lora()


class _Layer(NamedTuple):
    """What a layer of peft has of its adapters: which are on, how strong, and which of its weights learn."""

    layer: Any
    active: Any
    disabled: bool
    scaling: dict[str, float]
    learning: list[tuple[Parameter, bool]]

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        """As it is now."""
        return cls(layer, None, False, {}, [(parameter, False) for parameter in layer.parameters()]).now()

    def now(self) -> _Layer:
        """The same layer, as it is now."""
        layer, active = self.layer, self.layer._active_adapter
        learning = [(parameter, parameter.requires_grad) for parameter, _ in self.learning]
        active = list(active) if isinstance(active, list) else active
        return _Layer(layer, active, layer._disable_adapters, dict(layer.scaling), learning)

    def put(self) -> None:
        """Makes the layer what it was then."""
        layer = self.layer  # whose attributes take long to write, as a module's do, and seldom differ
        if layer._active_adapter != self.active:
            layer._active_adapter = self.active
        if layer._disable_adapters != self.disabled:
            layer._disable_adapters = self.disabled
        layer.scaling.update(self.scaling)
        for parameter, learns in self.learning:
            if parameter.requires_grad != learns:
                parameter.requires_grad_(learns)


def _layers(pipe: Any) -> list[Any]:
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:  # no adapter can have been loaded
        return []
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return [module for part in parts for module in part.modules() if isinstance(module, BaseTunerLayer)]
