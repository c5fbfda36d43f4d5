"""Steps along the circle α² + σ² = 1, for predictors of v."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zigzag.solvers.affine import AffineStep
from zigzag.solvers.grids import Coefficient, Grid, check_steps, descending, even, model_times
from zigzag.solvers.solver import Solver

__all__ = ["Spherical", "spherical_inverse", "spherical_step"]


def _spherical(phi_i: Coefficient, phi_j: Coefficient) -> AffineStep:
    delta = phi_i - phi_j
    if isinstance(delta, Tensor):
        return AffineStep(torch.cos(delta), -torch.sin(delta))
    return AffineStep(math.cos(delta), -math.sin(delta))


def spherical_step(x: Tensor, e: Tensor, phi_i: Coefficient, phi_j: Coefficient) -> Tensor:
    r"""A step along the circle from angle `φ_i` to `φ_j` (radians), with `e` the prediction `v = α·ε − σ·x₀`.

    .. math:: x_j = \cos\delta\,x_i - \sin\delta\,e, \qquad \delta = \phi_i - \phi_j

    Args:
        x, e: `(B, …)`.
        phi_i, phi_j: numbers or tensors `()` or `(B,)`, one time per sample, in [0, π/2]; π/2 is noise.

    Singular nowhere. Checks nothing, and differentiates through every argument.
    Source: Salimans & Ho 2022, Appendix D (DDIM in v, in angles).
    """
    return _spherical(phi_i, phi_j).forward(x, e)


def spherical_inverse(x: Tensor, e: Tensor, phi_i: Coefficient, phi_j: Coefficient) -> Tensor:
    r"""The exact inverse of `spherical_step` with the *same* arguments: from `x_j` back to `x_i`.

    .. math:: x_i = \frac{1}{\cos\delta}\,x_j + \tan\delta\,e

    It is *not* the step with its angles swapped: that has `cos δ` for `1/cos δ`, because `v` is bound to the angle
    it was predicted at (Z²-Sampling's eq. 22 makes that swap).

    Shapes and dtypes as in `spherical_step`. Singular at `δ = π/2`.
    """
    return _spherical(phi_i, phi_j).inverse(x, e)


class Spherical(Solver):
    r"""DDIM in v: `α = cos φ`, `σ = sin φ`, for a model that predicts `v = α·ε − σ·x₀`.

    .. math:: a = \cos\delta, \qquad b = -\sin\delta, \qquad \delta = \phi_i - \phi_j

    Args:
        angles: `(T + 1,)` radians, strictly descending within [0, π/2]; π/2 is pure noise, 0 is data.
        times: `(T,)`, what the model is told at knot `i < T`; by default φ.

    Only the step of a quarter turn, from π/2 to 0 at once, has no inverse.

    Raises:
        ValueError, TypeError: for grids that are short, out of range, not finite or not descending.

    Source: Salimans & Ho 2022, Appendix D.
    """

    prediction = "v"

    def __init__(self, angles: Grid, times: Grid | None = None) -> None:
        # A quarter turn that went through float32 may exceed π/2 by its rounding.
        phi = descending("angles", angles, math.pi / 2 + 1e-7, "pi/2")
        self.angles = phi
        self._phi: list[float] = phi.tolist()
        # cos(π/2) in floating point may fall a rounding below zero, which no α may.
        super().__init__(phi.cos().clamp_min(0), phi.sin(), phi[:-1] if times is None else model_times(times))

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        """`a = cos δ`, `b = −sin δ`."""
        return _spherical(self._phi[i], self._phi[j])

    @classmethod
    def cosine(cls, steps: int, *, phi_max: float = math.pi / 2) -> Spherical:
        r"""Evenly spaced angles from `phi_max` to 0: the cosine schedule `α = cos φ` of Nichol & Dhariwal 2021.

        Raises:
            ValueError: for steps below 1, or `phi_max` outside (0, π/2].
        """
        check_steps(steps)
        if not 0 < phi_max <= math.pi / 2:
            raise ValueError(f"phi_max must lie in (0, pi/2], got {phi_max}")
        return cls(even(phi_max, 0, steps + 1))
