"""Predictors, guidance and solvers that do not fit are found out before they sample something else."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import CFG, DDIM, FlowEuler, Spherical, Standard, StepInfo, Z2Sampling, ZSampling, sample
from zigzag.solvers import AffineStep, DPMSolver, Solver, adapt_prediction
from zigzag.zoo import GaussianMixture

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
C, U = torch.ones(2, 3, 4), torch.zeros(2, 3, 4)
calls: list[int] = []


def eps_fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    calls.append(1)
    return x * 0.1


def run(fn: Any = eps_fn, solver: Any = None, method: Any = None, **options: Any) -> Tensor:
    calls.clear()
    settings: dict[str, Any] = {"cond": C, "uncond": U, "strong": 2.0} | options
    return sample(fn, X, solver or DDIM.stable_diffusion(4), method or Standard(), **settings)


# A predictor on another grid --------------------------------------------------------------------------------------

MIXTURE = GaussianMixture(torch.zeros(2, 3, 4), 0.5)


def test_a_predictor_that_was_made_for_another_grid_is_refused_before_it_is_called() -> None:
    twelve, fifty = DDIM.stable_diffusion(12), DDIM.stable_diffusion(50, spacing="trailing")
    for fn in (adapt_prediction(eps_fn, twelve, "v"), MIXTURE.predictor(twelve)):
        run(fn, twelve, cond=None, strong=1.0)
        for solver in (fifty, DDIM.karras(12)):
            with pytest.raises(ValueError, match=r"was made for DDIM.*has no knot of time"):
                run(fn, solver, cond=None, strong=1.0)
            assert calls == []
    with pytest.raises(ValueError, match="weak_fn was made for"):
        run(eps_fn, fifty, ZSampling(), weak_fn=MIXTURE.predictor(twelve))


def test_the_same_knots_under_another_solver_are_the_same_grid() -> None:
    grid = DDIM.stable_diffusion(6)
    fn = adapt_prediction(eps_fn, grid, "v")
    for solver in (grid, DDIM.stable_diffusion(6), DPMSolver.on(grid), DDIM.stable_diffusion(6, eta=1)):
        run(fn, solver)
    part = DDIM(grid.alphas[2:], grid.sigmas[2:], grid.times[2:])  # image to image
    run(fn, part)


def test_a_predictor_of_another_kind_is_refused_before_it_is_called() -> None:
    for solver, other in ((FlowEuler.uniform(4), "epsilon"), (Spherical.cosine(4), "flow")):
        fn = adapt_prediction(eps_fn, {"epsilon": DDIM.karras(4), "flow": FlowEuler.uniform(4)}[other], other)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"eps_fn predicts '{other}', but .* wants"):
            run(fn, solver)
        assert calls == []


def test_the_learned_models_say_what_they_predict() -> None:
    pytest.importorskip("diffusers")
    from zigzag import zoo

    model = zoo.load("shapes-unet")
    x = torch.randn(1, *model.shape)
    with pytest.raises(ValueError, match="eps_fn predicts 'epsilon', but FlowEuler"):
        sample(model.eps_fn, x, FlowEuler.uniform(2), Standard(), cond=model.encode("a circle"), strong=1.0)


# Guidance -------------------------------------------------------------------------------------------------------


class Rule(CFG):
    """CFG that returns something else."""

    def __init__(self, wrong: Any, needed: Any = None) -> None:
        super().__init__(2.0)
        self.wrong, self.needed = wrong, needed

    def branches(self, step: StepInfo) -> Any:
        return self.needed or super().branches(step)

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Any:
        return self.wrong(super().__call__(e_c, e_u, step))


@pytest.mark.parametrize("wrong", [lambda e: e.mean(), lambda e: e[:1], lambda e: 1.0, lambda e: None], ids=range(4))
def test_a_rule_that_returns_another_shape_is_named_at_its_first_call(wrong: Any) -> None:
    for role in ("strong", "weak"):
        with pytest.raises(ValueError, match=r"CFG\(2\) must return a prediction of shape \(2, 3, 4\)"):
            run(method=ZSampling(), **{role: Rule(wrong)})
        assert len(calls) <= 2


@pytest.mark.parametrize("needed", [True, (True,), [True, True], (1, 0), "cond"], ids=str)
def test_branches_that_are_no_pair_of_bools_are_refused_before_a_model_call(needed: Any) -> None:
    with pytest.raises(TypeError, match=r"strong=CFG\(2\): branches\(\) must return two bools"):
        run(strong=Rule(lambda e: e, needed))
    assert calls == []


# Solvers --------------------------------------------------------------------------------------------------------


class Euler(Solver):
    """A user's own, of lists."""

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> AffineStep:
        return AffineStep(1.0, self.knots[1][j] - self.knots[1][i])


def test_a_solver_that_does_not_say_what_is_predicted_is_refused() -> None:
    for prediction in (None, "noise"):
        Euler.prediction = prediction  # type: ignore[assignment]
        with pytest.raises(ValueError, match=r"Euler\.prediction must be one of epsilon, x0, v, flow"):
            Euler([1.0, 1.0], [5.0, 0.0], [5.0])


def test_a_solver_of_lists_is_one_of_tensors() -> None:
    Euler.prediction = "epsilon"
    mine, theirs = Euler([1, 1, 1], [5.0, 2.0, 0.0], [5.0, 2.0]), DDIM([1, 1, 1], [5.0, 2.0, 0.0], [5.0, 2.0])
    assert torch.equal(run(solver=mine), run(solver=theirs))
    for bad in ("many", [1.0, float("nan"), 0.0], 3):
        with pytest.raises((TypeError, ValueError), match=r"Euler\.sigmas must be"):
            Euler([1, 1, 1], bad, [5.0, 2.0])  # type: ignore[arg-type]


# Hints ----------------------------------------------------------------------------------------------------------


def test_a_learned_variance_is_named_with_the_line_that_drops_it() -> None:
    for batched in (True, False):
        with pytest.raises(ValueError, match=r"must return the shape of x, .*return e\.chunk\(2, 1\)\[0\]") as error:
            run(lambda x, t, c: torch.cat([x, x], 1), batched=batched)
        assert ("doubled batch" in str(error.value)) == batched


def test_conditions_that_fall_back_to_two_calls_for_their_batch_say_so() -> None:
    c, u = torch.ones(1, 3, 4), torch.zeros(1, 3, 4)
    with pytest.warns(UserWarning, match=r"two calls: leaf 0 .* not the batch of 2"):
        run(cond=c, uncond=u)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run()
        run(cond=c, uncond=u, batched=False)
        run(cond={"a": 1}, uncond={"a": 2})
        run(cond=c, uncond=u, strong=1.0)
        run(method=Z2Sampling(1))
