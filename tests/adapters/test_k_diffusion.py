"""The sampler in k-diffusion: denoisers by themselves and within a wrapper that guides them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from denoisers import COND, SIGMAS, UNCOND, B, Denoiser, Guided, T, X, extra, published, run
from torch import Tensor, nn

from zigzag import (
    CFG,
    DDIM,
    EndToEnd,
    ImplicitZ,
    Resampling,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    count_rows,
)
from zigzag.adapters.k_diffusion import sampler

METHODS = [Standard(), Resampling(steps=2), EndToEnd(), ZSampling(refine=1), ImplicitZ(), Z2Sampling(warmup=1)]
each_method = pytest.mark.parametrize("method", METHODS, ids=str)


@each_method
@pytest.mark.parametrize("how", ["named", "placed", "two calls"])
@pytest.mark.parametrize("order", [("uncond", "cond"), ("cond", "uncond")], ids=["uncond first", "cond first"])
def test_a_guided_denoiser_is_led_along_every_method(method: Any, how: str, order: tuple[str, str]) -> None:
    model, trace = Guided(how, order), Trace()
    got = run(model, method, trace=trace)
    torch.testing.assert_close(got, published(method), rtol=1e-9, atol=1e-9)
    assert trace.rows == model.inner_model.rows
    if how != "two calls":
        assert trace.rows == count_rows(method, T, 4.0, 0.0)
    assert not model.inner_model._forward_hooks


@pytest.mark.parametrize("weak", [1.0, 1.5, CFG(-0.5)], ids=str)
def test_other_weak_scales_are_made_of_the_same_branches(weak: Any) -> None:
    model, trace = Guided(), Trace()
    got = run(model, ZSampling(), weak=weak, trace=trace)
    torch.testing.assert_close(got, published(ZSampling(), weak), rtol=1e-9, atol=1e-9)
    assert trace.rows == model.inner_model.rows == count_rows(ZSampling(), T, 4.0, weak)


def test_a_denoiser_with_more_arguments_by_sample_is_asked_whole() -> None:
    """Nobody says whose half is whose in what is no condition: then a branch alone costs the rows of both."""

    class Depth(Denoiser):
        def forward(self, x: Tensor, sigma: Tensor, cond: Tensor, depth: Tensor) -> Tensor:
            return super().forward(x, sigma, cond + 0.1 * depth)

    class Wrapper(Guided):
        def forward(self, x: Tensor, sigma: Tensor, uncond: Tensor, cond: Tensor, cond_scale: float) -> Tensor:
            both, depth = torch.cat([uncond, cond]), torch.arange(2 * B).double()[:, None]
            u, c = self.inner_model(torch.cat([x] * 2), torch.cat([sigma] * 2), cond=both, depth=depth).chunk(2)
            return u + cond_scale * (c - u)

    model, trace = Wrapper(), Trace()
    model.inner_model = Depth()
    run(model, ZSampling(), trace=trace)
    assert trace.rows == model.inner_model.rows == 2 * (3 * T - 2) and {*model.inner_model.calls} == {2}


def test_conditions_may_be_trees_and_be_given_once_for_the_batch() -> None:
    class Pooled(Denoiser):
        def forward(self, x: Tensor, sigma: Tensor, cond: dict[str, Tensor]) -> Tensor:
            return super().forward(x, sigma, cond["text"] + cond["pooled"])

    class Wrapper(Guided):
        def forward(self, x: Tensor, sigma: Tensor, uncond: Any, cond: Any, cond_scale: float) -> Tensor:
            wide = {k: torch.cat([uncond[k].expand(B, 1), cond[k].expand(B, 1)]) for k in cond}
            u, c = self.inner_model(torch.cat([x] * 2), torch.cat([sigma] * 2), cond=wide).chunk(2)
            return u + cond_scale * (c - u)

    model = Wrapper()
    model.inner_model = Pooled()
    trees = {
        "cond": {"text": COND - 0.25, "pooled": torch.tensor([[0.25]]).double()},
        "uncond": {"text": UNCOND[:1] + 1, "pooled": torch.tensor([[-1.0]]).double()},
    }
    got = run(model, ZSampling(), extra(**trees))
    torch.testing.assert_close(got, published(ZSampling()), rtol=1e-9, atol=1e-9)


def test_standard_equals_the_published_euler_loop() -> None:
    """Where k-diffusion is not at hand, by the one loop."""
    model, x = Guided(), X
    for s, n in pairwise(SIGMAS):
        D = model(x, s.expand(B), **extra())
        x = x + (x - D) / s * (n - s)
    torch.testing.assert_close(run(model, Standard(), trace=Trace()), x)


def test_ancestral_noise_is_drawn_of_the_global_generator_as_the_hosts_is() -> None:
    model, x = Guided(), X
    torch.manual_seed(3)
    for s, n in pairwise(SIGMAS):
        D = model(x, s.expand(B), **extra())
        up = 0.6 * (n**2 * (s**2 - n**2) / s**2).sqrt()
        x = x + (x - D) / s * ((n**2 - up**2).sqrt() - s)
        x = x + up * torch.randn_like(x) if n > 0 else x
    torch.manual_seed(3)
    torch.testing.assert_close(run(model, Standard(), eta=0.6, generator=None), x)


def test_a_denoiser_by_itself_has_one_branch() -> None:
    model, alone = Denoiser(), {"cond": COND}
    with pytest.raises(ValueError, match="has no 'uncond'"):
        run(model, Z2Sampling(warmup=1), alone)
    assert not model.calls
    torch.testing.assert_close(run(model, Standard(), alone), published(Standard(), cfg=1.0))
    got = run(model, ZSampling(refine=1), alone, weak=1.0)
    torch.testing.assert_close(got, published(ZSampling(refine=1), weak=1.0, cfg=1.0), rtol=1e-9, atol=1e-9)


def test_a_wrapper_without_a_denoiser_in_sight_is_refused() -> None:
    model = Guided()
    for wrapped in (lambda x, sigma, **given: model(x, sigma, **given), Denoiser()):
        with pytest.raises(ValueError, match=r"must have it as its inner_model"):
            run(wrapped, Z2Sampling(warmup=1))
    with pytest.raises(ValueError, match=r"extra_args cond, uncond, cond_scale; got Guided and \['cond', 'uncond'\]"):
        run(model, Z2Sampling(warmup=1), {"cond": COND, "uncond": UNCOND})
    assert not model.inner_model.calls


def test_branches_that_cannot_be_told_apart_are_refused() -> None:
    class Scrambled(Guided):
        def forward(self, x: Tensor, sigma: Tensor, uncond: Tensor, cond: Tensor, cond_scale: float) -> Tensor:
            return super().forward(x, sigma, 2 * uncond, cond, cond_scale)

    with pytest.raises(ValueError, match="the unconditional prediction was not seen"):
        run(Scrambled(), Z2Sampling(warmup=1))


def test_a_model_that_does_not_say_its_input_scale_is_refused_where_that_matters() -> None:
    model = Guided()
    model.inner_model.get_scalings = None
    model.inner_model.forward = lambda x, sigma, cond: Denoiser()(x, sigma, cond)
    with pytest.raises(ValueError, match=r"no get_scalings.*rescale=False"):
        run(model, ZSampling())
    got = run(model, ZSampling(), rescale=lambda sigma: (sigma**2 + 1) ** -0.5)
    torch.testing.assert_close(got, published(ZSampling()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(run(model, Z2Sampling(warmup=1)), published(Z2Sampling(warmup=1)))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "z2"}, "method must have path"),
        ({"method": ZSampling}, "method must have path"),
        ({"weak": "0"}, "weak must be a number"),
        ({"eta": 1.5}, "eta must lie"),
        ({"eta": 0.5, "solver": DDIM.karras}, "give it noise of its own"),
        ({"solver": DDIM.karras(T)}, "solver must be callable"),
        ({"rescale": 2.0}, "rescale must be a bool or a function"),
        ({"trace": []}, "trace must be a Trace"),
        ({"euler": 1}, "euler must be callable"),
        ({"calc_cond_batch": 1}, "calc_cond_batch must be callable"),
    ],
    ids=str,
)
def test_what_the_sampler_cannot_be_made_of_is_refused_when_it_is_made(options: dict[str, Any], match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        sampler(**{"method": Z2Sampling(), **options})


@pytest.mark.parametrize(
    ("change", "match"),
    [(lambda grid: 3, "must make a Solver"), (lambda grid: DDIM.karras(T), "must keep the knots")],
)
def test_a_solver_on_other_knots_is_refused(change: Any, match: str) -> None:
    model = Guided()
    with pytest.raises((TypeError, ValueError), match=match):
        run(model, ZSampling(), solver=change)
    with pytest.raises(ValueError, match="generator must be a list"):
        run(model, ZSampling(), generator=[torch.Generator()])
    assert not model.inner_model.calls


def test_the_real_library_agrees() -> None:
    """Where k-diffusion is installed: its own denoiser and samplers."""
    external = pytest.importorskip("k_diffusion.external")
    sampling = pytest.importorskip("k_diffusion.sampling")

    class Eps(nn.Module):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return torch.sin(x + cond) + 1e-3 * t[:, None]

    model = Guided()
    abar = torch.linspace(0.9999, 0.03, 1000).double() ** 2
    model.inner_model = external.DiscreteEpsDDPMDenoiser(Eps(), abar, quantize=False)
    sigmas = model.inner_model.get_sigmas(T)
    x = X / X.std() * sigmas[0]
    assert torch.equal(sampler(Standard())(model, x, sigmas, extra()), sampling.sample_euler(model, x, sigmas, extra()))
    for own, options in (
        (sampling.sample_euler, {"trace": Trace()}),
        (sampling.sample_euler_ancestral, {"eta": 1.0}),
        (sampling.sample_dpmpp_2m, {"solver": two_m}),
        (sampling.sample_heun, {"solver": heun}),
    ):
        torch.manual_seed(0)
        want = own(model, x, sigmas, extra())
        torch.manual_seed(0)
        torch.testing.assert_close(sampler(Standard(), **options)(model, x, sigmas, extra()), want)
    assert sampler(ZSampling())(model, x, sigmas, extra()).isfinite().all()


def two_m(grid: Any) -> Any:
    from zigzag.solvers import DPMSolver

    return DPMSolver.on(grid, order=2, lower_order_final=False)


def heun(grid: Any) -> Any:
    from zigzag.solvers import Heun

    return Heun.on(grid)
