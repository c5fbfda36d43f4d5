"""Affine solver steps with exact inverses, the grids they run on, and conversions between predictions."""

from zigzag.solvers.adams import AdamsBashforth
from zigzag.solvers.affine import AffineStep, Inner, StepInfo, StepTable
from zigzag.solvers.ancestral import Ancestral, FlowAncestral
from zigzag.solvers.consistency import LCM, TCD
from zigzag.solvers.ddim import DDIM, DDPM, ddim_inverse, ddim_step
from zigzag.solvers.flow import FlowEuler, flow_inverse, flow_step
from zigzag.solvers.grids import Prediction, Said
from zigzag.solvers.multistep import DPMSolver
from zigzag.solvers.predictions import adapt_prediction, convert
from zigzag.solvers.schedules import Levels, cosine_grid, ve_grid, vp_grid
from zigzag.solvers.solver import Solver
from zigzag.solvers.spherical import Spherical, spherical_inverse, spherical_step
from zigzag.solvers.twostage import DPM2, Heun

__all__ = [
    "DDIM",
    "DDPM",
    "DPM2",
    "LCM",
    "TCD",
    "AdamsBashforth",
    "AffineStep",
    "Ancestral",
    "DPMSolver",
    "FlowAncestral",
    "FlowEuler",
    "Heun",
    "Inner",
    "Levels",
    "Prediction",
    "Said",
    "Solver",
    "Spherical",
    "StepInfo",
    "StepTable",
    "adapt_prediction",
    "convert",
    "cosine_grid",
    "ddim_inverse",
    "ddim_step",
    "flow_inverse",
    "flow_step",
    "spherical_inverse",
    "spherical_step",
    "ve_grid",
    "vp_grid",
]
