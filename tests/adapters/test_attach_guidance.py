"""The pipeline's own guidance, whatever its rule, is the strong one; its branches are told apart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from tiny_paths import check_same
from torch import Tensor

from zigzag import APG, CFG, CFGZeroStar, Interval, RescaledCFG, StepInfo, Z2Sampling, ZSampling

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

# diffusers hands tensors to numpy in a way that numpy 2 warns of, thousands of times.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

Tiny = Callable[..., Any]
METHODS = [ZSampling(steps=3), Z2Sampling(warmup=1)]


@pytest.mark.parametrize("family", ["sd", "hunyuan"])
def test_rescaled_guidance_is_the_strong_one(family: str, tiny: Tiny) -> None:
    """`guidance_rescale` is the pipeline's own rule, and RescaledCFG here."""
    case = tiny(family, 2)
    for method in METHODS:
        with attach(case.pipe, method):
            x = case.run(guidance_rescale=0.7)
        check_same(x, case.sampled(method, strong=RescaledCFG(4.0, 0.7)))


def test_renormalised_guidance_is_the_strong_one(tiny: Tiny) -> None:
    """Lumina2 brings guidance back to the norm of its conditional prediction, in the last dimension, by default."""
    case, strong = tiny("lumina2", 2), type(tiny("qwen").strong)(4.0)
    for method in METHODS:
        with attach(case.pipe, method):
            x = case.run(cfg_normalization=True)
        check_same(x, case.sampled(method, strong=strong))


class Capped(CFG):
    """Plain guidance of a norm, sample by sample, of at most so many times that of the conditional prediction."""

    def __init__(self, scale: float, most: float) -> None:
        super().__init__(scale)
        self.most, self.factors = most, set()

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        assert e_c is not None
        e = super().__call__(e_c, e_u, step)
        most, norm = (x.flatten(1).norm(dim=1).reshape(-1, *[1] * (e.ndim - 1)) for x in (self.most * e_c, e))
        factor = (most / norm).clamp(max=1)
        self.factors |= set((factor < 1).flatten().tolist())
        return e * factor


@pytest.mark.parametrize("rule", [APG(1.5, eta=0.3, norm=2.0), CFGZeroStar(0.5, zero_init=1)], ids=repr)
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_weak_rule_may_read_the_state(family: str, rule: Any, tiny: Tiny) -> None:
    """In ε and in flow; where it needs no branch, the pipeline evaluates its own all the same."""
    case = tiny(family, 2)
    for method in METHODS:
        with attach(case.pipe, method, weak=rule):
            x = case.run()
        check_same(x, case.sampled(method, weak=rule))
        with pytest.raises(AssertionError):
            check_same(x, case.sampled(method, weak=1.2))


def test_a_rule_that_reads_the_state_is_refused_where_predictions_are_of_another(tiny: Tiny) -> None:
    """Euler's σ-space under a model of v, which is the v of the scaled state."""
    from diffusers import EulerDiscreteScheduler

    case = tiny("sd")
    case.pipe.scheduler = EulerDiscreteScheduler(prediction_type="v_prediction")
    with (
        pytest.raises(ValueError, match=r"weak=APG.*not of its own state"),
        attach(case.pipe, METHODS[0], weak=APG(1.5)),
    ):
        case.run()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("most", [0.8, 0.6])
def test_capped_guidance_is_the_strong_one(most: float, method: Any, batch: int, tiny: Tiny) -> None:
    """Z-Image's `cfg_normalization` caps the norm of each sample's prediction."""
    case, strong = tiny("z_image", batch), Capped(4.0, most)
    with attach(case.pipe, method):
        x = case.run(cfg_normalization=most)
    y = case.sampled(method, strong=strong)
    check_same(x, y)
    assert True in strong.factors
    with pytest.raises(AssertionError):  # the mutant without a cap
        check_same(x, case.sampled(method))


def with_equal_prompts(case: Any, rows: slice = slice(None)) -> dict[str, Any]:
    """What to call the pipeline with for a negative prompt that is the prompt, of these samples."""
    changes: dict[str, Any] = {}
    for name, negative in case.call.items():
        if name.startswith("negative_") and name.endswith("embeds"):
            positive, new = case.call[name.removeprefix("negative_")], copy.deepcopy(negative)
            new[rows] = positive[rows]
            changes[name] = new
    return changes


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", ["z_image", "lumina2", "sd", "flux"])
def test_equal_prompts_leave_no_gap(family: str, batch: int, tiny: Tiny) -> None:
    """`e_c = e_∅` at every call, in the sign that the scheduler is given: Z² is standard sampling then."""
    case = tiny(family, batch)
    changes = with_equal_prompts(case)
    case.uncond = case.cond
    plain = case.run(**changes)
    for method in METHODS:
        with attach(case.pipe, method):
            x = case.run(**changes)
        check_same(x, case.sampled(method))
        if isinstance(method, Z2Sampling):
            check_same(x, plain)


@pytest.mark.parametrize("family", ["z_image", "lumina2", "sd"])
def test_equal_prompts_of_one_sample(family: str, tiny: Tiny) -> None:
    """The other sample tells the branches apart for both."""
    case = tiny(family, 2)
    changes = with_equal_prompts(case, slice(0, 1))
    (name,) = case.uncond
    case.uncond = {name: changes["negative_prompt_embeds"]}
    for method in METHODS:
        with attach(case.pipe, method):
            x = case.run(**changes)
        check_same(x, case.sampled(method))


def test_dynamic_guidance_is_followed_step_by_step(tiny: Tiny) -> None:
    """CogVideoX's `use_dynamic_cfg` makes its scale a function of time: so is the strong one."""
    case, method = tiny("cogvideox"), ZSampling(steps=2)
    with attach(case.pipe, method):
        x = case.run(use_dynamic_cfg=True)
    strong = CFG(lambda step: 1 + 4.0 * (1 - math.cos(math.pi * ((5 - step.t) / 5) ** 5.0)) / 2)
    check_same(x, case.sampled(method, strong=strong))


def test_guidance_may_end_before_the_pipeline_does(tiny: Tiny) -> None:
    """Z-Image and Lumina2 can drop the unconditional branch after a time: fine once the zigzag is over."""
    case, method = tiny("z_image"), ZSampling(steps=2)
    call = {"cfg_truncation": 0.4}
    with attach(case.pipe, method) as run, case.counted() as rows:
        x = case.run(**call)
    dropped = int(((1000 - case.pipe.scheduler.timesteps) / 1000 > 0.4).sum())
    assert 0 < dropped < 4
    check_same(x, case.sampled(method, strong=Interval(CFG(4.0), 0, 6 - dropped)))
    assert run.rows == sum(rows) == 2 * len(method.path(6)) - dropped
    with pytest.raises(ValueError, match="no unconditional branch at knot"), attach(case.pipe, ZSampling()):
        case.run(**call)
    # Lumina2 cuts at a share of its loop's rounds, which here are calls.
    case = tiny("lumina2")
    with attach(case.pipe, method) as run:
        case.run(cfg_trunc_ratio=0.8)
    assert run.rows == 2 * len(method.path(6)) - 2
