"""Methods that are steered by their walk, in samplers of k-diffusion's signature."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from denoisers import SIGMAS, Denoiser, Guided, T, X, extra, published, run

from support.steered import Led, UntilItTurns
from zigzag import (
    Denoise,
    EndToEnd,
    ImplicitZ,
    Invert,
    Resampling,
    Shift,
    Standard,
    Tol,
    Trace,
    Z2Sampling,
    ZSampling,
)
from zigzag.adapters.k_diffusion import sampler
from zigzag.solvers import DPMSolver

METHODS = [Standard(), Resampling(steps=2), EndToEnd(), ZSampling(refine=1), ImplicitZ(), Z2Sampling(warmup=1)]


@pytest.mark.parametrize("options", [{}, {"eta": 0.6}, {"solver": DPMSolver.on}, {"rescale": False}], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_moves_handed_out_one_by_one_are_the_path_beforehand(method: Any, options: dict[str, Any]) -> None:
    """Bit for bit, with all that steps hold; the rows are those that ran, at every Denoise of both branches."""
    model, trace = Guided(), Trace()
    led = Led(method)
    assert torch.equal(run(model, led, trace=trace, **options), run(Guided(), method, trace=Trace(), **options))
    assert trace.rows == model.inner_model.rows == led.seen[-1].rows


@pytest.mark.parametrize("how", ["named", "placed", "two calls"])
def test_a_method_is_steered_as_sample_steers_it(how: str) -> None:
    """The same moves, chosen by the same gaps."""
    never = UntilItTurns(2.0)
    published(never)
    ours, theirs = UntilItTurns(never.between()), UntilItTurns(never.between())
    model = Guided(how)
    torch.testing.assert_close(run(model, ours), published(theirs), rtol=1e-9, atol=1e-9)
    assert [visit.move for visit in ours.seen] == [visit.move for visit in theirs.seen]
    assert ours.seen[-1].rows == model.inner_model.rows
    assert 4 < sum(isinstance(visit.move, Invert) for visit in ours.seen) < 12


def test_the_callback_follows_every_denoise() -> None:
    steps = []
    sampler(Led(ZSampling(steps=2)))(
        Guided(), X, SIGMAS, extra_args=extra(), callback=lambda given: steps.append(given["i"]), disable=True
    )
    assert steps == [0, 0, 1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("path", "error", "match", "rows"),
    [
        ((Denoise(1, 2),), ValueError, "a sampler of 5 steps begins at knot 0, but", 0),
        ((), ValueError, "from nowhere to nowhere", 0),
        ((Shift(0, False),), ValueError, "needs a cached gap", 0),
        ((Denoise(0, 1), Denoise(1, 3)), ValueError, "ends at knot 5, but the moves run from 0 to 3", 4),
        ((Denoise(0, 1), "up"), TypeError, "move 1 of the path must be", 2),
    ],
)
def test_errors_come_where_the_move_does(path: Any, error: type[Exception], match: str, rows: int) -> None:
    model = Guided()
    with pytest.raises(error, match=match):
        run(model, Led(path))
    assert model.inner_model.rows == rows


def test_what_any_path_may_need_is_asked_for_beforehand() -> None:
    """A branch for the weak prediction, and the input scale of the model."""
    model, alone = Denoiser(), extra()
    with pytest.raises(ValueError, match="has no 'uncond'"):
        run(model, Led(Standard()), {"cond": alone["cond"]})
    guided = Guided()
    guided.inner_model.get_scalings = None
    with pytest.raises(ValueError, match="no get_scalings"):
        run(guided, Led(Standard()))
    assert not model.calls and not guided.inner_model.calls


def test_inversions_that_did_not_converge_are_told_of() -> None:
    with pytest.warns(UserWarning, match=f"of {T - 1} inversions did not converge"):
        run(Guided(), Led(ZSampling(refine=Tol(1e-14, most=2))))
