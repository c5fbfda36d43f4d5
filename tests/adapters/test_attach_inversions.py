"""Inversions in a pipeline: schedulers, precision, and what goes with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_attach_upward import STEPS, WANTED, by_core, check_scheme, distance, inverted, rebuilt, up, with_data
from tiny_paths import inputs_of, picture, seeded
from tiny_unets import shake
from torch import Tensor

from zigzag import DDIM, Denoise, Invert, Renoise
from zigzag.inversion import EDICT, OBELM, FixedPoint, Recorded, Rex, invert, load, save

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Inversion, Reconstruction, Role = adapters.attach, adapters.Inversion, adapters.Reconstruction, adapters.Role

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:FixedPoint.*did not converge"),
]

Tiny = Callable[..., Any]


def multistep(**config: Any) -> Any:
    return diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", **config)


# Schedulers: multistep ones for FixedPoint and Recorded; noise is held.


@pytest.mark.parametrize("scheme", [FixedPoint(tol=1e-3, most=3, sweeps=3), Recorded(), Recorded("independent")])
def test_on_a_multistep_scheduler(scheme: Any, tiny: Tiny) -> None:
    case = with_data(tiny, "sd", scheduler=multistep())
    solver = adapters.solver_from_scheduler(case.pipe.scheduler)
    assert solver.memory
    found, _, rows = inverted(case, scheme)
    core = by_core(case, scheme, solver)
    assert core.report is not None and rows == core.report.rows and distance(found.noise, core.noise) <= WANTED
    if isinstance(scheme, Recorded):
        assert distance(rebuilt(case, found), case.latents) <= 10 * WANTED


@pytest.mark.parametrize("scheme", [Rex(), FixedPoint(tol=1e-3, most=4), Recorded("independent")])
def test_the_noise_of_a_stochastic_scheduler_is_held(scheme: Any, tiny: Tiny) -> None:
    """That of `eta`, which a pipeline passes with every step, is known before the first one."""
    case = with_data(tiny, "sd", eta=0.7)
    found, _, _ = inverted(case, scheme)
    solver = DDIM(*case.solver().knots, eta=0.7)
    if isinstance(scheme, Rex):
        assert found.noises is not None and len(found.noises) == STEPS
    core = by_core(case, scheme, solver)
    assert distance(found.noise, core.noise) <= WANTED
    if not isinstance(scheme, FixedPoint):
        assert distance(rebuilt(case, found), case.latents) <= 10 * WANTED


def test_the_generator_of_the_pipeline_draws_where_none_is_given(tiny: Tiny) -> None:
    """What it passes to its scheduler."""
    case = with_data(tiny, "sd", eta=0.7)
    noises = []
    for _ in range(2):
        with attach(case.pipe, Inversion(Rex())) as run:
            case.pipe(**case.call, latents=case.latents, generator=torch.Generator().manual_seed(3))
        noises.append(run.inverted.noise)
    assert torch.equal(*noises)


def test_v_predictions(tiny: Tiny, schedulers: Tiny) -> None:
    for scheme in (EDICT(), Rex()):
        check_scheme(with_data(tiny, "sd", scheduler=schedulers("v")), scheme)


def test_a_pipeline_that_returns_x0_returns_the_data(tiny: Tiny) -> None:
    """That of LCM decodes the x₀ of its last step, which is no prediction's at the end of a way."""
    case = with_data(tiny, "sd", scheduler=diffusers.LCMScheduler(beta_schedule="scaled_linear"))
    parts = {name: part for name, part in case.pipe.components.items() if name != "image_encoder"}
    parts["unet"] = shake(diffusers.UNet2DConditionModel.from_config(case.pipe.unet.config, time_cond_proj_dim=8))
    case.pipe = diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    case.pipe.set_progress_bar_config(disable=True)
    call = {"prompt_embeds": case.call["prompt_embeds"], "num_inference_steps": STEPS, "output_type": "latent"}
    with attach(case.pipe, Inversion(Recorded("independent"))) as run:
        noise = case.pipe(**call, latents=case.latents, return_dict=False)[0]
    assert torch.equal(noise, run.inverted.noise)
    with attach(case.pipe, Reconstruction(run.inverted)):
        assert distance(case.pipe(**call, return_dict=False)[0], case.latents) <= 10 * WANTED


# What goes with it.


def test_half_precision_shows_the_model_rounded_states_and_keeps_its_own(tiny: Tiny) -> None:
    """The states are float32 (or float64), in which the data come back; what the pipeline returns is bfloat16."""
    case = with_data(tiny, "sd")
    case.pipe.to(torch.bfloat16)
    case.call |= {name: e.bfloat16() for name, e in case.call.items() if isinstance(e, Tensor)}
    try:
        for dtype in (None, torch.float64):
            found, out, _ = inverted(case, EDICT(), dtype=dtype)
            assert out.dtype == found.dtype == torch.bfloat16
            assert {state.dtype for state in found.states} == {dtype or torch.float32}
            assert distance(rebuilt(case, found).float(), case.latents.float()) <= 3 * torch.finfo(torch.bfloat16).eps
    finally:
        case.pipe.to(torch.float32)


