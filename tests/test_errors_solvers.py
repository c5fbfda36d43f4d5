"""What is said of grids and on steps without an inverse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch

from support.predictors import untouched
from support.refusals import FLOW, C, T, U, X, refused
from zigzag import DDIM, FlowEuler, Spherical, Standard, ZSampling, sample
from zigzag.moves import Denoise, Invert, Shift

# Grids --------------------------------------------------------------------------------------------

GRIDS: list[tuple[str, Callable[[], object]]] = [
    ("sigma", lambda: FlowEuler([1.0, 0.4, 0.6, 0.0])),
    ("sigma", lambda: FlowEuler([0.0, 0.5, 1.0])),
    ("sigma", lambda: FlowEuler([1.0, 0.5, 0.5, 0.0])),
    ("sigma", lambda: FlowEuler([1.0])),
    ("sigma", lambda: FlowEuler([])),
    ("angle", lambda: Spherical([1.0, 0.4, 0.6, 0.0])),
    ("angle", lambda: Spherical([0.0, 1.0])),
    ("angle", lambda: Spherical([1.0])),
    ("alpha|sigma", lambda: DDIM([0.3, 0.9, 0.6], [0.9, 0.2, 0.7], [2, 1])),
    ("alpha|sigma", lambda: DDIM([0.9, 0.6, 0.3], [0.2, 0.7, 0.9], [1, 2])),
    ("alpha|sigma", lambda: DDIM([1.0], [0.5], [])),
    ("alpha|sigma", lambda: DDIM([0.5, 1.0], [0.5, 0.2, 0.0], [2, 1])),
    ("times", lambda: DDIM([0.3, 0.6, 0.9], [0.9, 0.7, 0.2], [3, 2, 1])),
    ("times", lambda: FlowEuler([1.0, 0.5, 0.0], times=[1.0])),
    ("steps", lambda: FlowEuler.uniform(0)),
    ("steps", lambda: Spherical.cosine(0)),
    ("steps", lambda: DDIM.stable_diffusion(0)),
    ("steps", lambda: DDIM.karras(0)),
    ("spacing", lambda: DDIM.stable_diffusion(10, spacing="uniform")),
    ("sigma|finite", lambda: FlowEuler([1.0, math.nan, 0.0])),
]


@pytest.mark.parametrize(("match", "make"), GRIDS, ids=range(len(GRIDS)))
def test_a_grid_that_is_short_or_does_not_go_from_noise_to_data(match: str, make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "solver", [FLOW, DDIM.stable_diffusion(T), Spherical.cosine(T)], ids=["flow", "ddim", "spherical"]
)
@pytest.mark.parametrize(("i", "j"), [(-1, 0), (0, 0), (2, 1), (0, T + 1), (T, T + 1), (T, None)])
def test_a_step_that_the_grid_does_not_have(solver: object, i: int, j: int | None) -> None:
    for ask in (solver.step, solver.info):
        with pytest.raises(ValueError, match=r"knot|step"):
            ask(i, j)


# Steps without an inverse -------------------------------------------------------------------------

QUARTER = Spherical([math.pi / 2, math.pi / 4, 0.0])


@pytest.mark.parametrize(
    "method",
    [
        (Denoise(0, 2), Invert(2, 0), Denoise(0, 2)),
        (Invert(2, 0),),
        (Denoise(0, 1), Invert(1, 0), Denoise(0, 1), Denoise(1, 2), Invert(2, 1), Denoise(1, 2), Invert(2, 0)),
    ],
    ids=range(3),
)
def test_a_path_that_inverts_what_has_no_inverse(method: tuple[object, ...]) -> None:
    """delta = pi/2 from knot 0 to knot 2: cos delta is 0 to rounding, |a| < 1e-12."""
    refused(r"\bknot 0 to 2\b.*inverse", solver=QUARTER, method=method)


def test_one_step_over_a_quarter_turn_can_be_denoised_and_neither_inverted_nor_shifted() -> None:
    solver = Spherical([math.pi / 2, 0.0])
    for method in [(Shift(0, True), Denoise(0, 1)), (Denoise(0, 1), Invert(1, 0))]:
        message = refused("knot", solver=solver, method=method)
        assert re.search(r"\b0\b", message)
    v = torch.ones_like(X)
    x = sample(lambda x, t, c: v, X, solver, Standard(), cond=C, strong=1.0)
    torch.testing.assert_close(x, -v, rtol=0, atol=4 * torch.finfo(torch.float32).eps)


def test_zero_terminal_snr_with_epsilon_is_said_with_the_knot() -> None:
    """alpha_0 = 0: a = alpha_1 / 0 is not finite; table or path, it is found before any model call."""
    solver = DDIM([0.0, 0.5, 1.0], [1.0, 0.8, 0.0], [2, 1])
    for method in (Standard(), ZSampling()):
        with pytest.raises(ValueError, match=r"\bknot 0 to 1\b.*\balpha\b"):
            sample(untouched, X, solver, method, cond=C, uncond=U)
    with pytest.raises(ValueError, match=r"\bknot 0 to 1\b.*\balpha\b"):
        solver.table()
