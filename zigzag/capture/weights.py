"""Which modules run in a captured step, where their weights lie, and what of it a graph cannot follow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["Weights", "modules_run", "refusal"]

Place = tuple[object, ...]

# What a layer of peft has of its adapters besides tensors: a graph has it as it was.
ADAPTERS = ("scaling", "active_adapters", "disable_adapters", "merged_adapters")


class Weights:
    """Where the parameters, the buffers and the parts of modules lie, and how adapters are set, to be compared later.

    Args:
        modules: as `modules_run` found them.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._places = [(module, _parts(module), _place(module)) for module in modules]

    def moved(self) -> str | None:
        """What lies elsewhere now, is gone or is new; None where all is as it was."""
        for module, parts, place in self._places:
            if _place(module) != place:
                now = _parts(module)
                changed = [name for name in {**parts, **now} if parts.get(name) != now.get(name)]
                return f"{', '.join(changed)} of {type(module).__name__}"
        return None


def _parts(module: nn.Module) -> dict[str, object]:
    its = (module._parameters, module._buffers, module._modules)
    return {**{name: _at(value) for own in its for name, value in own.items()}, **dict(_adapters(module))}


def _place(module: nn.Module) -> Place:
    # Without the names: this is compared at every run.
    return tuple(
        [_at(x) for x in module._parameters.values()]
        + [_at(x) for x in module._buffers.values()]
        + [id(x) for x in module._modules.values()]
        + _adapters(module)
    )


def _adapters(module: nn.Module) -> list[Any]:
    if "scaling" not in module.__dict__ or not hasattr(module, "active_adapters"):
        return []
    return [(name, copy(getattr(module, name, None))) for name in ADAPTERS]


def _at(value: object) -> int:
    if not isinstance(value, Tensor):
        return id(value)
    try:
        return value.data_ptr()
    except RuntimeError:  # a subclass without memory of its own
        return id(value)


@contextmanager
def modules_run(*calls: object) -> Iterator[list[nn.Module]]:
    """Collects the modules that are called within the block, and their parts, each once.

    Args:
        calls: what the block calls. The modules that a compiled function holds are not seen to be called: they are
            looked for among what the function holds.
    """
    found: dict[int, nn.Module] = {}

    def add(module: nn.Module) -> None:
        if id(module) not in found:
            found.update((id(part), part) for part in module.modules())

    for held in (part for fn in calls for part in _held(fn)):
        if isinstance(held, nn.Module):
            add(held)
    modules: list[nn.Module] = []
    with warnings.catch_warnings():
        # A compiled module tells that it is seen from outside, which is what is wanted.
        warnings.filterwarnings("ignore", message="Using `torch.compile\\(module\\)` when there are global hooks")
        hook = register_module_forward_pre_hook(lambda module, args: add(module))
        try:
            yield modules
        finally:
            hook.remove()
            modules += found.values()


def _held(fn: Any, depth: int = 4) -> Iterator[Any]:
    """What a callable is made of: the closure of a function, the object of a method, and what a wrapper wraps."""
    if depth == 0 or fn is None or isinstance(fn, nn.Module):
        yield fn
        return
    yield fn
    inner = [cell.cell_contents for cell in getattr(fn, "__closure__", None) or () if _filled(cell)]
    inner += [getattr(fn, name, None) for name in ("__self__", "func", "__wrapped__", "_torchdynamo_orig_callable")]
    for part in inner:
        if isinstance(part, nn.Module) or callable(part):
            yield from _held(part, depth - 1)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that is bound later
        return False


def refusal(modules: Sequence[nn.Module], *calls: object) -> str | None:
    """Why a graph of these modules would be wrong; None where nothing speaks against one."""
    for held in (*modules, *(part for fn in calls for part in _held(fn))):
        name = type(held).__name__
        if any(_offloads(hook) for hook in _hooks(held)):
            return (
                f"{name} is offloaded: its weights lie in other memory at every call, and a graph would read where "
                "they lay; keep the model on the device"
            )
        if any(getattr(hook, "_is_stateful", False) for hook in _hooks(held)):
            return (
                f"{name} has a hook that keeps what it saw from call to call (a cache), and decides on the host; "
                "take the cache off the model"
            )
        if any(_own_graphs(call) for call in (held, getattr(held, "_compiled_call_impl", None))):
            return (
                f"{name} is compiled with graphs of its own (mode='reduce-overhead' or 'max-autotune' of "
                "torch.compile); compile it in the default mode, or with mode='max-autotune-no-cudagraphs'"
            )
    return None


def _hooks(module: Any) -> Iterator[Any]:
    """The hooks of accelerate, and those of diffusers, with the ones that they are made of."""
    for hook in (getattr(module, "_hf_hook", None), *getattr(_registry(module), "hooks", {}).values()):
        yield hook
        yield from getattr(hook, "hooks", ())


def _registry(module: Any) -> Any:
    return vars(module).get("_diffusers_hook") if hasattr(module, "__dict__") else None


def _offloads(hook: Any) -> bool:
    # Accelerate's hooks say it of themselves, or keep the hook of the model that makes room for this one; diffusers'
    # belong to a group of modules that go to the device together.
    return bool(getattr(hook, "offload", False)) or hasattr(hook, "prev_module_hook") or hasattr(hook, "group")


def _own_graphs(call: Any) -> bool:
    config: Callable[[], Any] | None = getattr(call, "get_compiler_config", None)
    return config is not None and bool((config() or {}).get("triton.cudagraphs"))
