"""What loops on tables are tested with: solvers with memory, noise and second evaluations, methods, and scales."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from support.tables import other_fn
from zigzag import (
    CFG,
    DDIM,
    Denoise,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Interval,
    Invert,
    Resampling,
    Shift,
    Spherical,
    Standard,
    Z2Sampling,
    ZSampling,
)
from zigzag.solvers import DPM2, LCM, AdamsBashforth, AffineStep, DPMSolver, Heun, Solver

T = 6
GRID, FLOW, V = DDIM.stable_diffusion(T, spacing="trailing"), FlowEuler.uniform(T), Spherical.cosine(T, phi_max=1.5)


class Everything(Heun):
    """Two evaluations, memory and noise in one step, with numbers that mean nothing."""

    memory = 2

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        step = super().coefficients(i, j, remembered)
        return AffineStep(step.a, step.b, (0.2, -0.1)[: len(remembered)], 0.1 * (j < len(self)))

    def remember(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        return 0.5 * x + (0.3 + 0.1 * i) * e


SOLVERS: dict[str, Solver] = {
    "eta": DDIM.stable_diffusion(T, spacing="trailing", eta=1.0),
    "eta, fresh": DDIM.stable_diffusion(T, spacing="trailing", eta=1.0, fresh_noise=True),
    "2M": DPMSolver.on(GRID),
    "2M, flow": DPMSolver.on(FLOW, form="heun"),
    "3M": DPMSolver.on(GRID, order=3, lower_order_final=False),
    "3M, v": DPMSolver.on(V, order=3),
    "sde 1": DPMSolver.on(GRID, order=1, sde=True),
    "sde 2": DPMSolver.on(GRID, order=2, sde=True),
    "sde 2, fresh": DPMSolver.on(FLOW, order=2, sde=True, fresh_noise=True),
    "adams 3": AdamsBashforth.on(GRID, order=3),
    "lcm": LCM.on(GRID),
    "lcm, v": LCM.on(V, fresh_noise=True),
    "heun": Heun.on(GRID),
    "heun, flow": Heun.on(FLOW),
    "heun, v": Heun.on(V),
    "dpm2": DPM2.karras(T, sigma_max=10.0),
    "everything": Everything.on(GRID),
}
# A gap that is kept over another move, and shifts twice.
ODD = (Denoise(0, 1), Invert(1, 0), Shift(0, False), Denoise(0, 1), Shift(1, False), Shift(1, False), Denoise(1, 2))
METHODS: dict[str, Any] = {
    "standard": Standard(),
    "resampling": Resampling(),
    "end-to-end": EndToEnd(refine=1),
    "z": ZSampling(),
    "z, span, rounds, refine": ZSampling(span=2, rounds=2, refine=2),
    "z, span 3, to the end": ZSampling(span=3, steps=T),
    "implicit": ImplicitZ(),
    "z2": Z2Sampling(warmup=2),
    "z2, no warmup": Z2Sampling(warmup=0, steps=4),
    "a path": ODD,
}
SCALES: dict[str, dict[str, Any]] = {
    "5.5 and 0": {},
    "rules": {"strong": Interval(CFG(lambda step: 2 + step.sigma_i), 1, 4), "weak": CFG(lambda step: 0.1 * step.i)},
    "weak_fn": {"weak_fn": other_fn},
}
