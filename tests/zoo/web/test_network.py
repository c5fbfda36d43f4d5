"""A network as ONNX computes what it does in torch, for any number of rows, and is the same file every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zigzag import zoo
from zigzag.zoo.shapes.grammar import LENGTH, WORDS
from zigzag.zoo.web.network import INPUTS, OUTPUT, network_bytes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[3]


class Tiny(nn.Module):
    """A network of the same inputs, with a weight that float16 holds and one that it does not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(1 + len(WORDS), 3)
        self.mix = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            self.mix.weight.copy_(self.mix.weight.half())

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        caption = self.words(tokens).mean(1)[:, :, None, None]
        return self.mix(x) * caption + (t / 1000)[:, None, None, None]


def run(data: bytes, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    given = dict(zip(INPUTS, (x.numpy(), t.numpy(), tokens.numpy()), strict=True))
    return torch.from_numpy(session.run([OUTPUT], given)[0])


@pytest.fixture(scope="module")
def tiny() -> tuple[Tiny, bytes]:
    network = Tiny().requires_grad_(False)
    return network, network_bytes(network)


def inputs(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 3, 32, 32, generator=generator)
    return x, torch.linspace(0, 1000, rows), torch.randint(1 + len(WORDS), (rows, LENGTH), generator=generator)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_any_number_of_rows_gives_what_torch_gives(tiny: tuple[Tiny, bytes], rows: int) -> None:
    network, data = tiny
    torch.testing.assert_close(run(data, *inputs(rows)), network(*inputs(rows)), rtol=1e-5, atol=1e-5)


def test_the_same_network_is_the_same_file_and_says_nothing_of_the_machine(tiny: tuple[Tiny, bytes]) -> None:
    network, data = tiny
    assert network_bytes(network) == data
    for word in (str(ROOT), "site-packages", "test_network", "Tiny"):
        assert word.encode() not in data


def test_weights_are_kept_in_half_precision_where_it_holds_them(tiny: tuple[Tiny, bytes]) -> None:
    network, data = tiny
    kinds = {tuple(its.dims): its.data_type for its in onnx.load_model_from_string(data).graph.initializer}
    assert kinds[tuple(network.mix.weight.shape)] == onnx.TensorProto.FLOAT16
    assert kinds[tuple(network.words.weight.shape)] == onnx.TensorProto.FLOAT


def test_shapes_dit_predicts_what_it_does_in_torch() -> None:
    pytest.importorskip("diffusers")
    model = zoo.load("shapes-dit")
    data = network_bytes(model.network)
    assert len(data) < 1.1 * (Path(zoo.__file__).parent / "data/shapes-dit.safetensors").stat().st_size
    captions = model.encode(["a red circle", "", "a blue square above a red circle"])
    times = torch.tensor([1000.0, 500.0, 33.0])
    # A state without anything in it, at which linear attention divides 0 by what keeps it finite.
    states: list[Any] = [inputs(3)[0], torch.full((3, 3, 32, 32), 0.5)]
    for x in states:
        e = model.network(x, times, captions)
        torch.testing.assert_close(run(data, x, times, captions), e, rtol=1e-4, atol=1e-5 * float(e.abs().max()))
