"""What the sampler takes over from ComfyUI: what the user set up, callbacks, dtype and seed; and what it tells."""

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
    calc_cond_batch,
    column,
    entry,
    expected,
    host,
    one,
    published,
    run,
)
from zigzag import CFG, EndToEnd, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling, count_rows, sample
from zigzag.adapters.k_diffusion import sampler


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
