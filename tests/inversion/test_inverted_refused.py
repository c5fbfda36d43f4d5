"""What inversions are refused for, before the first model call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import make
from support.inversions import DDIM5, OPTIONS, inverted_by
from support.predictors import field, untouched
from support.sampling import COND, X
from zigzag import DDIM, FlowEuler, Spherical
from zigzag.inversion import (
    EDICT,
    OBELM,
    FixedPoint,
    Recorded,
    Rex,
    Scheme,
    ending_above,
    invert,
    reconstruct,
    telling_last,
)
from zigzag.solvers import Solver, adapt_prediction


def refused(match: str, error: type[Exception] = ValueError, **changed: Any) -> None:
    given: dict[str, Any] = {"eps_fn": untouched, "x0": X, "solver": DDIM5, "scheme": EDICT(), **OPTIONS} | changed
    positional = [given.pop(name) for name in ("eps_fn", "x0", "solver", "scheme")]
    with pytest.raises(error, match=match):
        invert(*positional, **given)


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"eps_fn": 3}, TypeError, "eps_fn must be callable, got 3"),
        ({"x0": [1.0]}, TypeError, "x must be a tensor"),
        ({"x0": X.long()}, TypeError, "x must be floating-point, got torch.int64"),
        ({"solver": "DDIM"}, TypeError, "solver must be a Solver such as DDIM, got 'DDIM'"),
        ({"scheme": "EDICT"}, TypeError, r"scheme must be one of zigzag.inversion, such as EDICT\(\), got 'EDICT'"),
        ({"scheme": EDICT}, TypeError, "scheme must be one of zigzag.inversion"),
        ({"guidance": "strong"}, TypeError, "guidance must be a number or a Guidance"),
        ({"batched": "yes"}, ValueError, "batched must be True, False or 'auto', got 'yes'"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator"),
        ({"accuracy": 0.0}, ValueError, "accuracy must be positive and finite, got 0.0"),
        ({"dtype": torch.float16}, ValueError, "dtype must be torch.float32 or torch.float64, no narrower than"),
        ({"dtype": torch.float32}, ValueError, "no narrower than torch.float64, got torch.float32"),
    ],
)
def test_arguments_that_do_not_fit(changed: dict[str, Any], error: type[Exception], match: str) -> None:
    refused(match, error, **changed)


def test_a_missing_condition_is_named_with_the_guidance_that_needs_it() -> None:
    says = r"uncond is missing but guidance=CFG\(3\) needs the unconditional branch at knot 0"
    with pytest.raises(ValueError, match=says):
        invert(untouched, X, DDIM5, EDICT(), cond=COND, guidance=3.0)


def test_a_guidance_with_state_is_refused() -> None:
    class Counting:
        def reset(self) -> None: ...
        def branches(self, step: object) -> tuple[bool, bool]:
            return True, False

        def __call__(self, e_c: Tensor, e_u: Tensor | None, step: object) -> Tensor:
            return e_c

    refused("has a state, and would guide the way back otherwise; take CFG", guidance=Counting())


@pytest.mark.parametrize("scheme", [EDICT(), OBELM(), Rex()])
def test_the_exact_schemes_want_one_step_and_one_evaluation(scheme: Scheme) -> None:
    def on(solver: Solver) -> Solver:
        return ending_above(solver) if isinstance(scheme, Rex) else solver

    name = type(scheme).__name__
    refused(f"{name} runs on one-step solvers, and .* remembers", scheme=scheme, solver=on(make("2M", "leading", 5)))
    refused("makes two", scheme=scheme, solver=on(make("Heun", "leading", 5)))
    if not isinstance(scheme, Rex):
        refused(
            f"{name} is deterministic, and .*eta=1.* adds noise; take Rex", scheme=scheme, solver=make("eta 1")
        )  # fmt: skip


def test_obelm_wants_a_first_order_solver() -> None:
    class Other(DDIM):
        def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> Any:
            step = super().coefficients(i, j, remembered)
            return type(step)(step.a, 1.1 * step.b)

    refused("OBELM is a solver of its own, .* the step 0 -> 1 of", scheme=OBELM(), solver=Other.stable_diffusion(5))


def test_a_grid_without_a_time_for_its_end_is_refused_for_rex_with_the_one_to_take() -> None:
    says = (
        r"Rex asks the model at the last knot, {}, for which .* has no time; take ending_above\(solver\), which ends "
    )
    data = says.format("clean data") + r"at knot 9 of it, where sigma is 0.1, or telling_last\(solver, time\)"
    refused(data, scheme=Rex(), solver=FlowEuler.uniform(10))
    refused(says.format("sigma 0.0292"), scheme=Rex())


def test_the_endings_are_checked() -> None:
    with pytest.raises(ValueError, match="a grid of one step has none to leave out"):
        ending_above(FlowEuler.uniform(1))
    with pytest.raises(ValueError, match="time must be finite, got nan"):
        telling_last(DDIM5, float("nan"))
    with pytest.raises(ValueError, match="time 1 is that of knot 4 of"):
        telling_last(DDIM5, 1)


def test_the_model_is_told_the_time_of_the_last_knot() -> None:
    """And at the others those of the grid, whole numbers where the grid's are; a guidance is asked for the step."""
    for solver, last in ((telling_last(DDIM5, 0), 0), (ending_above(DDIM5), int(DDIM5.times[-1]))):
        told: set[int] = set()

        def noting(x: Tensor, t: Tensor, cond: Tensor, told: set[int] = told) -> Tensor:
            assert t.dtype == torch.int64
            told.update(t.tolist())
            return field(x, t, cond)

        invert(noting, X, solver, Rex(), cond=COND)
        assert told == {*solver.times.tolist(), last}
    flow = telling_last(FlowEuler.uniform(4), 0.0)
    assert flow.told_times("cpu", torch.float64).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert "as far as knot 4, told 0 there" in repr(flow)
    assert telling_last(DDIM5, 0.5).times.is_floating_point()


