"""The sampler within ComfyUI, held to `zigzag.sample` on the network itself in the form of the papers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from support.comfyui import (
    COND,
    FLOW,
    OTHER,
    SIGMAS,
    UNCOND,
    T,
    calc_cond_batch,
    column,
    entry,
    expected,
    host,
    one,
    published,
    run,
)
from zigzag import (
    CFG,
    EndToEnd,
    ImplicitZ,
    Resampling,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    count_rows,
    sample,
)
from zigzag.adapters.k_diffusion import sampler
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


def test_the_strong_prediction_is_what_the_user_set_up_and_its_rows_count() -> None:
    """Perturbed-attention guidance, say: after guidance, with a further call of the network."""

    def perturbed(args: dict[str, Any]) -> Tensor:
        (found,) = calc_cond_batch(args["model"], [[entry(OTHER)]], args["input"], args["sigma"], args["model_options"])
        return args["denoised"] + 0.5 * (args["cond_denoised"] - found)

    at = host("eps", model_options={"sampler_post_cfg_function": [perturbed]})
    method, trace = ZSampling(), Trace()
    got = run(at, method, trace=trace)
    cond, uncond, other = (one(at, value) for value in (COND, UNCOND, OTHER))

    def whole(x: Tensor, sigma: Tensor) -> Tensor:
        guided = uncond(x, sigma) + 4 * (cond(x, sigma) - uncond(x, sigma))
        return guided + 0.5 * (cond(x, sigma) - other(x, sigma))

    solver, eps_of, size = published(at)
    want = sample(
        eps_of(whole), at.x / size[0], solver, method, cond=None, strong=1.0, weak_fn=eps_of(uncond), weak=1.0
    )
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    downs, ups = 2 * T - 1, T - 1
    assert trace.rows == at.network.rows == 3 * downs + ups


def test_a_guidance_function_of_the_users_makes_the_strong_prediction_too() -> None:
    doubled = {"sampler_cfg_function": lambda args: 2 * args["uncond"] - args["cond"]}
    at = host("eps", cfg=7.0, model_options=doubled)
    got = run(at, Z2Sampling(warmup=1))
    torch.testing.assert_close(got, expected(at, Z2Sampling(warmup=1), cfg=-1.0)[0], rtol=1e-9, atol=1e-9)


def test_a_branch_alone_costs_one_row_and_stands_at_its_own_place() -> None:
    places = []

    def watch(apply: Any, args: dict[str, Any]) -> Tensor:
        places.append(args["cond_or_uncond"])
        return apply(args["input"], args["timestep"], **args["c"])

    for weak, own in ((0.0, [1]), (1.0, [0])):
        places.clear()
        run(host("v", model_options={"model_function_wrapper": watch}), ZSampling(steps=1), weak=weak)
        assert places == [[0, 1], own, *[[0, 1]] * T]


@pytest.mark.parametrize(
    "options",
    [
        {"sampler_calc_cond_batch_function": lambda a: calc_cond_batch(*(a[k] for k in BY_PLACE))},
        {"sampler_pre_cfg_function": [lambda args: args["conds_out"]]},
        None,
    ],
    ids=["own batch", "before guidance", "no calc_cond_batch"],
)
def test_where_a_branch_cannot_be_had_alone_both_are_evaluated_and_counted(options: Any) -> None:
    at, trace = host("v", model_options=options or {}), Trace()
    got = run(at, ZSampling(steps=1), trace=trace, calc_cond_batch=calc_cond_batch if options else None)
    torch.testing.assert_close(got, expected(at, ZSampling(steps=1))[0], rtol=1e-9, atol=1e-9)
    assert trace.rows == at.network.rows == 2 * (T + 2)


BY_PLACE = ("model", "conds", "input", "sigma", "model_options")


def test_at_scale_one_the_negative_is_evaluated_where_the_weak_prediction_needs_it() -> None:
    for method in (ZSampling(), Z2Sampling(warmup=1), ImplicitZ()):
        at, trace = host("eps", cfg=1.0), Trace()
        got = run(at, method, trace=trace)
        torch.testing.assert_close(got, expected(at, method, cfg=1.0)[0], rtol=1e-9, atol=1e-9)
        assert trace.rows == at.network.rows == count_rows(method, T, 1.0, 0.0)


def test_a_weak_rule_reads_the_levels_of_the_grid() -> None:
    at = host("const")
    rule = CFG(lambda step: 0.0 if step.sigma_i > 0.5 else 1.0)
    solver, eps_of, _ = published(at)
    fns = {value: eps_of(one(at, value)) for value in (COND, UNCOND)}
    want = sample(
        lambda x, t, c: fns[c](x, t, c), at.x, solver, ZSampling(), cond=COND, uncond=UNCOND, strong=4.0, weak=rule,
        batched=False,
    )  # fmt: skip
    torch.testing.assert_close(run(at, ZSampling(), weak=rule), want, rtol=1e-9, atol=1e-9)


def test_the_callback_follows_every_denoise() -> None:
    """As of the host's Euler sampler: the step, the state before it, and what the model made of that."""
    at, told = host("eps"), []
    run(at, ZSampling(steps=2), callback=told.append)
    assert [step["i"] for step in told] == [0, 0, 1, 1, 2, 3, 4]
    cond, uncond = one(at, COND), one(at, UNCOND)
    for step in told:
        assert step["sigma"] == step["sigma_hat"] == at.sigmas[step["i"]] and step["sigma"].ndim == 0
        t = step["sigma"].expand(2)
        whole = uncond(step["x"], t) + 4 * (cond(step["x"], t) - uncond(step["x"], t))
        torch.testing.assert_close(step["denoised"], whole)


