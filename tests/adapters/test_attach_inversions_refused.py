"""Inversions that do not fit a pipeline are refused, before the first model call wherever that can be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_attach_inversions import multistep
from test_attach_refusals import snapshot
from test_attach_upward import STEPS, WANTED, distance, inverted, rebuilt, up, with_data
from torch import Tensor

from zigzag import Invert, Trace
from zigzag.inversion import EDICT, OBELM, FixedPoint, Recorded, Rex

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Inversion, Reconstruction, Role = adapters.attach, adapters.Inversion, adapters.Reconstruction, adapters.Role

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:FixedPoint.*did not converge"),
]

Tiny = Callable[..., Any]


def refused(match: str, case: Any, method: Any, error: type[Exception] = ValueError, **call: Any) -> None:
    """Before the first model call; and the pipeline is as it was."""
    before = snapshot(case.pipe)
    with case.counted() as rows, pytest.raises(error, match=match), attach(case.pipe, method):
        case.run(**call)
    assert not rows and snapshot(case.pipe) == before


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
