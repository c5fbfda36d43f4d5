"""What an inversion scheme is held to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zigzag.inversion import invert, reconstruct
from zigzag.inversion.scheme import Scheme
from zigzag.solvers import Solver
from zigzag.testing.steps import near

__all__ = ["check_inversion"]


def check_inversion(scheme: Scheme, solver: Solver, *, guidance: float = 1.5, tol: float = 1e-6) -> None:
    """Holds a scheme to coming back: data inverted and reconstructed under the same guidance are the data, in float64.

    The model is one of bounded predictions that depend on state, time and condition. The rows of the report are those
    that ran; a second inversion of the same data is the same; and another prompt on the way down gives other data.

    Args:
        scheme: one of `zigzag.inversion`, or of one's own. solver: on whose grid.
        guidance: the scale of both ways. tol: how far the data may be off, of their size.

    Raises:
        AssertionError: for what does not hold. TypeError, ValueError: as `invert`, where it cannot run on the solver.
    """
    x0, c, u = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    asked: list[int] = []

    def model(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        asked.append(len(x))
        return 0.2 * torch.tanh(x + cond) + 0.1 * torch.cos(t.to(x.dtype))[:, None]

    def up() -> Any:
        generator = torch.Generator().manual_seed(1)
        return invert(model, x0, solver, scheme, cond=c, uncond=u, guidance=guidance, generator=generator)

    found, says = up(), f"{scheme!r} on {solver!r}"
    if sum(asked) != found.report.rows * len(x0):
        raise AssertionError(f"{says}: {sum(asked) / len(x0):g} rows ran, but its report has {found.report.rows}")
    if not all(map(torch.equal, up().states, found.states)):
        raise AssertionError(f"{says}: the same data are inverted to something else by the same noise")
    back = reconstruct(model, found, solver, cond=c, uncond=u, guidance=guidance)
    near(back, x0, tol * (1 + x0.abs()), f"{says} does not come back to the data")
    edited = reconstruct(model, found, solver, cond=c + 1, uncond=u, guidance=guidance)
    if torch.equal(edited, back):
        raise AssertionError(f"{says}: another prompt on the way down changes nothing")