def test_a_weak_guidance_or_role_predicts_where_one_is_given(tiny: Tiny) -> None:
    """Inverted at a scale of one's own, or under another prompt, in the same call of the pipeline."""
    case, scheme = with_data(tiny, "sd"), EDICT()
    solver = case.solver()
    with attach(case.pipe, Inversion(scheme), weak=1.5) as run:
        case.run()
    core = invert(
        case.predict, case.latents, solver, scheme, cond=case.cond, uncond=case.uncond, guidance=1.5, batched=False
    )
    assert distance(run.inverted.noise, core.noise) <= WANTED
    other = case.cond["encoder_hidden_states"].flip(1)
    edit = {"encoder_hidden_states": torch.cat([case.uncond["encoder_hidden_states"], other])}
    with attach(case.pipe, Inversion(scheme), weak=Role(edit=edit)) as run, case.counted() as rows:
        case.run()
    core = invert(
        case.predict, case.latents, solver, scheme, cond={"encoder_hidden_states": other}, uncond=case.uncond,
        guidance=case.strong, batched=False,
    )  # fmt: skip
    assert distance(run.inverted.noise, core.noise) <= WANTED
    assert run.rows == sum(rows) == core.report.rows  # type: ignore[union-attr]


def test_without_an_unconditional_branch_it_is_the_one_prediction(tiny: Tiny) -> None:
    """At a scale of 1, where there is no gap to zigzag over, there is all the same a prediction to invert by."""
    case = with_data(tiny, "sd", guidance_scale=1.0)
    case.strong = 1.0
    check_scheme(case, EDICT())
    with attach(case.pipe, up(STEPS)) as run:
        x = case.run()
    solver = case.solver()
    assert run.rows == STEPS
    assert distance(x, case.sampled(up(STEPS), start=case.latents, solver=solver, weak=1.0)) <= WANTED


def test_a_path_from_the_middle_goes_where_it_goes(tiny: Tiny) -> None:
    """Data noised to knot 1 and sampled from there; and a state at knot 2, up, down and up again."""
    case = with_data(tiny, "sd")
    solver = case.solver()
    noised = [Renoise(STEPS, 1), *(Denoise(i, i + 1) for i in range(1, STEPS))]
    around = [Invert(2, 1), Invert(1, 0), Denoise(0, 1), Invert(1, 0)]
    for path in (noised, around):
        with attach(case.pipe, path, weak=0.5, generator=torch.Generator().manual_seed(2)) as run:
            x = case.run()
        y = case.sampled(path, start=case.latents, solver=solver, weak=0.5, generator=torch.Generator().manual_seed(2))
        assert distance(x, y) <= WANTED and run.knot == path[-1].end


def test_an_inversion_goes_by_way_of_a_file(tiny: Tiny, tmp_path: Path) -> None:
    case = with_data(tiny, "flux")
    found, _, _ = inverted(case, OBELM())
    save(found, tmp_path / "cat.safetensors")
    assert torch.equal(rebuilt(case, load(tmp_path / "cat.safetensors")), rebuilt(case, found))


def test_the_round_trip_is_reported_where_it_is_asked_for(tiny: Tiny) -> None:
    case = with_data(tiny, "sd3")
    with attach(case.pipe, Inversion(EDICT(), round_trip=True)) as run, case.counted() as rows:
        out = case.run()
    report = run.inverted.report
    assert torch.equal(out, run.inverted.noise) and run.rows == sum(rows) == 2 * report.rows
    assert float(report.round_trip.max()) == pytest.approx(
        distance(rebuilt(case, run.inverted), case.latents), abs=1e-6
    )


def test_controlnet_sees_every_state(tiny: Tiny) -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    case = tiny("sdxl", kind="ControlNet", image=image, num_inference_steps=STEPS)
    case.latents = 0.7 * case.latents
    case.run()
    check_scheme(case, EDICT())
    partly = pytest.raises(ValueError, match=r"doses its ControlNet.*1\.0 at the first call and 0\.0.*control_guidance")
    with partly, attach(case.pipe, Inversion(EDICT())):
        case.run(control_guidance_end=0.5)


def test_the_mask_of_nine_channels_is_behind_every_state(tiny: Tiny) -> None:
    """Its masked image is drawn from what its VAE says, by the generator, the same both times."""
    given = {"image": picture(1, 3, 16, 16), "mask_image": torch.ones(1, 1, 16, 16), "height": 16, "width": 16}
    given |= {"strength": 1.0, "num_inference_steps": STEPS, "output_type": "latent"}
    case = tiny("sdxl", kind="Inpaint", in_channels=9)
    case.call |= given
    rest = inputs_of(replace(case, call=case.call | {"generator": seeded()}))[0].chunk(2)[1][:, 4:]
    case.img2img_ids()
    predict = case.predict
    case.predict = lambda x, t, cond: predict(torch.cat([x, rest], 1), t, cond)
    with attach(case.pipe, Inversion(EDICT())) as run:
        case.pipe(**case.call, latents=case.latents, generator=seeded())
    assert distance(run.inverted.noise, by_core(case, EDICT(), case.solver()).noise) <= WANTED
    with attach(case.pipe, Reconstruction(run.inverted)):
        assert distance(case.run(generator=seeded()), case.latents) <= WANTED


def test_an_iteration_that_has_converged_asks_no_more(tiny: Tiny) -> None:
    """The loop ends with it, wherever it is in the times that it was shown."""
    case = with_data(tiny, "wan")
    loose, _, few = inverted(case, FixedPoint(tol=0.05, most=9))
    assert few < 2 * 9 * STEPS and bool(loose.report.converged.all())  # type: ignore[union-attr]
