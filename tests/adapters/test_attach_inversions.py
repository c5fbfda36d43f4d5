"""Inversions in a pipeline: schedulers, precision, what goes with them, and what is refused before the first call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_attach_refusals import snapshot
from test_attach_upward import STEPS, WANTED, by_core, check_scheme, distance, inverted, rebuilt, up, with_data
from tiny_paths import inputs_of, picture, seeded
from tiny_unets import shake
from torch import Tensor

from zigzag import DDIM, Denoise, Invert, Renoise, Trace
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


def refused(match: str, case: Any, method: Any, error: type[Exception] = ValueError, **call: Any) -> None:
    """Before the first model call; and the pipeline is as it was."""
    before = snapshot(case.pipe)
    with case.counted() as rows, pytest.raises(error, match=match), attach(case.pipe, method):
        case.run(**call)
    assert not rows and snapshot(case.pipe) == before


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


# What is refused, before the first model call.


def test_schedulers_that_the_scheme_cannot_run_on(tiny: Tiny) -> None:
    clipping = diffusers.DDIMScheduler(clip_sample=True)
    for scheme in (EDICT(), FixedPoint(), Recorded()):
        refused("clip_sample", tiny("pixart", scheduler=clipping), Inversion(scheme))
    case = tiny("sd", scheduler=multistep())
    for scheme in (EDICT(), OBELM(), Rex()):
        refused("remembers earlier predictions.*solver_order=1", case, Inversion(scheme))
    refused("adds noise; take Rex", tiny("sd"), Inversion(EDICT()), eta=0.5)
    heun = diffusers.HeunDiscreteScheduler(beta_schedule="scaled_linear")
    refused("makes two", tiny("sd", scheduler=heun), Inversion(EDICT()))
    refused("accuracy=1e-09 is asked for; dtype=torch.float64", tiny("sd"), Inversion(EDICT(), accuracy=1e-9))


def test_states_that_do_not_fit(tiny: Tiny) -> None:
    case = with_data(tiny, "sd")
    found, _, _ = inverted(case, EDICT())
    small = replace(case, latents=case.latents[..., :4])
    refused(r"latents are of shape \(1, 4, 8, 4\).*own are \(1, 4, 8, 8\)", small, Inversion(EDICT()))
    refused("latents is missing", case, Inversion(EDICT()), generator=torch.Generator())
    refused("leave latents out", case, Reconstruction(found))
    free = {"generator": torch.Generator()}
    refused("inverted holds states.*own are", case, Reconstruction(found), height=8, width=8, **free)
    two = {name: torch.cat([e, e]) for name, e in case.call.items() if isinstance(e, Tensor)}
    refused("a prompt for each sample", case, Inversion(EDICT()), **two)


def test_inversions_of_another_grid_or_model(tiny: Tiny, schedulers: Tiny) -> None:
    case, free = with_data(tiny, "sd"), {"generator": torch.Generator()}
    found, _, _ = inverted(case, EDICT())
    refused("the one has 4 steps, the other 5", case, Reconstruction(found), num_inference_steps=5, **free)
    other = with_data(tiny, "sd", scheduler=schedulers("v"))
    refused("the one is of 'epsilon', the other of 'v'", other, Reconstruction(found), **free)
    shifted = with_data(tiny, "sd", scheduler=schedulers("ddim", beta_end=0.02))
    refused("alphas at knot", shifted, Reconstruction(found), **free)


def test_pipelines_that_no_state_can_be_handed_to(tiny: Tiny) -> None:
    case = tiny("sd")
    parts = {name: part for name, part in case.pipe.components.items() if name != "image_encoder"}
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    for method in (Inversion(EDICT()), up(STEPS)):
        with pytest.raises(ValueError, match="takes no latents of one's own"), attach(pipe, method):
            raise AssertionError


def test_steps_of_other_predictions_suit_the_schemes_that_read_none(tiny: Tiny) -> None:
    """EDICT and fixed points need the steps alone, independent noises the levels."""
    case = with_data(tiny, "sd", scheduler=diffusers.EDMEulerScheduler())
    for scheme in (Rex(), Recorded(), OBELM()):
        refused("written for predictions of epsilon, x0, v, flow.*'preconditioned'", case, Inversion(scheme))
    for scheme in (EDICT(), Recorded("independent")):
        found, _, _ = inverted(case, scheme)
        assert distance(rebuilt(case, found), case.latents) <= WANTED


def test_arguments_that_do_not_fit(tiny: Tiny) -> None:
    case = tiny("sd")
    with pytest.raises(TypeError, match=r"scheme must be one of zigzag\.inversion"):
        Inversion("edict")
    with pytest.raises(TypeError, match=r"run\.inverted once the pipeline has run, got None"):
        Reconstruction(None)
    with pytest.raises(ValueError, match="trace is of moves"), attach(case.pipe, Inversion(EDICT()), trace=Trace()):
        raise AssertionError
    with pytest.raises(ValueError, match="plain"), attach(case.pipe, Inversion(EDICT()), plain=1.0):
        case.run()
    refused("begins at knot 0 and ends at knot 6, or begins below", case, [Invert(7, 6)])
    refused("along the whole grid of 6 steps", tiny("sdxl"), Inversion(EDICT()), denoising_end=0.5)


def test_states_that_the_pipeline_or_a_callback_changes(tiny: Tiny) -> None:
    """After a call, for it cannot be known before; and before there is an image."""
    case = tiny("sd")

    def change(pipe: Any, i: int, t: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": given["latents"] + 1}

    wrong = pytest.raises(ValueError, match="latents were changed")
    with case.counted() as rows, wrong, attach(case.pipe, Inversion(EDICT())):
        case.run(callback_on_step_end=change)
    assert len(rows) == 2

    case = tiny("modelscope")  # which folds its frames into the batch
    wrong = pytest.raises(ValueError, match="came to the scheduler laid out otherwise")
    with wrong, attach(case.pipe, Inversion(EDICT())):
        case.run()
