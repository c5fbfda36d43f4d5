"""What an inversion reports and holds."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from support.inversions import DDIM5, EVERY, OPTIONS, every, inverted_by, seed
from support.predictors import field
from support.sampling import COND, UNCOND, X
from zigzag import DDIM
from zigzag.inversion import (
    EDICT,
    OBELM,
    FixedPoint,
    Recorded,
    Rex,
    Scheme,
    ending_above,
    fresh,
    invert,
    reconstruct,
)
from zigzag.solvers import Solver

# The report.


@every
@pytest.mark.parametrize("batched", [True, False])
def test_rows_are_those_that_the_model_ran(scheme: Scheme, solver: Solver, batched: bool) -> None:
    rows = 0

    def counted(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        nonlocal rows
        rows += len(x)
        return field(x, t, cond)

    inverted = invert(counted, X, solver, scheme, **OPTIONS, guidance=2.0, batched=batched, generator=seed())
    assert inverted.report is not None
    assert inverted.report.rows * len(X) == rows


@pytest.mark.parametrize(
    ("scheme", "solver", "calls"),
    [(EDICT(), DDIM5, 10), (OBELM(), DDIM5, 5), (Rex(), ending_above(DDIM5), 8), (Recorded(), DDIM5, 10)],
)
def test_the_rows_of_the_exact_schemes(scheme: Scheme, solver: Solver, calls: int) -> None:
    """Two evaluations a step of EDICT and Rex, one of O-BELM: of one row, or of two with two branches."""
    for w, branches in ((1.0, 1), (0.0, 1), (2.0, 2)):
        report = inverted_by(scheme, solver, guidance=w).report
        assert report is not None and report.rows == calls * branches


@every
def test_the_round_trip_is_what_reconstruct_misses(scheme: Scheme, solver: Solver) -> None:
    inverted = inverted_by(scheme, solver, round_trip=True)
    back = reconstruct(field, inverted, solver, guidance=2.0, **OPTIONS)
    assert inverted.report is not None and inverted.report.round_trip is not None
    missed = (back - X).norm(dim=1) / X.norm(dim=1)
    torch.testing.assert_close(inverted.report.round_trip, missed, rtol=1e-9, atol=0)
    without = inverted_by(scheme, solver).report
    assert without is not None and without.round_trip is None
    assert without.rows == inverted.report.rows


@every
def test_the_deviation_is_that_of_the_noise(scheme: Scheme, solver: Solver) -> None:
    inverted = inverted_by(scheme, solver)
    assert inverted.report is not None
    expected = inverted.noise.norm(dim=1) / X[0].numel() ** 0.5 / float(solver.sigmas[0])
    torch.testing.assert_close(inverted.report.deviation, expected)


def test_a_report_says_what_it_holds() -> None:
    for scheme, solver in EVERY.values():
        report = inverted_by(scheme, solver, round_trip=True).report
        said = str(report)
        assert report is not None and f"{report.rows} rows" in said and "round trip" in said
        assert ("growth of rounding" in said) == isinstance(scheme, EDICT | OBELM | Rex)
        assert ("2 of 2 converged" in said) == isinstance(scheme, FixedPoint)


@every
def test_gradients_are_recorded_on_request(scheme: Scheme, solver: Solver) -> None:
    x = X.clone().requires_grad_()
    assert not inverted_by(scheme, solver, x).noise.requires_grad
    inverted = inverted_by(scheme, solver, x, grad=True)
    back = reconstruct(field, inverted, solver, guidance=2.0, grad=True, **OPTIONS)
    (g,) = torch.autograd.grad(back.sum(), x)
    # The data come back, and so does their gradient: the round trip is the identity. (That of an iteration converges
    # behind the iterates, by as much as its tolerance leaves.)
    near = 1e-4 if isinstance(scheme, FixedPoint) else 1e-9
    torch.testing.assert_close(g, torch.ones_like(X), rtol=near, atol=near)


@every
def test_the_model_is_shown_the_dtype_of_the_data(scheme: Scheme, solver: Solver) -> None:
    shown = set()

    def noting(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        shown.add(x.dtype)
        return field(x, t, cond)

    scheme = FixedPoint(1e-3) if isinstance(scheme, FixedPoint) else scheme
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a model says in half precision need not converge
        inverted = invert(noting, X.half(), solver, scheme, **OPTIONS, generator=seed())
        wide = invert(noting, X.half(), solver, scheme, **OPTIONS, generator=seed(), dtype=torch.float64)
    assert inverted.noise.dtype == torch.float32 and wide.noise.dtype == torch.float64
    assert reconstruct(noting, inverted, solver, **OPTIONS).dtype == torch.float16
    assert shown == {torch.float16}


def test_a_wider_state_loses_less() -> None:
    """The same float32 data and model: carried in float64 the noise comes back to far below float32's rounding."""
    solver = DDIM.stable_diffusion(50)
    x = X.float()
    misses = []
    for dtype in (torch.float32, torch.float64):
        report = inverted_by(EDICT(), solver, x, dtype=dtype, round_trip=True).report
        assert report is not None and report.round_trip is not None
        misses.append(float(report.round_trip.max()))
    assert misses[1] < misses[0] / 100


# Fresh noise.


@pytest.mark.parametrize("name", ["EDICT", "OBELM", "Rex", "Rex, eta", "FixedPoint", "FixedPoint, 2M"])
def test_a_fresh_noise_is_sampled_and_found_again(name: str) -> None:
    """The same twice; by FixedPoint, whose way down is the solver's own, the data are inverted to that noise."""
    scheme, solver = EVERY[name]
    z = solver.noise((2, 3), generator=seed(), dtype=torch.float64)
    made = reconstruct(field, fresh(z, solver, scheme, generator=seed(1)), solver, **OPTIONS)
    again = reconstruct(field, fresh(z, solver, scheme, generator=seed(1)), solver, **OPTIONS)
    assert torch.equal(made, again)
    if isinstance(scheme, FixedPoint):
        found = invert(field, made, solver, scheme, **OPTIONS)
        torch.testing.assert_close(found.noise, z, rtol=1e-5, atol=1e-5)
    if name == "Rex, eta":
        other = reconstruct(field, fresh(z, solver, scheme, generator=seed(2)), solver, **OPTIONS)
        assert not torch.allclose(made, other)


def test_recorded_has_nothing_to_make_of_a_noise() -> None:
    with pytest.raises(ValueError, match=r"Recorded needs data to record; take zigzag\.sample"):
        fresh(X, DDIM5, Recorded())


def test_generators_make_a_sample_its_own() -> None:
    """A list of generators: what a sample's noise is does not depend on the batch."""
    for scheme, solver in (EVERY["Rex, eta"], EVERY["Recorded, independent"], EVERY["FixedPoint, eta"]):
        both = inverted_by(scheme, solver, generator=[seed(1), seed(2)])
        alone = inverted_by(scheme, solver, X[1:], cond=COND[1:], uncond=UNCOND[1:], generator=[seed(2)])
        torch.testing.assert_close(alone.noise[0], both.noise[1], rtol=1e-6, atol=1e-7)


def test_an_inversion_moves_to_a_device() -> None:
    for scheme, solver in EVERY.values():
        moved = inverted_by(scheme, solver).to("meta")
        tensors = [*moved.states, *(t for t in (moved.residuals, moved.noises) if t is not None)]
        assert {t.device.type for t in tensors} == {"meta"}
