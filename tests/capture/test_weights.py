"""Which modules a step runs, whether their weights still lie where they lay, and which a graph cannot follow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from zigzag.capture.weights import Weights, modules_run, refusal


def network() -> nn.Sequential:
    return (
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2))).eval().requires_grad_(False)
    )


def run(model: Callable[..., Any]) -> list[nn.Module]:
    with modules_run(model) as modules:
        model(torch.zeros(1, 2))
    return modules


def test_the_modules_that_run_are_found_each_once() -> None:
    model, aside = network(), nn.Linear(2, 2)
    found = run(lambda x: model(model(x)))
    assert len(found) == len(set(map(id, found)))
    assert {id(part) for part in model.modules()} == set(map(id, found))
    assert id(aside) not in set(map(id, found))
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_a_compiled_module_is_found_and_not_compiled_again() -> None:
    torch._dynamo.reset()
    model, counter = network(), CompileCounter()
    for compiled in (torch.compile(model, backend=counter), torch.compile(lambda x: model(x), backend=counter)):
        compiled(torch.zeros(1, 2))
        frames = counter.frame_count
        assert {id(part) for part in model.modules()} <= set(map(id, run(partial(compiled))))
        assert counter.frame_count == frames


def assign(model: nn.Sequential) -> None:
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def adapter(model: nn.Sequential) -> None:
    model[2] = nn.Sequential(model[2], nn.Linear(2, 2))


CHANGES: dict[str, tuple[Callable[[nn.Sequential], Any], str]] = {
    "a parameter replaced": (lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.clone())), "weight of Linear"),
    "its data replaced": (lambda m: setattr(m[0].bias, "data", m[0].bias.clone()), "bias of Linear"),
    "another dtype": (lambda m: m.double(), "weight, bias of Linear"),
    "a buffer replaced": (lambda m: setattr(m[1], "running_mean", torch.ones(3)), "running_mean of BatchNorm1d"),
    "a state assigned": (assign, "weight, bias of Linear"),
    "a layer wrapped": (adapter, "2 of Sequential"),
    "a layer added": (lambda m: m[2].add_module("lora", nn.Linear(2, 2)), "lora of Sequential"),
    "a buffer added": (lambda m: m[0].register_buffer("scale", torch.ones(1)), "scale of Linear"),
    "a parameter gone": (lambda m: setattr(m[0], "bias", None), "bias of Linear"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_moved_is_said(change: str) -> None:
    model = network()
    weights = Weights(run(model))
    assert weights.moved() is None
    CHANGES[change][0](model)
    assert weights.moved() == CHANGES[change][1]


def test_weights_written_in_place_have_not_moved() -> None:
    model = network()
    weights = Weights(run(model))
    model[0].weight.mul_(2)
    model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})
    assert weights.moved() is None


def test_changed_adapters_are_said_and_their_weights_may_be_written_in_place() -> None:
    peft = pytest.importorskip("peft")
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    layers = peft.inject_adapter_in_model(peft.LoraConfig(r=1, target_modules=["0"]), model)
    weights = Weights(run(layers))
    layers[0].lora_A["default"].weight.data.fill_(3.0)
    assert weights.moved() is None
    layers[0].scaling["default"] *= 2
    assert weights.moved() == "scaling of Linear"
    layers[0].scaling["default"] /= 2
    layers[0].enable_adapters(False)
    assert weights.moved() == "disable_adapters of Linear"
    layers[0].enable_adapters(True)
    assert weights.moved() is None
    layers[0].merge()
    assert weights.moved() == "merged_adapters of Linear"


def hooked(**hook: Any) -> nn.Module:
    model = network()
    model[0]._hf_hook = SimpleNamespace(**hook)
    return model


def test_hooks_that_do_not_move_weights_are_let_through() -> None:
    assert refusal(run(network())) is None
    assert refusal(run(hooked(offload=False))) is None


@pytest.mark.parametrize(
    "hook", [{"offload": True}, {"prev_module_hook": None}, {"hooks": [SimpleNamespace(offload=True)]}]
)
def test_hooks_that_offload_are_refused(hook: dict[str, Any]) -> None:
    assert "Linear is offloaded" in str(refusal(run(hooked(**hook))))


def test_what_accelerate_and_diffusers_offload_is_refused() -> None:
    accelerate, hooks = pytest.importorskip("accelerate"), pytest.importorskip("diffusers.hooks")
    by_layer, by_model, by_group = network(), network(), network()
    accelerate.cpu_offload(by_layer, execution_device="cpu")
    accelerate.cpu_offload_with_hook(by_model, execution_device="cpu")
    hooks.apply_group_offloading(by_group, onload_device=torch.device("cpu"), offload_type="leaf_level")
    for model in (by_layer, by_model, by_group):
        assert "is offloaded" in str(refusal(list(model.modules())))


def test_a_cache_is_refused() -> None:
    hooks = pytest.importorskip("diffusers.hooks")

    class Cache(hooks.ModelHook):
        _is_stateful = True

        def reset_state(self, module: nn.Module) -> None:
            pass

    model = network()
    hooks.HookRegistry.check_if_exists_or_initialize(model).register_hook(Cache(), "cache")
    assert "keeps what it saw" in str(refusal(list(model.modules())))


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_graphs_of_a_compiled_network_are_refused_where_they_show(mode: str) -> None:
    model, called = network(), network()
    called.compile(mode=mode)
    compiled = torch.compile(lambda x: x, mode=mode)
    assert "default mode" in str(refusal([torch.compile(model, mode=mode)]))
    assert "default mode" in str(refusal([called]))
    for fn in (compiled, partial(compiled, 1), lambda x: compiled(x)):
        assert "default mode" in str(refusal([], fn))


@pytest.mark.parametrize("mode", [None, "default", "max-autotune-no-cudagraphs"])
def test_a_network_compiled_without_graphs_is_let_through(mode: str | None) -> None:
    assert refusal([torch.compile(network(), mode=mode)], torch.compile(lambda x: x, mode=mode)) is None
