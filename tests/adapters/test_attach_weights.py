"""Models whose weights are changed or moved around a call: LoRA, another checkpoint, offloading by accelerate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

Tiny = Callable[..., Any]
METHODS = [ZSampling(steps=3), Z2Sampling(warmup=1)]


def check_same(x: Tensor, y: Tensor) -> None:
    assert float((x - y).norm() / y.norm()) <= 1e-5


def check_attached(case: Any, method: Any, before: Tensor) -> None:
    """`attach` equals `zigzag.sample` with the model as it is now, which is not the model as it was."""
    plain, wanted = case.run(), case.sampled(method)
    assert float((plain - before).norm() / before.norm()) > 1e-3
    with attach(case.pipe, Standard()):
        assert torch.equal(case.run(), plain)
    with attach(case.pipe, method):
        check_same(case.run(), wanted)
    assert torch.equal(case.run(), plain)


def stirred(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_lora_weights(method: Any, tiny: Tiny) -> None:
    peft = pytest.importorskip("peft")
    case = tiny("sdxl")
    before = case.run()
    case.model.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    try:
        stirred(p for name, p in case.model.named_parameters() if "lora" in name)
        check_attached(case, method, before)
        with attach(case.pipe, method):  # switched off, it is the model as it was
            adapted = case.run()
            case.model.disable_adapters()
            bare = case.run()
        assert not torch.equal(adapted, bare)
        assert torch.equal(case.run(), before)
    finally:
        case.model.unload_lora()  # of the wrapped layers too: other tests have the same network


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_another_checkpoint_of_the_unet(method: Any, tiny: Tiny) -> None:
    """What Diffusion-DPO is: the same U-Net with other weights."""
    case = tiny("sdxl")
    before, weights = case.run(), {k: v.clone() for k, v in case.model.state_dict().items()}
    try:
        stirred(case.model.parameters())
        check_attached(case, method, before)
    finally:
        case.model.load_state_dict(weights)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_weights_that_accelerate_moves_in_for_a_call_and_out_again(method: Any, tiny: Tiny) -> None:
    accelerate = pytest.importorskip("accelerate")
    case = tiny("sdxl")
    plain, wanted = case.run(), case.sampled(method)
    models = [part for part in case.pipe.components.values() if isinstance(part, torch.nn.Module)]
    for model in models:  # what enable_sequential_cpu_offload does, which asks for an accelerator
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    try:
        assert all(p.device.type == "meta" for p in case.model.parameters())
        with attach(case.pipe, method) as run:
            check_same(case.run(), wanted)
        assert run.rows > 0
        assert torch.equal(case.run(), plain)
        assert all(p.device.type == "meta" for p in case.model.parameters())
    finally:
        for model in models:
            accelerate.hooks.remove_hook_from_submodules(model)
