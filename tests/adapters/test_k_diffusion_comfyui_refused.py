"""What the sampler refuses within ComfyUI: in a sentence, and before the first call of the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.comfyui import (
    COND,
    OTHER,
    SIGMAS,
    UNCOND,
    T,
    entry,
    expected,
    host,
    run,
)
from zigzag import (
    Denoise,
    Invert,
    Standard,
    Z2Sampling,
    ZSampling,
    count_rows,
)
from zigzag.adapters.k_diffusion import sampler


@pytest.mark.parametrize(
    ("sigmas", "says"),
    [
        (SIGMAS.flip(0), "step 0 rises from 0 to 0.4 .flipped"),
        (SIGMAS[[0, 1, 1, 2]], "step 1 stays at 6"),
        (SIGMAS[:1], "there is one only"),
        (SIGMAS[:0], "there are none"),
    ],
    ids=["flipped", "repeated", "single", "none"],
)
@pytest.mark.parametrize("method", [ZSampling(), Z2Sampling(warmup=0), (Denoise(0, 1), Invert(1, 0), Denoise(0, 1))])
def test_odd_sigmas_are_refused_in_a_sentence(sigmas: Tensor, says: str, method: Any) -> None:
    at = host("eps")
    with pytest.raises(ValueError, match=rf"{says}.*Standard\(\)"):
        sampler(method, euler=print)(at.model, at.x, sigmas, at.extra, None, True)
    with pytest.raises(ValueError, match=says):
        sampler(Standard(), eta=0.5, euler=print)(at.model, at.x, sigmas, at.extra, None, True)
    assert not at.network.rows


@pytest.mark.parametrize("conds", [{"positive": [entry(COND)]}, {"positive": [entry(COND)], "negative": []}])
def test_without_a_negative_there_is_no_gap_and_a_sentence(conds: Any) -> None:
    at = host("eps", cfg=1.0, conds=conds)
    for method in (ZSampling(), Z2Sampling(warmup=1)):
        with pytest.raises(ValueError, match=r"weak=CFG\(0\) needs the unconditional .* no negative conditioning"):
            run(at, method)
    assert not at.network.rows
    got, rows = run(at, ZSampling(), weak=1.0), count_rows(ZSampling(), T, 1.0, 1.0)
    assert at.network.rows == rows
    torch.testing.assert_close(got, expected(at, ZSampling(), weak=1.0, cfg=1.0)[0], rtol=1e-9, atol=1e-9)


def test_a_guider_that_hides_its_conditions_is_refused_at_its_first_call() -> None:
    at = host("eps", cfg=1.0, conds={"positive": [entry(COND)]})
    at.model.inner_model = hidden(at.model.inner_model)
    with pytest.raises(ValueError, match="showed no unconditional prediction"):
        run(at, Z2Sampling(warmup=1))


def hidden(guider: Any) -> Any:
    def call(x: Tensor, sigma: Tensor, options: Any, seed: Any) -> Tensor:
        return guider(x, sigma, options, seed)

    call.inner_model = guider.inner_model
    return call


def test_a_negative_with_a_range_of_timesteps_is_refused_where_a_step_needs_it_outside() -> None:
    early = [entry(UNCOND, timestep_start=999.0, timestep_end=2.0)]
    at = host("eps", conds={"positive": [entry(COND)], "negative": early})
    with pytest.raises(ValueError, match=r"at sigma 1\.1, and the timestep range of the negative"):
        run(at, ZSampling())
    assert not at.network.rows
    assert run(at, ZSampling(steps=3)).isfinite().all()
    at = host("eps", conds={"positive": [entry(COND)], "negative": [*early, entry(UNCOND, timestep_start=2.0)]})
    assert run(at, ZSampling()).isfinite().all()


def test_a_guider_of_three_conditions_is_refused() -> None:
    conds = {"positive": [entry(COND)], "middle": [entry(OTHER)], "negative": [entry(UNCOND)]}
    at = host("eps", conds=conds)
    with pytest.raises(ValueError, match=r"besides positive and negative \(middle\)"):
        run(at, Z2Sampling(warmup=1))
    assert not at.network.rows


def test_states_of_another_kind_are_refused() -> None:
    at = host("eps")
    at.network.model_sampling.noise_scaling = lambda sigma, noise, latent, max_denoise=False: 0.5 * latent
    with pytest.raises(ValueError, match="neither x0"):
        run(at, Z2Sampling(warmup=1))
    at = host("eps")
    at.network.model_sampling = None
    with pytest.raises(ValueError, match="no model_sampling"):
        run(at, Z2Sampling(warmup=1))


@pytest.mark.parametrize(
    ("method", "match"),
    [(Z2Sampling(warmup=5), "warmup must be smaller"), ((Denoise(0, 1), Denoise(1, 2)), "ends at knot 5")],
)
def test_a_method_that_does_not_fit_the_steps_says_so(method: Any, match: str) -> None:
    at = host("eps")
    with pytest.raises(ValueError, match=match):
        run(at, method)
    assert not at.network.rows
