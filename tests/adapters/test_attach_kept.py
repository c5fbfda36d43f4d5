"""What a pipeline keeps over the calls of its loop: guidance that adds up, schedules by the call, keys and values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import ImplicitZ, Standard, Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

import swept_edits  # noqa: E402
import swept_images  # noqa: E402
import swept_more_images  # noqa: E402
import swept_videos  # noqa: E402
from swept import Swept  # noqa: E402
from swept_parts import Words, pil  # noqa: E402
from tiny_unets import noise  # noqa: E402

from support.steered import Led  # noqa: E402

CLASSES = swept_images.CLASSES | swept_more_images.CLASSES | swept_videos.CLASSES | swept_edits.CLASSES
Z2, Z = Z2Sampling(warmup=1), ZSampling(steps=1)
MOVED = 1e-4
Mix, Projected = diffusers.AdaptiveProjectedMixGuidance, diffusers.AdaptiveProjectedGuidance


def build(name: str, guider: Any = None, **call: Any) -> Swept:
    diffusers.logging.set_verbosity_error()
    case = CLASSES[name]()
    case.call |= call
    if guider is not None:
        case.pipe.guider = guider
    return case


def led(case: Swept, method: Any, **roles: Any) -> Tensor:
    with attach(case.pipe, method, **roles) as run, case.seen() as seen:
        x = case.run()
    assert run.rows == sum(seen)
    return x


def off(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


def check_refused(match: str, case: Swept, method: Any, before: int = 0, **roles: Any) -> None:
    """Before the loop, whatever is called before it, and nothing is left of it."""
    plain = case.run()
    with case.seen() as seen, pytest.raises(ValueError, match=match), attach(case.pipe, method, **roles):
        case.run()
    assert len(seen) == before and torch.equal(case.run(), plain)


def mixed(start: int, momentum: float | None) -> Any:
    return Mix(4.0, adaptive_projected_guidance_start_step=start, adaptive_projected_guidance_momentum=momentum)


# Plain guidance up to a call, and from then on a projected one; differences that are added up over the calls.
REMEMBER = [
    ("HunyuanImagePipeline", mixed(1, None), "projects its guidance from call 2 on, and the method makes"),
    ("HunyuanImagePipeline", mixed(-1, -0.5), "projects its guidance, at a momentum of -0.5 over the calls before"),
    ("HunyuanVideo15Pipeline", Projected(4.0, adaptive_projected_guidance_momentum=-0.5), "at a momentum of -0.5"),
]


@pytest.mark.parametrize(("name", "guider", "match"), REMEMBER)
def test_a_guider_that_goes_by_its_calls_is_led_call_by_step_alone(name: str, guider: Any, match: str) -> None:
    case = build(name, guider)
    for method in (Z, ImplicitZ(), Led(Z)):
        check_refused(match, case, method)
    plain = case.run()
    assert torch.equal(led(case, Standard()), plain) and off(led(case, Z2), plain) > MOVED


@pytest.mark.parametrize("guider", [mixed(4, -0.5), mixed(-1, None)])
def test_a_guider_of_which_no_call_differs_is_led(guider: Any) -> None:
    """Five calls, of which the last is call 4; and a projection of the two predictions at hand."""
    case = build("HunyuanImagePipeline", guider)
    assert off(led(case, Z), case.run()) > MOVED


def test_a_guidance_schedule_is_followed_step_by_step() -> None:
    """It is looked up by the call's number, of which there are as many as steps."""
    one = build("Ideogram4Pipeline")
    same = build("Ideogram4Pipeline", guidance_scale=None, guidance_schedule=[4.0] * 3)
    other = build("Ideogram4Pipeline", guidance_scale=None, guidance_schedule=[4.0, 6.0, 2.0])
    assert torch.equal(led(one, Z2), led(same, Z2)) and off(led(other, Z2), led(one, Z2)) > MOVED
    for case in (one, other):
        check_refused("looks it up by the call's number", case, Z)
        check_refused("looks it up by the call's number", case, Z2, weak=Role(prompt=""))


@pytest.mark.parametrize("method", [Z2, Z], ids=repr)
def test_keys_and_values_of_a_prompt_that_are_kept_change_nothing(method: Any) -> None:
    cases = [build("QwenImage21Pipeline", use_kv_cache=kept) for kept in (True, False)]
    x, y = (led(case, method) for case in cases)
    assert off(x, y) < 1e-5


def test_a_role_is_not_answered_with_the_keys_of_another() -> None:
    """With no keys kept, its own prompt leaves no gap, and another does."""
    case, other = build("QwenImage21Pipeline", true_cfg_scale=1.0), noise(1, 5, 16, seed=99)
    for role in (Role(edit={"encoder_hidden_states": other}), Role(module=copy.deepcopy(case.pipe.transformer))):
        check_refused("keeps the keys and values of its prompt and images.*use_kv_cache=False", case, Z2, weak=role)
    case.call["use_kv_cache"] = False
    plain, own = case.run(), case.call["prompt_embeds"]
    assert off(led(case, Z2, weak=Role(edit={"encoder_hidden_states": own})), plain) < 1e-5
    assert off(led(case, Z2, weak=Role(edit={"encoder_hidden_states": other})), plain) > MOVED


@pytest.mark.parametrize(
    ("name", "shown", "before"),
    [("Flux2KleinKVPipeline", {"image": pil(64)}, 0), ("GlmImagePipeline, shown", {"guidance_scale": 1.0}, 1)],
)
def test_another_network_is_not_shown_the_keys_of_an_image(name: str, shown: dict[str, Any], before: int) -> None:
    """Another prompt is: those of the image are kept alone."""
    case = build(name, **shown)
    network = Role(module=copy.deepcopy(case.models[0]))
    check_refused("keeps the keys and values of its images", case, Z2, before, weak=network)
    other = Role(edit={"encoder_hidden_states": noise(1, 5, 16, seed=99)})
    assert off(led(case, Z2, weak=other), case.run()) > MOVED


def test_a_pipeline_without_a_loop_of_states_is_refused_at_once() -> None:
    """Tokens of text, which are no states; embeddings in one pass."""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=100
    )
    model, scheduler = transformers.LlamaForCausalLM(config), diffusers.BlockRefinementScheduler()
    pipes = [
        diffusers.LLaDA2Pipeline(model, scheduler),
        diffusers.DiffusionGemmaPipeline(model, scheduler, Words()),
        diffusers.FluxPriorReduxPipeline(None, None, diffusers.pipelines.flux.ReduxImageEncoder(16, 16)),
    ]
    for pipe in pipes:
        wanted = f"must have a scheduler, .* and one of unet, .*{type(pipe).__name__}"
        with pytest.raises(TypeError, match=wanted), attach(pipe, Standard()):
            raise AssertionError("not reached")
