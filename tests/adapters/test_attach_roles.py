"""Roles whose calls are told other conditions, against `zigzag.sample` with one's own predictors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import Z2Sampling, ZSampling

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

from role_checks import METHODS, TOKENS, Tiny, check_role, check_same, named, normal  # noqa: E402


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize(("family", "unit"), [("flux", 1.0), ("flux2", 1.0), ("hunyuan_video", 1000.0)])
def test_a_lower_embedded_scale(family: str, unit: float, method: Any, one_branch: Tiny) -> None:
    """In the pipeline's own unit, whatever its model is told."""
    case = one_branch(family, batch := 2)
    weak_cond = {**case.cond, "guidance": torch.full((batch,), 1.5 * unit)}
    check_role(case, method, Role(guidance=1.5), weak_cond, batch)


def test_a_lower_scale_that_is_embedded_as_a_vector() -> None:
    """As latent consistency models are told it, with the noise that their scheduler adds."""
    import tiny_unets

    case, method = tiny_unets.sd(2, guidance_scale=8.0), ZSampling(steps=3)
    sizes = {name: value for name, value in case.model.config.items() if not name.startswith("_")}
    net = diffusers.UNet2DConditionModel(**{**sizes, "time_cond_proj_dim": 8})
    case.pipe = diffusers.LatentConsistencyModelPipeline(
        **{**case.pipe.components, "unet": tiny_unets.shake(net)}, requires_safety_checker=False
    )
    case.pipe.scheduler = diffusers.LCMScheduler(**tiny_unets.SD_BETAS)
    case.pipe.set_progress_bar_config(disable=True)
    case.call.pop("negative_prompt_embeds")
    case.call |= {"height": 16, "width": 16, "num_inference_steps": 4}

    def told(scale: float) -> Tensor:
        e: Tensor = case.pipe.get_guidance_scale_embedding(torch.tensor([scale - 1.0] * 2), embedding_dim=8)
        return e

    def run(**roles: Any) -> tuple[Tensor, int]:
        torch.manual_seed(3)
        with attach(case.pipe, method, **roles) as run:
            return case.run(), run.rows

    x, rows = run(weak=Role(guidance=1.5))
    y, _ = run(weak=Role(edit={"timestep_cond": told(1.5)}))
    z, _ = run(weak=Role(edit={"timestep_cond": told(8.0)}))
    assert torch.equal(x, y) and not torch.equal(x, z) and rows == 4 + 2 * 3


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize("family", ["flux", "flux2", "hunyuan_video", "ltx", "sdxl"])
def test_another_prompt(family: str, method: Any, one_branch: Tiny) -> None:
    """As embeddings for the pipeline's own `encode_prompt`, and as the same arguments of the model."""
    case, batch = one_branch(family), 1
    other = normal(batch, TOKENS, 16, seed=8)
    prompt: dict[str, Any] = {"prompt_embeds": other}
    weak_cond = {**case.cond, "encoder_hidden_states": other}
    if family in ("flux", "hunyuan_video"):
        prompt["pooled_prompt_embeds"] = pooled = normal(batch, 16 if family == "flux" else 8, seed=9)
        weak_cond["pooled_projections"] = pooled
    if family == "sdxl":
        prompt["pooled_prompt_embeds"] = pooled = normal(batch, 16, seed=9)
        weak_cond["added_cond_kwargs"] = {**case.cond["added_cond_kwargs"], "text_embeds": pooled}
    if family in ("hunyuan_video", "ltx"):
        prompt["prompt_attention_mask"] = case.call["prompt_attention_mask"]
    check_role(case, method, Role(prompt=prompt), weak_cond, batch)
    if isinstance(method, Z2Sampling):
        edit = {k: v for k, v in weak_cond.items() if k != "guidance"}
        check_role(case, method, Role(edit=edit), weak_cond, batch)


