"""`attach(…, graphs=True)`: the same images, with the pipeline's models replayed by an emulator of CUDA's graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.emulated import Emulator
from zigzag import Standard, Z2Sampling, ZSampling

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach
graphed = pytest.importorskip("zigzag.adapters.diffusers.graphed")
Role = pytest.importorskip("zigzag.adapters.diffusers.roles").Role

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = {"standard": Standard(), "z2": Z2Sampling(warmup=2), "z": ZSampling(steps=3)}


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    return Emulator().install(monkeypatch, graphed)


def images(case: Any, method: Any, **given: Any) -> tuple[Tensor, int]:
    with attach(case.pipe, method, **given) as run:
        return case.run(), run.rows


# How many graphs a loop takes: one where the branches come in one batch, or in two calls of equal shapes.
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("family", ["sdxl", "hunyuan", "flux", "z_image"])
def test_the_results_are_those_without_bit_for_bit(family: str, method: str, tiny: Tiny, emulator: Emulator) -> None:
    case = tiny(family)
    plain, rows = images(case, METHODS[method])
    before = dict(vars(case.model))
    assert not emulator.graphs
    assert torch.equal(images(case, METHODS[method], graphs=True)[0], plain)
    models = sum(getattr(case.pipe, name, None) is not None for name in ("unet", "transformer", "transformer_2"))
    assert len(emulator.graphs) == models
    assert images(case, METHODS[method], graphs=True)[1] == rows
    assert vars(case.model).keys() == before.keys()
    assert torch.equal(images(case, METHODS[method])[0], plain)


def test_graphs_serve_the_whole_block_and_other_shapes_get_their_own(tiny: Tiny, emulator: Emulator) -> None:
    case, calls = tiny("sdxl"), [0]
    hook = case.model.conv_in.register_forward_pre_hook(lambda *given: calls.__setitem__(0, calls[0] + 1))
    with attach(case.pipe, Standard(), graphs=True):
        first = case.run()
        ran = calls[0]
        assert torch.equal(case.run(), first) and calls[0] == ran == 4  # three to try, and the capture
        case.latents = torch.cat([case.latents] * 2)
        case.run(num_images_per_prompt=2)
        case.latents = case.latents[:1]
        assert len(emulator.graphs) == 2 and torch.equal(case.run(), first)
    hook.remove()


def test_outputs_that_are_kept_are_not_written_to(tiny: Tiny, emulator: Emulator) -> None:
    """Flux calls its model twice a step, and keeps the first output over the second call."""
    case, kept = tiny("flux"), []
    with attach(case.pipe, Standard(), graphs=True):
        hook = case.model.register_forward_hook(lambda m, a, out: kept.append((out[0], out[0].clone())))
        case.run()
        hook.remove()
    assert len(kept) > 2 and all(torch.equal(out, then) for out, then in kept)


def test_a_role_has_graphs_of_its_own(tiny: Tiny, emulator: Emulator) -> None:
    """Its model may be another: adapters at another strength are numbers, which a graph has as they were."""
    case = tiny("sdxl")
    weak = Role(edit={"encoder_hidden_states": case.uncond["encoder_hidden_states"].repeat(2, 1, 1)})
    expected = images(case, METHODS["z2"], weak=weak)[0]
    assert not emulator.graphs
    assert torch.equal(images(case, METHODS["z2"], weak=weak, graphs=True)[0], expected)
    assert len(emulator.graphs) == 2


def test_a_model_compiled_in_place_is_replayed_too(tiny: Tiny, emulator: Emulator) -> None:
    case = tiny("sd")
    plain = case.run()
    case.model.compile(backend="eager")
    try:
        assert torch.equal(images(case, Standard(), graphs=True)[0], plain)
        assert len(emulator.graphs) == 1
    finally:
        case.model._compiled_call_impl = None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_in_inference_mode(mode: Any, tiny: Tiny, emulator: Emulator) -> None:
    case = tiny("sd")
    plain = case.run()
    with attach(case.pipe, Standard(), graphs=True):
        with mode():
            assert torch.equal(case.run(), plain)
        assert torch.equal(case.run(), plain)


def test_weights_that_moved_are_noticed_in_the_next_loop(tiny: Tiny, emulator: Emulator) -> None:
    case = tiny("sd")
    with attach(case.pipe, Standard(), graphs=True):
        case.run()
        case.model.conv_in.weight.data.mul_(0.5)
        changed = case.run()
        case.model.conv_in.weight.data = case.model.conv_in.weight.data.clone()
        with pytest.raises(
            RuntimeError, match=r"changed since the capture \(weight of Conv2d\).*leave graphs=True out"
        ):
            case.run()
    assert torch.equal(case.run(), changed)


# Refused at once.


def test_without_cuda_it_is_refused(tiny: Tiny) -> None:
    case = tiny("sd")
    before = sorted(vars(case.model))
    with pytest.raises(RuntimeError, match=r"graphs=True needs CUDA, and UNet2DConditionModel is on cpu.*leave"):
        images(case, Standard(), graphs=True)
    assert sorted(vars(case.model)) == before and "step" not in vars(case.pipe.scheduler)


def test_offloaded_models_are_refused(tiny: Tiny, emulator: Emulator) -> None:
    accelerate, case = pytest.importorskip("accelerate"), tiny("sd")
    case.pipe.unet = copy.deepcopy(case.pipe.unet)  # which other tests have too, and not on the meta device
    accelerate.cpu_offload(case.model, execution_device="cpu")
    with pytest.raises(RuntimeError, match=r"graphs=True: .*is offloaded"):
        images(case, Standard(), graphs=True)


def test_models_with_a_cache_are_refused(tiny: Tiny, emulator: Emulator) -> None:
    from diffusers import FirstBlockCacheConfig

    case = tiny("flux")
    case.model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(RuntimeError, match=r"graphs=True: .*keeps what it saw"):
        images(case, Standard(), graphs=True)


def test_models_with_graphs_of_their_own_are_refused(tiny: Tiny, emulator: Emulator) -> None:
    case = tiny("sd")
    case.pipe.unet = torch.compile(case.model, mode="reduce-overhead")
    with pytest.raises(RuntimeError, match=r"graphs=True: .*graphs of its own"):
        images(case, Standard(), graphs=True)


# Refused at a call.


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: Tensor, scale: Any = 1.0, out: Callable[[Tensor], Any] = lambda x: x) -> Any:
        return out(self.layer(x) * scale)


def graph_of(model: nn.Module) -> Any:
    return graphed.Graphed(model, model.forward, lambda: None)


@pytest.fixture(autouse=True)
def no_grad() -> Any:
    with torch.no_grad():
        yield


def test_a_model_that_waits_is_refused_with_the_reason(emulator: Emulator) -> None:
    model = Model()
    with pytest.raises(RuntimeError, match=r"called a synchronizing.*leave graphs=True out"):
        graph_of(model)(torch.ones(1, 2), out=lambda x: x * float(x.sum()))


def test_a_number_that_changes_all_the_time_is_refused(emulator: Emulator) -> None:
    own, x = graph_of(Model()), torch.ones(1, 2)
    for scale in range(graphed.MOST):
        assert torch.equal(own(x, float(scale)), own.forward(x, float(scale)))
    with pytest.raises(RuntimeError, match=r"more than 8 forms \(leaf 1 of its arguments was 7\.0, and 99\.0 then\)"):
        own(x, 99.0)
    assert torch.equal(own(x, 3.0), own.forward(x, 3.0))


def test_scalars_on_the_host_expanded_and_cut_tensors_are_data(emulator: Emulator) -> None:
    own = graph_of(Model())
    wide = torch.randn(4, 6)
    for k in range(3):
        for x, scale in ((wide[:, k : k + 2], torch.tensor(2.0 + k)), (wide[k, :2].expand(4, 2), torch.ones(4, 1) * k)):
            assert torch.equal(own(x, scale), own.forward(x, scale))
    assert len(own.forms) == 2


def test_gradients_are_refused(emulator: Emulator) -> None:
    with torch.enable_grad(), pytest.raises(RuntimeError, match="records gradients of Model"):
        graph_of(Model())(torch.ones(1, 2))


def test_an_output_that_hides_its_tensors_is_refused(emulator: Emulator) -> None:
    class Hidden:
        def __init__(self, x: Tensor) -> None:
            self.x = x

    with pytest.raises(RuntimeError, match="Model returns a Hidden"):
        graph_of(Model())(torch.ones(1, 2), out=Hidden)


@pytest.mark.gpu
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("family", ["sdxl", "hunyuan", "flux"])
def test_on_a_device_the_results_are_those_without_bit_for_bit(family: str, method: str, tiny: Tiny) -> None:
    case = tiny(family)
    case.pipe.to("cuda")
    case.latents = case.latents.to("cuda")
    case.call = {k: v.to("cuda") if isinstance(v, Tensor) else v for k, v in case.call.items()}
    plain = images(case, METHODS[method])[0]
    assert torch.equal(images(case, METHODS[method], graphs=True)[0], plain)
