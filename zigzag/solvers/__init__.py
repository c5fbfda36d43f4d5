"""Affine solver steps with exact inverses, the grids they run on, and conversions between predictions."""

from zigzag.solvers.affine import AffineStep, Solver, StepInfo, StepTable
from zigzag.solvers.ddim import DDIM, ddim_inverse, ddim_step
from zigzag.solvers.flow import FlowEuler, flow_inverse, flow_step
from zigzag.solvers.predictions import adapt_prediction, convert
from zigzag.solvers.spherical import Spherical, spherical_inverse, spherical_step

__all__ = [
    "DDIM",
    "AffineStep",
    "FlowEuler",
    "Solver",
    "Spherical",
    "StepInfo",
    "StepTable",
    "adapt_prediction",
    "convert",
    "ddim_inverse",
    "ddim_step",
    "flow_inverse",
    "flow_step",
    "spherical_inverse",
    "spherical_step",
]