def test_a_callback_that_raises_ends_the_run() -> None:
    at = host("eps")

    def stop(step: dict[str, Any]) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(at, EndToEnd(), callback=stop)
    assert at.network.rows == 2


def test_the_model_is_shown_its_own_dtype_and_the_state_keeps_more() -> None:
    at = host("eps", dtype=torch.float16, sigmas=SIGMAS.float())
    seen = []
    at.model.inner_model.inner_model.apply_model = lambda x, sigma, **c: seen.append((x.dtype, sigma.dtype)) or x
    got = run(at, ZSampling())
    assert got.dtype == torch.float16 and {*seen} == {(torch.float16, torch.float16)}


def test_standard_is_the_hosts_own_euler_on_any_sigmas() -> None:
    calls = []

    def euler(*args: Any, **kwargs: Any) -> Tensor:
        calls.append((args, kwargs))
        return torch.ones(3)

    for sigmas in (SIGMAS, SIGMAS.flip(0), SIGMAS[:1], SIGMAS[:0], SIGMAS[[0, 1, 1, 2]]):
        at, callback = host("eps"), print
        for method in (Standard(), Standard().path(len(sigmas) - 1) if len(sigmas) > 1 else Standard()):
            got = sampler(method, euler=euler)(at.model, at.x, sigmas, at.extra, callback, True)
            args, kwargs = calls.pop()
            assert got.shape == (3,) and args == (at.model, at.x, sigmas)
            assert kwargs == {"extra_args": at.extra, "callback": callback, "disable": True}
    trace = Trace()
    run(host("eps"), Standard(), trace=trace, euler=euler)
    assert trace.rows == 2 * T and not calls


def test_the_same_seed_gives_the_same_and_a_generator_takes_its_place() -> None:
    at = host("eps")
    first, again = (run(at, Resampling(), eta=1.0) for _ in range(2))
    own = run(at, Resampling(), eta=1.0, generator=torch.Generator().manual_seed(6))
    other = run(at, Resampling(), eta=1.0, generator=torch.Generator().manual_seed(7))
    assert torch.equal(first, again) and torch.equal(first, own) and not torch.equal(first, other)
    greatest = run(host("eps", seed=2**64 - 1), Resampling())
    assert greatest.isfinite().all()


def test_the_effective_scale_is_read_off_the_run() -> None:
    """Where the branches do not depend on the state a zigzag is plain guidance at `matched_cfg`'s scale."""
    at = host("const")

    def constant(x: Tensor, sigma: Tensor, c_crossattn: Tensor, transformer_options: Any) -> Tensor:
        return x - column(sigma, x) * column(c_crossattn, x)

    at.network.apply_model = constant
    trace = Trace()
    run(at, Z2Sampling(warmup=1), trace=trace)
    torch.testing.assert_close(trace.beta, torch.full((2,), 4.0 * (T - 1) / T, dtype=torch.float64))
