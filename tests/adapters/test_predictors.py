"""Predictors over diffusers' U-Nets, and what both kinds of predictor check, scale, move and drop."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import zigzag

diffusers = pytest.importorskip("diffusers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
unet_predictor, dit_predictor = adapters.unet_predictor, adapters.dit_predictor
solver_from_scheduler = adapters.solver_from_scheduler

EPS = torch.finfo(torch.float32).eps
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TINY: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
DATA = Path(__file__).parents[1] / "data" / "sdxl-tiny"


def blocks(kind: str) -> dict[str, Any]:
    return {
        "down_block_types": (f"DownBlock{kind}", f"CrossAttnDownBlock{kind}"),
        "up_block_types": (f"CrossAttnUpBlock{kind}", f"UpBlock{kind}"),
    }


def unet(**config: Any) -> Any:
    torch.manual_seed(0)
    tiny = {**TINY, **blocks("2D"), "sample_size": 8, "cross_attention_dim": 16, "attention_head_dim": 2}
    return diffusers.UNet2DConditionModel(**{**tiny, **config}).eval()


def flux(**config: Any) -> Any:
    torch.manual_seed(0)
    tiny = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 16}
    tiny |= {"num_attention_heads": 2, "attention_head_dim": 8, "axes_dims_rope": (2, 2, 4)}
    return diffusers.FluxTransformer2DModel(**{**tiny, "pooled_projection_dim": 12, **config}).eval()


def video(kind: str) -> tuple[Any, Tensor, dict[str, Any]]:
    """A video U-Net, its state and its condition, as its pipeline passes them."""
    torch.manual_seed(0)
    x, text = torch.randn(2, 4, 3, 8, 8), torch.randn(2, 5, 16)
    if kind == "3D":
        model = diffusers.UNet3DConditionModel(**TINY, **blocks("3D"), cross_attention_dim=16, attention_head_dim=4)
        return model.eval(), x, {"encoder_hidden_states": text}
    if kind == "Motion":
        heads = {"num_attention_heads": 2, "motion_num_attention_heads": 2}
        model = diffusers.UNetMotionModel(**TINY, **blocks("Motion"), cross_attention_dim=16, **heads)
        return model.eval(), x, {"encoder_hidden_states": text.repeat_interleave(3, 0)}
    model = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, num_attention_heads=(2, 4),
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=12, **blocks("SpatioTemporal"),
    )  # fmt: skip
    cond = {
        "encoder_hidden_states": text[:, :1],
        "added_time_ids": torch.ones(2, 3),
        "concat": torch.randn(2, 3, 4, 8, 8),
    }
    return model.eval(), x.transpose(1, 2), cond


TIMES = torch.tensor([981, 401])


@pytest.mark.parametrize("kind", ["3D", "Motion", "SpatioTemporal"])
@torch.no_grad()
def test_video_unets(kind: str) -> None:
    model, x, cond = video(kind)
    given = {key: value for key, value in cond.items() if key != "concat"}
    sample = torch.cat([x, cond["concat"]], 2) if "concat" in cond else x  # SVD counts (B, F, C, H, W)
    e = unet_predictor(model)(x, TIMES, cond)
    assert torch.equal(e, model(sample, TIMES, **given).sample)
    assert e.shape == x.shape


@torch.no_grad()
def test_the_half_that_is_a_learned_variance_is_dropped() -> None:
    model, x = unet(out_channels=8), torch.randn(2, 4, 8, 8)
    cond = {"encoder_hidden_states": torch.randn(2, 5, 16)}
    assert torch.equal(unet_predictor(model)(x, TIMES, cond), model(x, TIMES, **cond).sample[:, :4])


def test_more_input_channels_come_behind_the_scaled_state() -> None:
    """Inpainting: 4 channels of the state, 5 of mask and masked image, which the scheduler does not scale."""
    scheduler, seen, more = diffusers.EulerDiscreteScheduler(**BETAS), [], torch.randn(2, 5, 8, 8)
    scheduler.set_timesteps(4)
    t, x = scheduler.timesteps[1].expand(2), torch.randn(2, 4, 8, 8)
    for cond in (None, {"concat": more}):
        unet_predictor(spy(seen), scheduler=scheduler)(x, t, cond)
    assert torch.equal(seen[1], torch.cat([seen[0], more], 1))
    assert not torch.allclose(seen[0], x)


@pytest.mark.parametrize("config", [{}, {"use_karras_sigmas": True}, {"timestep_spacing": "leading"}])
def test_euler_shows_the_model_what_its_scheduler_would(config: dict[str, Any]) -> None:
    """x/√(σ² + 1) at each of its times, in one rounding of the factor and one of the product."""
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, **config)
    scheduler.set_timesteps(6)
    seen: list[Tensor] = []
    predict = unet_predictor(spy(seen), scheduler=scheduler)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * float(scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        predict(x, t.expand(2), None)
        theirs = scheduler.scale_model_input(x, t)
        assert ((seen[-1] - theirs).abs() <= 4 * EPS * theirs.abs()).all()
        scheduler._step_index += 1
    unet_predictor(spy(seen))(x, scheduler.timesteps[:1].expand(2), None)  # mutant: not told of the scheduler
    scheduler._step_index = 0
    assert not torch.allclose(seen[-1], scheduler.scale_model_input(x, scheduler.timesteps[0]))
    predict(x, scheduler.timesteps[:2] + torch.tensor([0.0, 0.25]), None)
    assert seen[-1][0].isfinite().all()
    assert seen[-1][1].isnan().all()  # a time that is not on the grid


def spy(seen: list[Tensor]) -> Any:
    """A U-Net that keeps what it is shown."""

    class Spy(diffusers.UNet2DModel):  # type: ignore[misc]
        def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
            seen.append(sample)
            return (sample,)

    return Spy(
        block_out_channels=(4,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=1
    )


@pytest.mark.parametrize("config", [{}, {"prediction_type": "v_prediction"}, {"use_karras_sigmas": True}])
@torch.no_grad()
def test_the_loop_under_euler_is_the_stable_diffusion_pipeline(config: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    scheduler, model = diffusers.EulerDiscreteScheduler(**BETAS, **config), unet()
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = diffusers.StableDiffusionPipeline(unet=model, scheduler=scheduler, requires_safety_checker=False, **parts)
    pipe.set_progress_bar_config(disable=True)
    c, u, noise = torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.randn(2, 4, 8, 8)
    wanted = pipe(
        prompt_embeds=c, negative_prompt_embeds=u, latents=noise, height=64, width=64, num_inference_steps=5,
        guidance_scale=4.0, output_type="latent",
    ).images  # fmt: skip
    solver, predict = solver_from_scheduler(scheduler), unet_predictor(model, scheduler=scheduler)
    given = {"cond": {"encoder_hidden_states": c}, "uncond": {"encoder_hidden_states": u}, "strong": 4.0}

    def run(x: Tensor) -> Tensor:
        return zigzag.sample(predict, x, solver, zigzag.Standard(), **given)

    x = noise * scheduler.init_noise_sigma
    limit = 100 * (run(x * (1 + EPS)) - run(x)).norm()  # of what the path makes of one rounding of its start
    assert (run(x) - wanted).norm() <= limit
    assert (run(noise) - wanted).norm() > limit  # mutant: not scaled by init_noise_sigma


@pytest.mark.parametrize("name", ["std", "z", "z_rounds2"])
@torch.no_grad()
def test_the_authors_pipeline_through_predictor_and_solver(name: str) -> None:
    """Their own output on a tiny SDXL, as in test_golden.py, of a scheduler and a U-Net of diffusers alone."""
    load, meta = pytest.importorskip("safetensors.torch").load_file, json.loads((DATA / "meta.json").read_text())
    golden, case = load(DATA / "latents.safetensors"), meta["cases"][name]
    model = diffusers.UNet2DConditionModel(**meta["unet_config"]).eval()
    model.load_state_dict(load(DATA / "unet.safetensors"))
    ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(2, -1)
    cond, uncond = (
        {
            "encoder_hidden_states": golden[f"{sign}prompt_embeds"],
            "added_cond_kwargs": {"text_embeds": golden[f"{sign}pooled"], "time_ids": ids},
        }
        for sign in ("", "negative_")
    )
    scheduler = diffusers.DDIMScheduler(**meta["scheduler"])
    rounds = {"steps": case.get("lam"), "rounds": case.get("T_max")}
    method = zigzag.Standard() if case.get("std") else zigzag.ZSampling(**rounds, released=True)
    x = zigzag.sample(
        unet_predictor(model, scheduler=scheduler), golden["x_T"], solver_from_scheduler(scheduler, case["steps"]),
        method, cond=cond, uncond=uncond, strong=case["g1"], weak=case.get("g2", 0.0),
    )  # fmt: skip
    assert (x - golden[name]).norm() <= 2e-5 * golden[name].norm()


@torch.no_grad()
def test_the_model_is_called_in_its_dtype_and_its_output_comes_as_it_is() -> None:
    model, x = unet().bfloat16(), torch.randn(2, 4, 8, 8)
    cond = {"encoder_hidden_states": torch.randn(2, 5, 16).bfloat16()}
    e = unet_predictor(model)(x, TIMES, cond)
    assert e.dtype == torch.bfloat16
    assert torch.equal(e, model(x.bfloat16(), TIMES, **cond).sample)


def test_an_offloaded_model_is_left_to_move_its_own_inputs() -> None:
    seen: list[Tensor] = []
    model = spy(seen).to("meta")
    x = torch.randn(2, 4, 8, 8)
    with contextlib.suppress(NotImplementedError):  # nothing comes back from meta
        unet_predictor(model)(x, TIMES, None)
    assert seen[-1].is_meta
    model._hf_hook = object()
    assert torch.equal(unet_predictor(model)(x, TIMES, None), x)
    assert seen[-1].device == x.device


@torch.no_grad()
def test_a_compiled_model_is_taken_for_what_it_is() -> None:
    model = flux()
    compiled = torch.compile(model, backend=lambda graph, _: graph)
    cond = {"encoder_hidden_states": torch.randn(2, 5, 16), "pooled_projections": torch.randn(2, 12)}
    common = {"img_ids": torch.zeros(4, 3), "txt_ids": torch.zeros(5, 3)}
    x, t = torch.randn(2, 4, 16), torch.tensor([900.0, 300.0])
    e = dit_predictor(compiled, common=common)(x, t, cond)
    assert torch.equal(e, dit_predictor(model, common=common)(x, t, cond))


def test_the_memory_of_a_captured_graph_is_not_handed_out() -> None:
    """Two calls of a model that returns one buffer, as compiled ones with graphs do, are two predictions."""
    buffer = torch.zeros(2, 4, 8, 8)
    model = spy([])
    plain = unet_predictor(model)
    model.forward = lambda sample, timestep, return_dict: (buffer.copy_(sample),)
    x = torch.randn(2, 4, 8, 8)
    first = plain(x, TIMES, None)
    plain(2 * x, TIMES, None)
    assert torch.equal(first, 2 * x)  # mutant: a model that is not known to be compiled
    model._compiled_call_impl = model.forward
    compiled = unet_predictor(model)
    first = compiled(x, TIMES, None)
    compiled(2 * x, TIMES, None)
    assert torch.equal(first, x)


@torch.no_grad()
def test_what_is_common_to_both_conditions_lets_them_be_doubled() -> None:
    model, calls = flux(), []
    model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
    ids = {"img_ids": torch.rand(4, 3), "txt_ids": torch.zeros(5, 3)}
    cond, uncond = (
        {"encoder_hidden_states": torch.randn(2, 5, 16), "pooled_projections": torch.randn(2, 12)} for _ in range(2)
    )
    solver, standard = zigzag.FlowEuler.uniform(3, time_scale=1000.0), zigzag.Standard()

    def run(x: Tensor, in_cond: dict[str, Any], common: dict[str, Any]) -> tuple[Tensor, int]:
        calls.clear()
        predict, both = dit_predictor(model, common=common), {"cond": cond | in_cond, "uncond": uncond | in_cond}
        return zigzag.sample(predict, x, solver, standard, **both), len(calls)

    x = torch.randn(2, 4, 16)
    (doubled, few), (apart, many), (moved, _) = run(x, {}, ids), run(x, ids, {}), run(x * (1 + EPS), {}, ids)
    assert (few, many) == (3, 6)
    assert (doubled - apart).norm() <= 100 * (moved - doubled).norm()


def test_without_diffusers_the_extra_is_named_and_zigzag_alone_never_asks_for_it() -> None:
    code = (
        "import sys; sys.modules['diffusers'] = None\nimport zigzag\n"
        "try:\n    import zigzag.adapters.diffusers\n"
        "except ImportError as error:\n    assert \"pip install 'zigzag-diffusion[diffusers]'\" in str(error)\n"
        "else:\n    raise SystemExit('imported')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
