"""Predictors over networks in wrappers: the wrapper is called, and what it wraps tells how."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")


def unet() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=8, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def flux() -> Any:
    torch.manual_seed(0)
    return diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, joint_attention_dim=16, num_attention_heads=2,
        attention_head_dim=8, axes_dims_rope=(2, 2, 4), pooled_projection_dim=12, guidance_embeds=False,
    ).eval()  # fmt: skip


def peft(model: nn.Module) -> Any:
    """A LoRA over it that says something."""
    library = pytest.importorskip("peft")
    new = library.get_peft_model(model, library.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    return new.eval()


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of one, on the host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def fsdp(model: nn.Module) -> Any:
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    return fully_shard(model, mesh=mesh)


class Within(nn.Module):
    """A wrapper within another."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Passed on."""
        return self.module(*args, **kwargs)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "peft": peft,
    "data parallel": nn.DataParallel,
    "ddp": nn.parallel.DistributedDataParallel,
    "fsdp2": fsdp,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled, of peft": lambda model: torch.compile(peft(model), backend="eager"),
    "twice": lambda model: Within(Within(model)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_predicts_what_it_is(name: str, group: None) -> None:
    """The wrapper runs (its hooks, its adapters), and its network's configuration is read."""
    torch.manual_seed(1)
    x, t, text = torch.randn(2, 4, 8, 8), torch.tensor([301, 301]), torch.randn(2, 5, 16)
    wrapped, calls = WRAPPERS[name](unet()), []
    wrapped.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    with torch.no_grad():
        wanted = wrapped(sample=x, timestep=t, encoder_hidden_states=text, return_dict=False)[0]
        calls.clear()
        eps_fn = adapters.unet_predictor(wrapped)
        torch.testing.assert_close(eps_fn(x, t, {"encoder_hidden_states": text}), wanted, rtol=0, atol=0)
    assert len(calls) == 1
    with pytest.raises(TypeError, match="UNet2DConditionModel needs encoder_hidden_states"):
        eps_fn(x, t, {})


@pytest.mark.parametrize("name", ["peft", "data parallel", "twice"])
def test_a_wrapped_transformer_is_called_by_its_own_convention(name: str, group: None) -> None:
    """Flux is told `t/1000`; a wrapper's name is on no list."""
    torch.manual_seed(1)
    x, t = torch.randn(2, 4, 16), torch.tensor([301.0, 301.0])
    cond = {"encoder_hidden_states": torch.randn(2, 5, 16), "pooled_projections": torch.randn(2, 12)}
    ids = {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(5, 3)}
    wrapped = WRAPPERS[name](flux())
    with torch.no_grad():
        wanted: Tensor = wrapped(hidden_states=x, timestep=t / 1000, **cond, **ids, return_dict=False)[0]
        torch.testing.assert_close(adapters.dit_predictor(wrapped, common=ids)(x, t, cond), wanted, rtol=0, atol=0)
