"""zigzag: a sampler kernel library for diffusion and flow models.

Any noise predictor `eps_fn(x, t, cond)` goes in, a sample comes out, drawn along a zigzag: forward under a strong
guidance, back under a weak one, forward again.

    from zigzag import DDIM, Z2Sampling, sample
    solver = DDIM.stable_diffusion(50)
    x_T = solver.noise((1, 4, 64, 64), generator=torch.Generator().manual_seed(0))
    x0 = sample(eps_fn, x_T, solver, Z2Sampling(warmup=5), cond=c, uncond=u, strong=5.5, weak=0.0)
"""

from zigzag.capture.graphs import capture
from zigzag.citations import cite
from zigzag.conditions import MISSING
from zigzag.guidance import APG, CFG, CFGPlusPlus, CFGZeroStar, Guidance, Interval, Polaris, RescaledCFG, State
from zigzag.matched import matched_cfg
from zigzag.methods import EndToEnd, ImplicitZ, Method, Resampling, Standard, Steered, Z2Sampling, ZSampling
from zigzag.model import Predictor
from zigzag.moves import Denoise, Invert, Move, Renoise, Shift, Tol
from zigzag.rows import count_rows
from zigzag.sampling import Visit, sample, walk
from zigzag.solvers import DDIM, AffineStep, FlowEuler, Solver, Spherical, StepInfo, adapt_prediction, convert
from zigzag.strengths import CosineStrength, NormStrength, ShareStrength
from zigzag.trace import Record, Trace

__version__ = "0.1.0"

__all__ = [
    "APG",
    "CFG",
    "DDIM",
    "MISSING",
    "AffineStep",
    "CFGPlusPlus",
    "CFGZeroStar",
    "CosineStrength",
    "Denoise",
    "EndToEnd",
    "FlowEuler",
    "Guidance",
    "ImplicitZ",
    "Interval",
    "Invert",
    "Method",
    "Move",
    "NormStrength",
    "Polaris",
    "Predictor",
    "Record",
    "Renoise",
    "Resampling",
    "RescaledCFG",
    "ShareStrength",
    "Shift",
    "Solver",
    "Spherical",
    "Standard",
    "State",
    "Steered",
    "StepInfo",
    "Tol",
    "Trace",
    "Visit",
    "Z2Sampling",
    "ZSampling",
    "adapt_prediction",
    "capture",
    "cite",
    "convert",
    "count_rows",
    "matched_cfg",
    "sample",
    "walk",
]