def test_a_predictor_that_finds_its_level_by_the_time_has_to_know_the_last_one() -> None:
    adapted = adapt_prediction(untouched, DDIM5, "v")
    says = r"finds no level sigma 0.029.* by the time 0 of the last knot of .*; take ending_above\(solver\)"
    refused(says, eps_fn=adapted, scheme=Rex(), solver=telling_last(DDIM5, 0))
    inverted = invert(adapt_prediction(field, DDIM5, "v"), X, ending_above(DDIM5), Rex(), cond=COND)
    assert inverted.report is not None and inverted.report.rows == 8


def test_a_predictor_of_something_else_is_refused() -> None:
    refused("eps_fn predicts 'epsilon', but FlowEuler", eps_fn=adapt_prediction(untouched, DDIM5, "v"),
            solver=FlowEuler.uniform(5))  # fmt: skip


def test_zero_terminal_snr_has_no_step_for_epsilon_and_one_for_v() -> None:
    alphas, sigmas = [0.0, 0.6, 1.0], [1.0, 0.8, 0.0]
    for scheme in (EDICT(), OBELM(), FixedPoint(), Recorded()):
        refused("has no step from knot 0 to 1: alpha is 0", scheme=scheme, solver=DDIM(alphas, sigmas, [2, 1]))
    half = Spherical([torch.pi / 2, 0.0])
    refused("from knot 0 to 1 has no inverse", scheme=EDICT(), solver=half)
    report = inverted_by(OBELM(), Spherical.cosine(4)).report
    assert report is not None and report.rows == 8


def test_a_dtype_that_would_lose_what_is_asked_for_is_refused_with_one_that_would_do() -> None:
    karras = DDIM.karras(50)
    says = (
        r"OBELM\(\) multiplies rounding by .* on DDIM\(T=50, prediction='epsilon'\), to .* in torch.float32, but "
        r"accuracy=0.01 is asked for; dtype=torch.float64 would do"
    )
    refused(says, x0=X.float(), scheme=OBELM(), solver=karras)
    invert(field, X.float(), karras, OBELM(), **OPTIONS, dtype=torch.float64)
    says = "no dtype would do: take fewer or more even steps, or another scheme"
    refused(says, scheme=OBELM(), solver=karras, accuracy=1e-13)
    refused(says, scheme=EDICT(0.5), solver=DDIM.stable_diffusion(50))
    refused("tol=1e-07 is below what rounding leaves in torch.float32, .*; dtype=torch.float64 would do",
            x0=X.float(), scheme=FixedPoint(1e-7))  # fmt: skip
    refused("no dtype would do: ask for less", scheme=FixedPoint(1e-16))


def test_reconstruct_wants_the_solver_of_the_inversion() -> None:
    inverted = inverted_by(EDICT(), DDIM5)

    def says(match: str, solver: Solver, error: type[Exception] = ValueError, given: Any = inverted) -> None:
        with pytest.raises(error, match=match):
            reconstruct(untouched, given, solver, **OPTIONS)

    says("the one is of 'epsilon', the other of 'flow'", FlowEuler.uniform(5))
    says("the one has 5 steps, the other 6", DDIM.stable_diffusion(6))
    says("alphas at knot 5 is .* and 1.0", DDIM.stable_diffusion(5, final_alpha_cumprod=1.0))
    moved = DDIM(DDIM5.alphas, DDIM5.sigmas, DDIM5.times + 1)
    says(r"times at knot 0 is 801.0 and 802.0", moved)
    rex = inverted_by(Rex(), ending_above(DDIM.stable_diffusion(6, eta=0.5)))
    says("the step from knot 0 is", ending_above(DDIM.stable_diffusion(6, eta=0.6)), given=rex)
    says(r"inverted must be what invert\(\) gave, got Tensor", DDIM5, TypeError, X)
    says("solver must be a Solver", "DDIM", TypeError)  # type: ignore[arg-type]