@pytest.mark.parametrize("family", ["sd", "flux", "pixart"])
def test_another_prompt_beside_an_unconditional_branch(family: str, tiny: Tiny) -> None:
    """Exchanged in the half of the batch, or the call, that it is in; joined as the pipeline joins, or by a rule."""
    case, other, method = tiny(family), normal(1, TOKENS, 16, seed=8), ZSampling(steps=3)
    prompt: dict[str, Any] = {"prompt_embeds": other}
    if family == "flux":
        prompt["pooled_prompt_embeds"] = case.call["pooled_prompt_embeds"]
    if family == "pixart":  # whose masks are the same of both prompts
        prompt["prompt_attention_mask"] = mask = torch.tensor([[1.0, 1, 1, 0, 0]])
    weak_cond = {**case.cond, "encoder_hidden_states": other}
    with attach(case.pipe, method, weak=Role(prompt=prompt)) as run, case.counted() as rows:
        x = case.run()
    assert run.rows == sum(rows) == 2 * (6 + 2 * 3)
    given: dict[str, Any] = {"weak": case.strong, "weak_cond": weak_cond}
    if family == "pixart":
        predict = case.predict

        def masked(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
            if cond is not weak_cond:
                return predict(x, t, cond)
            added = {"resolution": None, "aspect_ratio": None}
            return case.model(x, timestep=t, encoder_attention_mask=mask, added_cond_kwargs=added, **cond).sample[:, :4]

        case.predict = masked
    check_same(x, case.sampled(method, **given))
    with attach(case.pipe, method, weak=Role(prompt=prompt, cfg=0.5)):
        y = case.run()
    check_same(y, case.sampled(method, **{**given, "weak": 0.5}))


@pytest.mark.parametrize("batch", [1, 2])
def test_texts_in_place_of_the_prompts(batch: int, folder: Any, tiny: Tiny) -> None:
    """Encoded by the pipeline itself, for each call of it anew: on the conditional and on the unconditional side."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    case, method = tiny("sd", batch), ZSampling(steps=3)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet, case.pipe, pipe.scheduler = case.pipe.unet, pipe, case.pipe.scheduler
    texts = {"own": "a dog", "bad": "blurry", "none": "", "odd": "a cat"}
    told = {k: v if batch == 1 else [v] * batch for k, v in texts.items()}
    with torch.no_grad():
        e = {
            k: {"encoder_hidden_states": pipe.encode_prompt(v, "cpu", 1, False)[0].repeat(batch, 1, 1)}
            for k, v in texts.items()
        }
    case.call = {"prompt": told["own"], "negative_prompt": told["bad"], "guidance_scale": 4.0}
    case.cond, case.uncond = e["own"], e["bad"]
    with attach(case.pipe, method, weak=Role(prompt="", negative_prompt="a cat")):
        x = case.run()
    check_same(x, case.sampled(method, weak=4.0, weak_cond=e["none"], weak_uncond=e["odd"]))
    with attach(case.pipe, method, weak=Role(prompt={"prompt": "", "device": "cpu"}, negative_prompt="a cat")):
        assert torch.equal(case.run(), x)  # what is no prompt of encode_prompt's arguments is passed on as it is
    with attach(case.pipe, method, weak=Role(negative_prompt=told["odd"], cfg=0.0)):
        x, y = case.run(), case.run(prompt=told["none"])
    check_same(x, case.sampled(method, weak=0.0, weak_uncond=e["odd"]))
    case.cond = e["none"]
    check_same(y, case.sampled(method, weak=0.0, weak_uncond=e["odd"]))
    if batch == 2:  # one of a list each, in a list or a tuple
        images = []
        for given in (["", "a cat"], ("", "a cat")):
            with attach(case.pipe, method, weak=Role(prompt=given, negative_prompt=given)):
                images.append(case.run())
        mixed = {
            "encoder_hidden_states": torch.stack(
                [e["none"]["encoder_hidden_states"][0], e["odd"]["encoder_hidden_states"][0]]
            )
        }
        case.cond = e["own"]
        check_same(images[0], case.sampled(method, weak=4.0, weak_cond=mixed, weak_uncond=mixed))
        assert torch.equal(*images)


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux", "pixart"])
def test_one_row_of_embeddings_for_a_batch(family: str, tiny: Tiny) -> None:
    """Is as good as a row for each, with one branch and with two."""
    prompt: dict[str, Any] = {"prompt_embeds": normal(1, TOKENS, 16, seed=8)}
    if family in ("flux", "sdxl"):
        prompt["pooled_prompt_embeds"] = normal(1, 16, seed=9)
    if family == "pixart":
        prompt["prompt_attention_mask"] = torch.tensor([[1.0, 1, 1, 0, 0]])
    for scale in (1.0, 4.0):
        case = tiny(family, 2)
        case.call["true_cfg_scale" if family == "flux" else "guidance_scale"] = scale
        images = []
        for given in (prompt, {name: torch.cat([value] * 2) for name, value in prompt.items()}):
            with attach(case.pipe, ZSampling(steps=3), weak=Role(prompt=given)) as run:
                images.append(case.run())
            assert run.rows == (1 if scale == 1 else 2) * (6 + 2 * 3)
        assert torch.equal(*images) and not torch.equal(images[0], case.run())


FAMILIES = ["sd3", "hunyuan", "pixart", "sana", "lumina2", "z_image", "flux2_klein", "qwen", "auraflow", "chroma"]
VIDEO = ["cogview4", "animatediff", "modelscope", "cogvideox", "wan"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES + VIDEO)
def test_every_family_with_one_branch(family: str, tiny: Tiny) -> None:
    """Negated, packed, in lists or in frames, with a variance or without: the weak call is its model's as well."""
    off = {"z_image": {"guidance_scale": 0.0}, "qwen": {"true_cfg_scale": 1.0}}
    case, method = tiny(family, **off.get(family, {"guidance_scale": 1.0})), ZSampling(steps=3)
    case.strong, key = 1.0, "captions" if family == "z_image" else "encoder_hidden_states"
    own = case.cond[key]
    other = [normal(*own[0].shape, seed=8)] if isinstance(own, list) else normal(*own.shape, seed=8)
    with attach(case.pipe, method, weak=Role(edit={"cap_feats" if family == "z_image" else key: other})) as run:
        x = case.run()
    check_same(x, case.sampled(method, weak=1.0, weak_cond={**case.cond, key: other}))
    assert run.rows == len(case.pipe.scheduler.timesteps) + 2 * 3


def test_a_function_of_the_arguments_is_shown_those_of_the_call(one_branch: Tiny) -> None:
    """A mixture of prompt and empty embedding, as in RF-Sampling."""
    case, empty, method = one_branch("flux"), normal(1, TOKENS, 16, seed=8), ZSampling(steps=3)

    def mixed(e: Tensor) -> Tensor:
        return 0.3 * e + 0.7 * empty

    weak = Role(edit=lambda arguments: {"encoder_hidden_states": mixed(arguments["encoder_hidden_states"])})
    weak_cond = {**case.cond, "encoder_hidden_states": mixed(case.cond["encoder_hidden_states"])}
    check_role(case, method, weak, weak_cond, 1)
