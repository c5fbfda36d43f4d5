"""The whole public API in use: each name built, and then given a state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

import zigzag
from zigzag import (
    CFG,
    DDIM,
    Denoise,
    FlowEuler,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    count_rows,
    matched_cfg,
    sample,
    solvers,
    walk,
    zoo,
)
from zigzag.capture.graphs import TableLoop
from zigzag.evaluation.accuracy import noise
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.solvers import make_solver
from zigzag.solvers import (
    DDPM,
    DPM2,
    LCM,
    TCD,
    AdamsBashforth,
    Ancestral,
    DPMSolver,
    FlowAncestral,
    Heun,
    adapt_prediction,
    convert,
)
from zigzag.zoo import Digits, GaussianMixture
from zigzag.zoo.shapes import check, parse, render
from zigzag.zoo.shapes.checker import draw_scene

Use: TypeAlias = Callable[[Tensor], Tensor]
T = 6
MEANS = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def like(x: Tensor) -> dict[str, Any]:
    """With gradients where the state wants them."""
    return {"grad": x.requires_grad}


def small(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return torch.tanh(x) * 0.1 + cond.to(x.dtype)[:, None, None, None] * 0.01


def sampling(make: Callable[[], Any], method: Any = None, *, strong: Any = 3.0, weak: Any = 0.0) -> Callable[[], Use]:
    """Solver, method and rules are built first; what is sampled with them comes later."""

    def made() -> Use:
        solver, moves, s, w = make(), ZSampling() if method is None else method(), strong, weak
        s, w = (rule() if callable(rule) else rule for rule in (s, w))

        def use(x: Tensor) -> Tensor:
            c = torch.arange(len(x), device=x.device)
            return sample(small, x, solver, moves, cond=c, uncond=-c, strong=s, weak=w, generator=seeded(), **like(x))

        return use

    return made


def ddim() -> DDIM:
    return DDIM.stable_diffusion(T, spacing="trailing")


def flow() -> FlowEuler:
    return FlowEuler.uniform(T)


def wrapped(source: Any, make: Callable[[], Any]) -> Callable[[], Use]:
    def made() -> Use:
        solver = make()
        eps_fn = adapt_prediction(small, solver, source)
        return lambda x: sample(
            eps_fn, x, solver, Standard(), cond=torch.zeros(len(x), device=x.device), strong=1.0, **like(x)
        )

    return made


def digits() -> Use:
    model, solver = Digits(), ddim()
    eps_fn = model.predictor(solver)

    def use(x: Tensor) -> Tensor:
        c = torch.arange(len(x), device=x.device)
        x0 = sample(eps_fn, x, solver, Z2Sampling(1), cond=c, uncond=c - 9, strong=2.0, **like(x))
        return x0 + model.distance(x0, c)[:, None, None, None] + model.classify(x0)[:, None, None, None]

    return use


def mixture() -> Use:
    model, solver = GaussianMixture(MEANS, 0.5), flow()
    data, eps_fn = model.sample(2, generator=seeded()), model.predictor(solver)
    return lambda x: eps_fn(x, torch.full((len(x),), 0.5, device=x.device), None) + data.to(x.dtype).to(x.device)


def primitives() -> Use:
    levels = (0.8, 0.6, 0.9, 0.4)

    def use(x: Tensor) -> Tensor:
        total = x
        for step, arguments in (
            (solvers.ddim_step, levels), (solvers.ddim_inverse, levels), (solvers.flow_step, (0.6, 0.4)),
            (solvers.flow_inverse, (0.6, 0.4)), (solvers.spherical_step, (1.0, 0.5)),
            (solvers.spherical_inverse, (1.0, 0.5)),
        ):  # fmt: skip
            total = total + step(x, -x, *arguments)  # type: ignore[operator]
            tensors = (torch.full((len(x),), k, device=x.device, dtype=x.dtype) for k in arguments)
            total = total + step(x, -x, *tensors)  # type: ignore[operator]
        return total + convert(x, -x, 0.6, 0.8, "v", "epsilon")

    return use


def grids() -> Use:
    solver = ddim()

    def use(x: Tensor) -> Tensor:
        table = solver.table(x.device, x.dtype)
        alpha, sigma = solver.alpha_sigma(torch.full((len(x),), int(solver.times[2]), device=x.device), x.dtype)
        z = solver.noise(x.shape, generator=seeded(), device=x.device, dtype=x.dtype)
        return solver.add_noise(x, z, 2) * table.a[2] + (alpha + sigma)[:, None, None, None]

    return use


def table_loop() -> Use:
    solver = DPMSolver.on(ddim(), order=2, sde=True)

    def use(x: Tensor) -> Tensor:
        c = torch.arange(len(x), device=x.device)
        return TableLoop(small, x, solver, Z2Sampling(1), cond=c, uncond=-c, strong=2.0)(x, generator=seeded())

    return use


def path() -> Use:
    solver, moves, step = (
        ddim(),
        (Denoise(0, 1), zigzag.Shift(1, True), Denoise(1, 2), zigzag.Renoise(2, 1)),
        zigzag.AffineStep(0.5, 2.0),
    )

    def use(x: Tensor) -> Tensor:
        c, trace = torch.arange(len(x), device=x.device), Trace()
        visits = list(walk(small, x, solver, moves, cond=c, uncond=-c, generator=seeded(), trace=trace))
        down = sample(small, visits[-1].state, solver, [zigzag.Invert(1, 0, refine=1)], cond=c, uncond=-c)
        assert isinstance(trace.records[0], zigzag.Record)
        return step.forward(down, x) + float(count_rows(moves, solver))

    return use


def learned(name: str) -> Callable[[], Use]:
    def made() -> Use:
        for needed in ("diffusers", "safetensors"):
            pytest.importorskip(needed)
        model, z = zoo.load(name), noise("single object", 0, 2, 0)
        solver = DPMSolver.on(model.solver(T), order=2)
        sampler = Sampler(Z2Sampling(1), 2, 2.0, matched=ZSampling(), solver="2m")

        def use(x: Tensor) -> Tensor:
            there = zoo.LearnedModel(name, model.network.to(x.device))
            cond, uncond = there.encode(["a circle"] * len(x)), there.encode([""] * len(x))
            y = sample(
                there.eps_fn,
                z.to(x.device) + 0 * x.mean(),
                solver,
                ZSampling(1),
                cond=cond,
                uncond=uncond,
                strong=2.0,
                **like(x),
            )
            drawn = Sampler(sampler.method, 2, 2.0, solver="2m").draw(
                there, ["a circle"] * 2, z.to(x.device), trace=Trace()
            )
            assert sampler.guidance(there.solver(2)) is not None
            return there.image_to_state(there.decode(y)) + drawn

        return use

    return made


def shapes() -> Use:
    pytest.importorskip("scipy")
    texts = ["a red circle", "a blue square and a green circle"]
    images = render([draw_scene(parse(text), Random(3)) for text in texts])
    assert check(texts, images) == [True, True]
    return lambda x: images.to(x.device) + x.mean()


class Down:
    """Standard sampling, move by move."""

    def steer(self, steps: int) -> Generator[zigzag.Move, zigzag.Visit, None]:
        for i in range(steps):
            yield Denoise(i, i + 1)


# By the public names that are built and used; in brackets a case of them.
USES: dict[str, Callable[[], Use]] = {
    "DDIM Standard sample": sampling(ddim, Standard),
    "DDIM ZSampling (eta)": sampling(lambda: DDIM.karras(T, eta=0.5)),
    "FlowEuler Z2Sampling": sampling(flow, lambda: Z2Sampling(1)),
    "CosineStrength": sampling(ddim, lambda: Z2Sampling(1, strength=zigzag.CosineStrength())),
    "ShareStrength": sampling(ddim, lambda: Z2Sampling(1, strength=zigzag.ShareStrength(0.5))),
    "NormStrength": sampling(flow, lambda: zigzag.ImplicitZ(strength=zigzag.NormStrength())),
    "Spherical ImplicitZ": sampling(lambda: zigzag.Spherical.cosine(T), lambda: zigzag.ImplicitZ(1, 4)),
    "Tol": sampling(flow, lambda: ZSampling(refine=zigzag.Tol(0.1, most=9))),
    "DPMSolver EndToEnd": sampling(lambda: DPMSolver.on(ddim(), order=3), lambda: zigzag.EndToEnd(refine=1)),
    "DPMSolver Resampling (sde)": sampling(lambda: DPMSolver.on(flow(), order=2, sde=True), zigzag.Resampling),
    "AdamsBashforth": sampling(lambda: AdamsBashforth.on(DDIM.karras(T), order=4)),
    "DDPM": sampling(lambda: DDPM.stable_diffusion(T, variance="large")),
    "Ancestral": sampling(lambda: Ancestral.on(zigzag.Spherical.cosine(T), eta=0.5)),
    "FlowAncestral": sampling(lambda: FlowAncestral.on(flow(), eta=0.5), lambda: Z2Sampling(1)),
    "LCM": sampling(lambda: LCM.on(ddim()), lambda: Z2Sampling(1)),
    "TCD": sampling(lambda: TCD.from_alphas_cumprod([0.99, 0.9, 0.5, 0.1], [3, 2, 1]), lambda: Z2Sampling(1)),
    "Heun Inner": sampling(lambda: Heun.on(flow())),
    "DPM2": sampling(lambda: DPM2.karras(T), lambda: Z2Sampling(1)),
    "CFG": sampling(ddim, strong=lambda: CFG(lambda step: 1.0 + step.i), weak=lambda: CFG.from_gamma(0.0)),
    "CFGPlusPlus": sampling(ddim, strong=lambda: zigzag.CFGPlusPlus(0.6)),
    "APG State": sampling(ddim, strong=lambda: zigzag.APG(4.0, eta=0.5, norm=2.0, momentum=-0.5)),
    "CFGZeroStar": sampling(flow, strong=lambda: zigzag.CFGZeroStar(4.0)),
    "vp_grid Levels": sampling(lambda: DDIM(*solvers.vp_grid(T))),
    "ve_grid": sampling(lambda: DDIM(*solvers.ve_grid(T)), lambda: Z2Sampling(1)),
    "cosine_grid": sampling(lambda: DDIM(*solvers.cosine_grid(T))),
    "Method Steered": sampling(ddim, Down),
    "Polaris": sampling(ddim, strong=lambda: 4.0, weak=lambda: zigzag.Polaris()),
    "RescaledCFG LinearGuidance": sampling(ddim, strong=lambda: zigzag.RescaledCFG(4.0, 0.7)),
    "Interval Guidance StepInfo": sampling(ddim, Standard, strong=lambda: zigzag.Interval(CFG(4.0), 1, 3)),
    "matched_cfg": sampling(ddim, Standard, strong=lambda: matched_cfg(ZSampling(), ddim())),
    "matched_cfg (memory)": sampling(
        lambda: DPMSolver.on(ddim()), Standard, strong=lambda: matched_cfg(ZSampling(), DPMSolver.on(ddim()))
    ),
    "AffineStep Denoise Invert Move Record Renoise Shift Trace Visit count_rows walk": path,
    "adapt_prediction Prediction Predictor Said": wrapped("v", ddim),
    "adapt_prediction (score)": wrapped("score", lambda: DDIM(*solvers.vp_grid(T))),
    "adapt_prediction (x0)": wrapped("x0", flow),
    "convert ddim_inverse ddim_step flow_inverse flow_step spherical_inverse spherical_step": primitives,
    "Solver StepTable": grids,
    "capture MISSING": table_loop,
    "Digits": digits,
    "GaussianMixture": mixture,
    "render check": shapes,
    "make_solver": sampling(lambda: make_solver("sde-2m", ddim()), lambda: Z2Sampling(1)),
    "LearnedModel load Sampler (unet)": learned("shapes-unet"),
    "LearnedModel load Sampler (dit)": learned("shapes-dit"),
}  # fmt: skip
