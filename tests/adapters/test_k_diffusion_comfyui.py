"""The sampler within ComfyUI, held to `zigzag.sample` on the network itself in the form of the papers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from support.comfyui import COND, FLOW, SIGMAS, UNCOND, T, expected, host, one, published, run
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling, count_rows, sample
from zigzag.moves import Tol
from zigzag.solvers import DPMSolver, Heun

METHODS = [
    Standard(),
    Resampling(steps=2),
    EndToEnd(),
    ZSampling(refine=1),
    ZSampling(rounds=2, span=2),
    ImplicitZ(),
    Z2Sampling(warmup=1),
    Z2Sampling(warmup=2, strength=0.5),
]
KINDS = ["eps", "v", "edm", "const"]
each_method = pytest.mark.parametrize("method", METHODS, ids=str)
each_kind = pytest.mark.parametrize("kind", KINDS)
D = Callable[[Tensor, Tensor], Tensor]


@each_kind
@each_method
@pytest.mark.parametrize("weak", [0.0, 1.0, 1.5])
def test_every_method_is_the_published_one_at_its_rows(kind: str, method: Any, weak: float) -> None:
    at = host(kind)
    trace = Trace()
    got = run(at, method, weak=weak, trace=trace)
    want, rows = expected(at, method, weak)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert trace.rows == at.network.rows == rows == count_rows(method, T, 4.0, weak)


def test_without_rescaling_an_inversion_shows_the_state_as_it_is() -> None:
    at = host("eps")
    got = run(at, ZSampling(), rescale=False)
    torch.testing.assert_close(got, expected(at, ZSampling(), rescaled=False)[0], rtol=1e-9, atol=1e-9)
    assert (got - expected(at, ZSampling())[0]).abs().max() > 1e-3


def test_an_inversion_refined_to_a_tolerance_is_the_published_one() -> None:
    """Its first question is at the noise level that it comes from, the others at the one that it is told.

    The iteration begins at a state of another size than in the published form, and may take more or fewer rows.
    """
    at, method, trace = host("v"), ZSampling(refine=Tol(1e-6), steps=3), Trace()
    got = run(at, method, trace=trace)
    torch.testing.assert_close(got, expected(at, method)[0], rtol=1e-5, atol=1e-5)
    assert trace.rows == at.network.rows > count_rows(ZSampling(steps=3), T, 4.0)


def test_a_scale_of_ones_own_takes_the_place_of_the_models() -> None:
    at = host("eps")
    got = run(at, ZSampling(), rescale=lambda sigma: 3 * (sigma**2 + 1) ** -0.5)
    torch.testing.assert_close(got, run(at, ZSampling()))


def test_image_to_image_and_leftover_noise_end_where_the_sigmas_do() -> None:
    at = host("v", sigmas=SIGMAS[1:-1])
    method = ZSampling(steps=2)
    torch.testing.assert_close(run(at, method), expected(at, method)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [Standard(), ZSampling(), Z2Sampling(warmup=1)], ids=str)
@pytest.mark.parametrize("change", [lambda grid: DPMSolver.on(grid, order=2), Heun.on], ids=["2M", "Heun"])
@pytest.mark.parametrize("kind", ["const", "eps"])
def test_another_solver_makes_its_own_steps(kind: str, method: Any, change: Any) -> None:
    at = host(kind)
    got = run(at, method, solver=change)
    torch.testing.assert_close(got, expected(at, method, change=change)[0], rtol=1e-9, atol=1e-9)


@each_method
@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_ancestral_noise_is_held_and_drawn_as_the_host_draws_it(method: Any, eta: float) -> None:
    at = host("eps")
    got = run(at, method, eta=eta)
    torch.testing.assert_close(got, expected(at, method, eta=eta)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ancestral_steps_of_a_flow_go_below_and_renoise(eta: float) -> None:
    at, torch_x = host("const"), None
    D = one(at, COND), one(at, UNCOND)
    x, draw = at.x, torch.Generator().manual_seed(6)
    for s, n in pairwise(FLOW):
        t = s.expand(len(x))
        whole = D[1](x, t) + 4 * (D[0](x, t) - D[1](x, t))
        down = n + eta * n * (n - s) / s
        torch_x = whole + (x - whole) * down / s  # Euler, to below
        grow = (1 - n) / (1 - down)
        z = torch.randn(x.shape, generator=draw, dtype=x.dtype) if n > 0 else 0
        x = grow * torch_x + (n**2 - (grow * down) ** 2).clamp(min=0).sqrt() * z
    torch.testing.assert_close(run(at, Standard(), eta=eta), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["eps", "const"])
@pytest.mark.parametrize("method", [Standard(), ZSampling(), Z2Sampling(warmup=1), ImplicitZ()], ids=str)
def test_inpainting_blends_each_branch_as_the_host_blends_the_whole(kind: str, method: Any) -> None:
    soft = torch.linspace(0, 1, 9, dtype=torch.float64).reshape(1, 1, 3, 3).expand(2, 1, 3, 3)

    def sharpened(sigma: Tensor, mask: Tensor, extra_options: Any) -> Tensor:
        assert extra_options["sigmas"] is at.sigmas and extra_options["model"] is at.model.inner_model
        return (mask > sigma.reshape(-1, 1, 1, 1) / 20).double()

    for own in (None, sharpened):
        options = {} if own is None else {"denoise_mask_function": own}
        at = host(kind, denoise_mask=soft, model_options=options)

        def blended(value: float, own: Any = own, at: Any = at) -> D:
            def D(x: Tensor, sigma: Tensor) -> Tensor:
                extra = {"sigmas": at.sigmas, "model": at.model.inner_model}
                mask = soft if own is None else own(sigma, soft, extra_options=extra)
                known = at.network.scale_latent_inpaint(x, sigma, at.model.noise, at.latent)
                return mask * one(at, value)(mask * x + (1 - mask) * known, sigma) + (1 - mask) * at.latent

            return D

        solver, eps_of, size = published(at)
        predictors = {value: eps_of(blended(value)) for value in (COND, UNCOND)}
        want = sample(
            lambda x, t, c, p=predictors: p[c](x, t, c), at.x / size[0], solver, method, cond=COND, uncond=UNCOND,
            strong=4.0, batched=False,
        )  # fmt: skip
        torch.testing.assert_close(run(at, method), want, rtol=1e-9, atol=1e-9)
        assert options.keys() <= {"denoise_mask_function"}  # nothing was left behind in the user's options
