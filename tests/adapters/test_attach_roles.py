"""Roles of an attached pipeline, whose calls are edited for them, against `zigzag.sample` with one's own predictors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import ImplicitZ, Standard, Trace, Z2Sampling, ZSampling, count_rows, presets, sample

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

Tiny = Callable[..., Any]
METHODS = [ZSampling(steps=3, refine=1), ImplicitZ(steps=4), Z2Sampling(warmup=2)]
TOKENS = 5


def named(method: Any) -> str:
    return type(method).__name__


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.shape == y.shape and float((x - y).norm() / y.norm()) <= 1e-5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(model: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def check_role(case: Any, method: Any, weak: Any, weak_cond: dict[str, Any], batch: int) -> None:
    """What the pipeline makes is what `zigzag.sample` makes with that condition, and another than without; rows too."""
    plain = case.run()
    with attach(case.pipe, method, weak=weak) as run, case.counted() as rows:
        x = case.run()
    check_same(x, case.sampled(method, weak=1.0, weak_cond=weak_cond))
    own = count_rows(method, case.solver(), strong=1.0, weak=1.0, own_weak=("cond",))
    assert run.rows == sum(rows) / batch == own
    with pytest.raises(AssertionError):  # the mutant that does nothing
        check_same(plain, x)
    assert torch.equal(case.run(), plain)


@pytest.fixture
def one_branch(tiny: Tiny) -> Tiny:
    import tiny_distilled

    made: Tiny = tiny_distilled.one_branch
    return made


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
    with attach(case.pipe, method, weak=Role(negative_prompt=told["odd"], cfg=0.0)):
        x, y = case.run(), case.run(prompt=told["none"])
    check_same(x, case.sampled(method, weak=0.0, weak_uncond=e["odd"]))
    case.cond = e["none"]
    check_same(y, case.sampled(method, weak=0.0, weak_uncond=e["odd"]))


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


@pytest.mark.parametrize("method", [ZSampling(plain=True, span=2), *METHODS], ids=repr)
def test_strong_and_weak_roles_around_the_pipeline_itself(method: Any, one_branch: Tiny) -> None:
    """What is plain is then the pipeline as it is, and each of the three is asked in passes of its own."""
    case, names = one_branch("flux"), ("strong", "weak")
    conds = {name: normal(1, TOKENS, 16, seed=k) for k, name in enumerate(names)}
    roles = {name: Role(edit={"encoder_hidden_states": conds[name]}) for name in names}
    with attach(case.pipe, method, **roles) as run, case.counted() as rows:
        x = case.run()
    own, strong, weak = case.cond, *({**case.cond, "encoder_hidden_states": conds[name]} for name in names)
    case.cond = strong
    given = {"plain_cond": own} if getattr(method, "plain", False) else {}
    check_same(x, case.sampled(method, weak=1.0, weak_cond=weak, **given))
    apart = {"own_weak": ("cond",), "own_plain": ("cond",) if given else ()}
    assert run.rows == sum(rows) == count_rows(method, 6, strong=1.0, weak=1.0, **apart)


@pytest.mark.parametrize("model", ["dev", "lite"])
def test_rf_sampling(model: str, one_branch: Tiny) -> None:
    case, empty = one_branch("flux", 2), normal(1, TOKENS, 16, seed=8)
    with attach(case.pipe, **adapters.rf_sampling(empty, 6, model=model)) as run, case.counted() as rows:
        x = case.run()
    mix, own = presets.RF_SAMPLING[model], case.cond
    strong, weak = (
        {**own, "encoder_hidden_states": mixture(own["encoder_hidden_states"], empty)}
        for mixture in (mix.strong, mix.weak)
    )
    case.cond, given = strong, presets.rf_sampling(6, model=model)
    check_same(x, case.sampled(**given, weak_cond=weak, plain_cond=own))
    calls = 6 * 3 if model == "dev" else 5 * 5 + 3
    assert run.rows == sum(rows) / 2 == calls


@pytest.mark.parametrize("method", [ZSampling(plain=True), Z2Sampling(warmup=1)], ids=repr)
def test_a_strong_role_over_the_two_branches_of_the_pipeline(method: Any, tiny: Tiny) -> None:
    """Weak and plain predictions are then of the pipeline's own branches, each by its rule."""
    case, other = tiny("sd"), {"encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    plain = {"plain": 2.0} if isinstance(method, ZSampling) else {}
    with attach(case.pipe, method, strong=Role(prompt={"prompt_embeds": other["encoder_hidden_states"]}), **plain):
        x = case.run()
    own, case.cond = case.cond, other
    given = {"plain_cond": own, **plain} if plain else {}
    check_same(x, case.sampled(method, weak=0.0, weak_cond=own, **given))


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_another_network(method: Any, tiny: Tiny) -> None:
    """A weaker one, as in autoguidance; with and without a rule of its own."""
    case = tiny("sdxl")
    weaker = shaken(copy.deepcopy(case.model))

    def weak_fn(x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        e: Tensor = weaker(x, t, **cond).sample
        return e

    for cfg, weak in ((None, 4.0), (0.0, 0.0)):
        with attach(case.pipe, method, weak=Role(module=weaker, cfg=cfg)):
            x = case.run()
        check_same(x, case.sampled(method, weak=weak, weak_fn=weak_fn))


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "HeunDiscreteScheduler"])
def test_schedulers_with_memory_and_with_two_calls_a_step(name: str, tiny: Tiny) -> None:
    """The memory that a step holds, and both of its evaluations, are the strong ones."""
    import tiny_unets

    case = tiny("sd", scheduler=getattr(diffusers, name)(**tiny_unets.SD_BETAS), guidance_scale=1.0)
    weak_cond = {"encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    for method in (ZSampling(steps=3), Z2Sampling(warmup=2)):
        with attach(case.pipe, method, weak=Role(edit=weak_cond)) as run, case.counted() as rows:
            x = case.run()
        scheduler = copy.deepcopy(case.pipe.scheduler)
        solver = adapters.solver_from_scheduler(scheduler)
        predict = adapters.unet_predictor(case.model, scheduler=scheduler)
        start = case.latents * scheduler.init_noise_sigma
        given = {"cond": case.cond, "strong": 1.0, "weak": 1.0, "weak_cond": weak_cond}
        with torch.no_grad():
            check_same(x, sample(predict, start, solver, method, **given))
        assert run.rows == sum(rows)


def test_the_trace_is_that_of_the_core(one_branch: Tiny) -> None:
    """Of every move, passes for two roles together: rows, and what it moved the state by."""
    case, method = one_branch("flux"), Z2Sampling(warmup=2)
    weak_cond = {**case.cond, "guidance": torch.full((1,), 1.5)}
    with attach(case.pipe, method, weak=Role(guidance=1.5), trace=(led := Trace())):
        case.run()
    case.sampled(method, weak=1.0, weak_cond=weak_cond, trace=(own := Trace()))
    assert [(r.move, r.rows) for r in led.records] == [(r.move, r.rows) for r in own.records]
    for one, other in zip(led.records, own.records, strict=True):
        assert (one.delta is None) == (other.delta is None)
        if one.delta is not None and other.delta is not None:
            torch.testing.assert_close(one.delta, other.delta, rtol=1e-4, atol=0)


def test_a_state_changed_between_the_calls_of_two_roles_is_refused(one_branch: Tiny) -> None:
    """At one state both are to be asked; a state changed before the first of them is the state."""
    case, method = one_branch("flux"), ImplicitZ()

    def changing(at: int) -> Callable[..., dict[str, Tensor]]:
        return lambda pipe, i, t, given: {"latents": given["latents"] * (2.0 if i == at else 1.0)}

    with attach(case.pipe, method, weak=Role(guidance=1.5)):
        case.run(callback_on_step_end=changing(2))  # after the Denoise of the first step
        with pytest.raises(ValueError, match="calls of two roles at one state"):
            case.run(callback_on_step_end=changing(0))


def test_standard_sampling_asks_no_role(one_branch: Tiny) -> None:
    case = one_branch("flux")
    plain = case.run()
    with attach(case.pipe, Standard(), weak=Role(guidance=1.5)) as run:
        assert torch.equal(case.run(), plain)
    assert run.rows == 6


@pytest.mark.parametrize("how", ["compiled in place", "compiled", "offloaded"])
def test_models_that_are_called_in_other_ways(how: str, one_branch: Tiny) -> None:
    """The edited call is compiled, or moves the weights in, as the pipeline's own does."""
    case, method = one_branch("sdxl"), ZSampling(steps=3)
    case.pipe.unet = net = copy.deepcopy(case.model)
    weak_cond = {**case.cond, "encoder_hidden_states": normal(1, TOKENS, 16, seed=8)}
    wanted = [case.run(), case.sampled(method, weak=1.0, weak_cond=weak_cond)]
    models = [part for part in case.pipe.components.values() if isinstance(part, torch.nn.Module)]
    if how == "offloaded":
        accelerate = pytest.importorskip("accelerate")
        for model in models:
            accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    elif how == "compiled":
        case.pipe.unet = torch.compile(net, backend="eager")
    else:
        net.compile(backend="eager")
    before = sorted(vars(net))
    try:
        with attach(case.pipe, method, weak=Role(edit={"encoder_hidden_states": weak_cond["encoder_hidden_states"]})):
            x, y = case.run(), case.run()
        assert torch.equal(x, y) and sorted(vars(net)) == before
        check_same(x, wanted[1])
        check_same(case.run(), wanted[0])
    finally:
        torch.compiler.reset()
        for model in models if how == "offloaded" else ():
            accelerate.hooks.remove_hook_from_submodules(model)
