"""Roles that do not fit a pipeline are refused before its model is called, and it is as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zigzag import CFG, Polaris, Standard, Z2Sampling, ZSampling
from zigzag.inversion import EDICT

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Inversion, Role = adapters.attach, adapters.Inversion, adapters.Role

Tiny = Callable[..., Any]
METHODS = [ZSampling(plain=True), Z2Sampling(warmup=1)]
EMBEDS = torch.zeros(1, 5, 16)
OTHER = {"prompt_embeds": EMBEDS, "pooled_prompt_embeds": torch.zeros(1, 16)}


def traces(pipe: Any) -> list[str]:
    """What could be left of an attachment: methods on instances."""
    parts = (pipe, pipe.scheduler, getattr(pipe, "unet", None) or pipe.transformer)
    return [name for part in parts for name, value in vars(part).items() if callable(value) and name not in part_names]


part_names = {"unet", "transformer", "vae", "scheduler", "text_encoder", "_execution_device"}


def calls_before(error: type[Exception], match: str, case: Any, method: Any, call: Any = None, **roles: Any) -> int:
    """How many model calls were made before the refusal."""
    before = traces(case.pipe)
    with case.counted() as rows, pytest.raises(error, match=match), attach(case.pipe, method, **roles):
        case.run(**(call or {}))
    assert traces(case.pipe) == before
    return len(rows)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, ValueError, "changes no call of the model.*weak=0.0"),
        ({"cfg": 1.0}, ValueError, "changes no call of the model"),
        ({"guidance": "high"}, TypeError, "Role: guidance must be a real number, got 'high'"),
        ({"guidance": float("nan")}, ValueError, "Role: guidance must be finite"),
        ({"prompt": 3}, TypeError, "Role: prompt must be a text, a list of them, or a mapping"),
        ({"negative_prompt": 3}, TypeError, "Role: negative_prompt must be a text"),
        ({"edit": 3}, TypeError, "Role: edit must be a mapping of arguments, or a function of them, got 3"),
        ({"edit": dict}, TypeError, "Role: edit must be a mapping"),
        ({"adapters": ["style"]}, TypeError, r"Role: adapters must map names to strengths, got \['style'\]"),
        ({"adapters": {"style": None}}, TypeError, r"Role: adapters\['style'\] must be a real number, got None"),
        ({"module": "unet"}, TypeError, "Role: module must be an nn.Module, got 'unet'"),
        ({"guidance": 1.0, "cfg": "none"}, TypeError, "Role: cfg must be a number or a Guidance"),
        ({"prompt": "a dog", "cfg": 0}, ValueError, "Role: no prediction reads prompt at cfg=0, the uncond"),
        ({"negative_prompt": "dull", "cfg": 1.0}, ValueError, "Role: no prediction reads negative_prompt at cfg=1"),
        ({"prompt": {"prompt_embeds": 3}, "cfg": CFG(0)}, ValueError, "Role: no prediction reads prompt at cfg=0"),
    ],
)
def test_a_role_of_nothing_or_of_the_wrong_things(given: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Role(**given)


def test_a_role_says_what_it_is() -> None:
    role = Role(
        edit={"encoder_hidden_states": torch.zeros(1), "guidance": None}, cfg=CFG(2), module=torch.nn.Linear(1, 1)
    )
    assert repr(role) == "Role(edit={'encoder_hidden_states': ..., 'guidance': ...}, module=Linear(...), cfg=CFG(2))"
    assert repr(Role(adapters={"style": -1.5})) == "Role(adapters={'style': -1.5})"


class Other(torch.nn.Module):
    """A network of another signature."""

    def forward(self, x: Any, t: Any) -> Any:
        """It takes nothing else."""
        return x


@pytest.mark.parametrize(
    ("family", "role", "error", "match"),
    [
        ("sdxl", Role(guidance=1.0), ValueError, r"guidance=1.0\): the pipeline's model is told no embedded guidance"),
        ("flux2_klein", Role(guidance=1.0), ValueError, "no embedded guidance scale.*models distilled with one"),
        (
            "sdxl",
            Role(edit={"embeddings": 0}),
            TypeError,
            "edit has embeddings, which UNet2DConditionModel does not take",
        ),
        ("flux", Role(edit=lambda a: {"text": 0}), TypeError, "edit has text, which FluxTransformer2DModel does not"),
        ("sd", Role(edit=lambda a: None), TypeError, "edit must return a mapping of arguments, got NoneType"),
        (
            "sd",
            Role(module=Other()),
            TypeError,
            "calls its model with .*encoder_hidden_states.*which module does not take",
        ),
        ("z_image", Role(prompt={"prompt_embeds": []}), ValueError, "called no encode_prompt.*edit="),
    ],
)
def test_edits_that_the_model_does_not_take(
    family: str, role: Any, error: type[Exception], match: str, tiny: Tiny
) -> None:
    """Before the first call, though a weak one comes later: for either role that the path asks."""
    for method in METHODS:
        assert calls_before(error, f"(?s)weak=.*{match}", tiny(family), method, weak=role) == 0
    assert calls_before(error, f"(?s)plain=.*{match}", tiny(family), METHODS[0], plain=role) == 0


def test_an_embedded_scale_whose_unit_cannot_be_read(tiny: Tiny) -> None:
    for method in METHODS:
        call = {"guidance_scale": 0.0}
        assert (
            calls_before(ValueError, "unit of the embedded scale", tiny("flux"), method, call, weak=Role(guidance=1.0))
            == 0
        )


def test_another_network_for_a_pipeline_of_two(tiny: Tiny) -> None:
    case = tiny("wan")
    case.pipe.transformer_2 = case.pipe.transformer
    assert calls_before(ValueError, "module.*2 models of WanPipeline", case, METHODS[0], weak=Role(module=Other())) == 0


def test_another_network_with_a_cache(tiny: Tiny) -> None:
    case, other = tiny("flux"), tiny("flux").model
    other.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    assert calls_before(ValueError, "has a cache enabled", case, METHODS[0], weak=Role(module=other)) == 0


def test_a_prompt_for_a_pipeline_that_encodes_none(tiny: Tiny) -> None:
    case = tiny("sd")
    case.pipe.encode_prompt = None
    assert (
        calls_before(TypeError, "StableDiffusionPipeline has no encode_prompt", case, METHODS[0], weak=Role(prompt=""))
        == 0
    )


def test_a_plain_role_on_a_path_without_plain_steps(tiny: Tiny) -> None:
    for method in (ZSampling(), Standard()):
        for plain in (2.0, Role(edit={"timestep_cond": None})):
            assert calls_before(ValueError, "plain=.*has no plain Denoise", tiny("sd"), method, plain=plain) == 0


def test_one_rule_with_state_for_two_roles(tiny: Tiny) -> None:
    rule = Polaris()
    for roles in ({"weak": rule, "plain": rule}, {"weak": Role(edit={}, cfg=rule), "plain": rule}):
        with pytest.raises(ValueError, match=r"weak and plain are one object with state, Polaris.*needs its own"):
            attach(tiny("sd").pipe, ZSampling(plain=True), **roles).__enter__()
    with attach(tiny("sd").pipe, ZSampling(plain=True), weak=Polaris(), plain=Polaris()):
        pass


def test_a_strong_role(tiny: Tiny) -> None:
    """It is a `Role`, or the pipeline itself; standard sampling is left to the pipeline, with its calls as they are."""
    for strong in (3.0, CFG(3)):
        with pytest.raises(TypeError, match="strong must be a Role, or None for the pipeline's own guidance"):
            attach(tiny("sd").pipe, ZSampling(), strong=strong).__enter__()
    for method in (Standard(), ZSampling(steps=0)):
        role = Role(edit={"timestep_cond": None})
        assert calls_before(ValueError, "strong=.*has no zigzag", tiny("sd"), method, strong=role) == 0


@pytest.mark.parametrize(
    ("roles", "match"),
    [
        ({"weak": Role(edit={"guidance": None}, cfg=0.0)}, "weak=.*cfg joins two branches.*evaluates one at knot 0"),
        ({"plain": 2.0}, "plain=Role"),
        (
            {"weak": Role(negative_prompt=OTHER)},
            "weak=.*negative_prompt is of the unconditional branch.*none at knot 0",
        ),
        ({"plain": Role(prompt=OTHER, negative_prompt=OTHER)}, "plain=.*negative_prompt is of the unconditional"),
    ],
)
def test_two_branches_of_a_pipeline_that_evaluates_one(roles: dict[str, Any], match: str, tiny: Tiny) -> None:
    """After the first call, which shows it."""
    roles = {"weak": Role(edit={"guidance": None}), **roles}
    case = tiny("flux", true_cfg_scale=1.0)
    assert calls_before(ValueError, match, case, METHODS[0], **roles) == 1


@pytest.mark.parametrize(
    ("family", "prompt", "match"),
    [
        (
            "flux",
            {"prompt_embeds": EMBEDS},
            r"weak=.*prompt is encoded as \(1, 5, 16\), \(5, 3\), where .*all that its",
        ),
        ("sdxl", {"prompt_embeds": EMBEDS}, "Role: prompt: .*makes nothing of prompt_embeds .*pooled_prompt_embeds"),
        ("flux", "a cat", "Role: prompt: .*makes nothing of prompt .*no text encoder, prompt_embeds, pooled_prompt"),
        (
            "sd",
            {"prompt_embeds": torch.zeros(3, 5, 16)},
            "Role: prompt is of 3 prompts, and the pipeline has 1; pass one",
        ),
        ("sdxl", ["a", "b", "c"], "Role: prompt is of 3 prompts, and the pipeline has 1"),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_prompts_that_cannot_take_the_place_of_the_pipelines(
    family: str, prompt: Any, match: str, batch: int, tiny: Tiny
) -> None:
    """Embeddings without what goes with them, a text for a pipeline without an encoder, those of another batch."""
    if batch == 2:
        match = match.replace(r"\(1, 5", r"\(2, 5").replace("has 1", "has 2")
    assert calls_before(ValueError, match, tiny(family, batch), METHODS[0], weak=Role(prompt=prompt)) == 0


@pytest.mark.parametrize(
    ("weak", "match"),
    [
        (
            Role(prompt={"prompt_embeds": EMBEDS}, cfg=2.0),
            "weak=.*cfg joins two branches, and the pipeline evaluates one",
        ),
        (Role(negative_prompt={"negative_prompt_embeds": EMBEDS}), "negative_prompt is of the unconditional branch"),
    ],
)
def test_an_inversion_in_a_role_of_two_branches_where_there_is_one(weak: Any, match: str, tiny: Tiny) -> None:
    assert calls_before(ValueError, match, tiny("sd", guidance_scale=1.0), Inversion(EDICT()), weak=weak) == 1


def test_guidance_that_ends_between_the_calls_of_two_roles(tiny: Tiny) -> None:
    """Lumina2 ends it by the count of its calls: what the one role has and the other lacks would be taken for a gap."""
    case = tiny("lumina2", cfg_trunc_ratio=0.5)
    same = Role(edit=lambda given: {"encoder_hidden_states": given["encoder_hidden_states"]})
    method = Z2Sampling(warmup=1)
    calls_before(ValueError, "evaluates 2 branches for one role and 1 for the other at knot", case, method, weak=same)
