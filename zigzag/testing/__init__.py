"""What this library holds its own parts to, for parts of one's own: functions that raise with a sentence."""

from zigzag.testing.inversions import check_inversion
from zigzag.testing.methods import check_method
from zigzag.testing.predictors import check_predictor
from zigzag.testing.rules import check_guidance
from zigzag.testing.solvers import check_solver

__all__ = ["check_guidance", "check_inversion", "check_method", "check_predictor", "check_solver"]
