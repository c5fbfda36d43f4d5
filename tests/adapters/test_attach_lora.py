"""Roles of other LoRA strengths: what the pipeline is under each, and that it is as it was after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import Z2Sampling, ZSampling, count_rows
from zigzag.moves import Denoise

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

# Of two adapters in one model, and of deleting the one that is on.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

Tiny = Callable[..., Any]
STRONG, WEAK, PLAIN = 1.5, -1.5, 0.8


@pytest.fixture
def case(tiny: Tiny) -> Iterator[Any]:
    """A tiny SDXL with two adapters, of which "style" is on at the strong strength, and nothing learns."""
    case = tiny("sdxl")
    for seed, name in enumerate(("style", "other")):
        config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
        case.model.add_adapter(config, name)
        stir(case.model, name, seed)
    case.model.requires_grad_(False)
    case.pipe.set_adapters("style", STRONG)
    case.model.requires_grad_(False)
    yield case
    case.model.unload_lora()  # of the wrapped layers too: other tests have the same network


def stir(model: Any, name: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f".{name}." in key:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def state_of(pipe: Any) -> list[Any]:
    """What of the adapters is on, how strong, and which weights learn."""
    layers = [m for m in pipe.unet.modules() if isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer)]
    assert layers
    return [
        (list(m.active_adapters), dict(m.scaling), m.disable_adapters, [p.requires_grad for p in m.parameters()])
        for m in layers
    ]


def predictor(case: Any, **strengths: float) -> Callable[..., Tensor]:
    """The model at these strengths, set and put back by hand."""
    own = case.predict

    def predict(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        case.pipe.set_adapters([*strengths], [*strengths.values()])
        e: Tensor = own(x, t, cond)
        case.pipe.set_adapters("style", STRONG)
        return e

    return predict


def check_same(x: Tensor, y: Tensor) -> None:
    assert float((x - y).norm() / y.norm()) <= 1e-5


@pytest.mark.parametrize("method", [ZSampling(plain=True), ZSampling(steps=3, plain=True, released=True)])
def test_w2sd(method: Any, case: Any) -> None:
    """Strong at 1.5 under CFG 5.5, weak at −1.5 under CFG 1, plain at 0.8 under CFG 5.5, all by the pipeline itself."""
    own, before = case.run(), state_of(case.pipe)
    weak, plain = Role(adapters={"style": WEAK}, cfg=1.0), Role(adapters={"style": PLAIN})
    with attach(case.pipe, method, weak=weak, plain=plain) as run, case.counted() as rows:
        x = case.run(guidance_scale=5.5)
    assert state_of(case.pipe) == before
    given = {"weak_fn": predictor(case, style=WEAK), "plain_fn": predictor(case, style=PLAIN)}
    check_same(x, case.sampled(method, strong=5.5, weak=1.0, **given))
    assert run.rows == sum(rows) == 2 * count_rows(method, 6, strong=1.0, weak=1.0, own_weak=True, own_plain=True)
    assert torch.equal(case.run(), own)


@pytest.mark.parametrize("released", [False, True])
def test_w2sd_as_a_preset_around_the_pipeline_as_it_is(released: bool, case: Any) -> None:
    """The same, with the strength of the plain steps on."""
    case.pipe.set_adapters("style", PLAIN)
    before, given = state_of(case.pipe), adapters.w2sd("style", steps=4, released=released)
    with attach(case.pipe, **given) as run:
        x = case.run(guidance_scale=5.5)
    assert state_of(case.pipe) == before and run.rows == 2 * (6 + 2 * 4)
    roles = {"weak_fn": predictor(case, style=WEAK), "plain_fn": predictor(case, style=PLAIN)}
    case.predict = predictor(case, style=STRONG)
    scales = {"strong": 5.5, "weak": 1.0, "plain": 5.5}
    check_same(x, case.sampled(ZSampling(steps=4, plain=True, released=released), **scales, **roles))


@pytest.mark.parametrize("others", [{"style": 0.4, "other": -0.7}, {"other": 1.0}, {}], ids=repr)
def test_adapters_that_are_not_named_are_off(others: dict[str, float], case: Any) -> None:
    method, before = Z2Sampling(warmup=2), state_of(case.pipe)
    with attach(case.pipe, method, weak=Role(adapters=others)):
        x = case.run()
    assert state_of(case.pipe) == before
    named = others or {"style": 0.0}
    check_same(x, case.sampled(method, weak=4.0, weak_fn=predictor(case, **named)))


def test_adapters_that_are_off_are_on_for_their_role_alone(case: Any) -> None:
    """The strong model is the bare one."""
    case.pipe.disable_lora()
    own, before, method = case.run(), state_of(case.pipe), ZSampling(steps=2)
    with attach(case.pipe, method, weak=Role(adapters={"style": WEAK})):
        x = case.run()
    assert state_of(case.pipe) == before and torch.equal(case.run(), own)
    case.pipe.enable_lora()
    weak_fn = predictor(case, style=WEAK)
    case.predict = predictor(case, style=0.0)
    check_same(x, case.sampled(method, weak=4.0, weak_fn=weak_fn))


def test_they_are_put_back_after_every_call(case: Any) -> None:
    """A callback, and whatever else runs between two calls, finds the pipeline as it was."""
    before, seen = state_of(case.pipe), []

    def look(pipe: Any, i: int, t: Any, given: Any) -> dict[str, Any]:
        seen.append(state_of(pipe) == before)
        return {}

    with attach(case.pipe, ZSampling(plain=True), weak=Role(adapters={"style": WEAK}), plain=Role(adapters={})):
        case.run(callback_on_step_end=look)
    assert len(seen) == 16 and all(seen)


@pytest.mark.parametrize("at", [1, 4])
def test_they_are_put_back_after_an_exception(at: int, case: Any) -> None:
    """In the middle of a call of the model, with the strengths of the weak or of the strong role."""
    before, calls = state_of(case.pipe), []

    def fail(*args: Any) -> None:
        calls.append(state_of(case.pipe) == before)
        if len(calls) > at:
            raise KeyboardInterrupt

    hook = case.model.mid_block.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt), attach(case.pipe, ZSampling(), weak=Role(adapters={"style": WEAK})):
        case.run()
    hook.remove()
    assert calls == [True, False, True, True, False][: at + 1]
    assert state_of(case.pipe) == before and "_compiled_call_impl" not in vars(case.model)


def test_what_the_pipeline_has_not_loaded_is_refused_at_once(case: Any, tiny: Tiny) -> None:
    with case.counted() as rows:
        for given, match in (
            ({"adapters": {"stile": 1.0}}, r"weak=.*no adapter 'stile', but other, style"),
            ({"adapters": {"style": 1.0, "more": 1.0}}, r"no adapter 'more'"),
        ):
            with pytest.raises(ValueError, match=match), attach(case.pipe, ZSampling(), weak=Role(**given)):
                case.run()
        case.pipe.fuse_lora()
        try:
            with (
                pytest.raises(ValueError, match=r"plain=.*fused into the weights.*unfuse_lora"),
                attach(case.pipe, ZSampling(plain=True), plain=Role(adapters={"style": 1.0})),
            ):
                case.run()
        finally:
            case.pipe.unfuse_lora()
        with pytest.raises(ValueError, match=r"no adapter 'x', but none"):
            attach(tiny("flux").pipe, ZSampling(), weak=Role(adapters={"x": 1.0})).__enter__()
        with pytest.raises(TypeError, match=r"HunyuanDiTPipeline has no LoRA functions"):
            attach(tiny("hunyuan").pipe, ZSampling(), weak=Role(adapters={"x": 1.0})).__enter__()
    assert rows == []


def test_a_path_of_ones_own_asks_each_role_where_it_says(case: Any) -> None:
    """A plain Denoise first: the pipeline's branches are told apart in a pass of another role too."""
    path = (Denoise(0, 1, plain=True), *ZSampling(plain=True).path(6)[3:])
    assert path[1].start == 1
    with attach(case.pipe, path, weak=Role(adapters={"style": WEAK}), plain=Role(adapters={"style": PLAIN}, cfg=3.0)):
        x = case.run()
    given = {"weak_fn": predictor(case, style=WEAK), "plain_fn": predictor(case, style=PLAIN), "plain": 3.0}
    check_same(x, case.sampled(path, weak=4.0, **given))
