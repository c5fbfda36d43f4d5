"""Rules, methods, solvers and samplers of one's own are evaluated as those of the package are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("scipy")
from support.evaluations import asked, moody
from zigzag import (
    APG,
    CFG,
    CFGZeroStar,
    Denoise,
    FlowEuler,
    Interval,
    Invert,
    RescaledCFG,
    Standard,
    StepInfo,
    Trace,
    ZSampling,
)
from zigzag.evaluation.accuracy import noise
from zigzag.evaluation.compare import lines
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.guidance import Guidance
from zigzag.solvers import DPMSolver, Solver
from zigzag.zoo.learned import LearnedModel

T = 3
TRIAL = Trial(6)
TEXTS, X = ["a red circle", "two blue squares"], noise("position", 0, 2, seed=1)


@dataclass
class Early:
    """Both branches above a time, the conditional alone below it; with equality, and so without a hash."""

    above: float

    def branches(self, step: StepInfo) -> tuple[bool, bool]:
        return True, step.t > self.above

    def __call__(self, e_c: Tensor | None, e_u: Tensor | None, step: StepInfo) -> Tensor:
        assert e_c is not None
        return e_c if e_u is None else 3 * e_c - 2 * e_u


def run(folder: Path, sampler: Sampler) -> tuple[int, set[float]]:
    """The rows that ran, and those that the verdicts say."""
    model = moody()
    found = Evaluation(model, folder).run([sampler], [TRIAL])[sampler]
    return asked(model), {v.rows for v in found.verdicts}


@pytest.mark.parametrize("method", [Standard(), ZSampling()], ids=str)
def test_a_rule_samples_what_its_scale_does(method: ZSampling) -> None:
    model, given = moody(), Sampler(method, T, CFG(2.0), CFG(0.5))
    trace = Trace()
    assert torch.equal(given.draw(model, TEXTS, X, trace=trace), Sampler(method, T, 2.0, 0.5).draw(model, TEXTS, X))
    assert given.rows() == trace.rows


def test_a_rule_without_a_hash_is_evaluated_and_its_rows_are_those_that_run(tmp_path: Path) -> None:
    """Of the times 1000, 667 and 333 one is above 700: two rows, and one row twice."""
    sampler = Sampler(Standard(), T, Early(700.0))
    assert hash(sampler) == hash(Sampler(Standard(), T, Early(700.0)))
    assert sampler.rows(moody().solver) == 4
    assert run(tmp_path, sampler) == (6 * 4, {4})
    assert run(tmp_path, replace(sampler, strong=Early(700.0))) == (0, {4})
    assert run(tmp_path, replace(sampler, strong=Early(300.0))) == (6 * 6, {6})


def test_rules_that_read_the_state_are_evaluated_with_the_rows_that_run(tmp_path: Path) -> None:
    """At the first step CFG-Zero* needs none, and a zigzag's inversion there those of the weak rule."""
    rules = APG(3.0, norm=2.0, momentum=-0.5), CFGZeroStar(0.5)
    for sampler in (
        Sampler(Standard(), T, rules[1]),
        Sampler(ZSampling(), T, *rules),
        Sampler(Standard(), T, rules[0]),
    ):
        rows = sampler.rows(moody().solver)
        assert run(tmp_path, sampler) == (6 * rows, {rows})
        assert run(tmp_path, sampler) == (0, {rows})


class Twice:
    """Zigzags, while fewer than so many rows have run: steered by its walk."""

    def __init__(self, most: int) -> None:
        self.most = most

    def steer(self, T: int) -> Any:
        for i in range(T):
            visit = yield Denoise(i, i + 1)
            if visit.rows < self.most:
                yield Invert(i + 1, i)
                yield Denoise(i, i + 1)


def test_a_method_that_is_steered_is_evaluated_with_the_rows_that_ran(tmp_path: Path) -> None:
    """Every step zigzags, and the first alone; each is kept by what it holds."""
    every, first = (Sampler(Twice(most), T, 2.0) for most in (100, 3))
    assert run(tmp_path, every) == (6 * 15, {15}) and run(tmp_path, every) == (0, {15})
    assert run(tmp_path, first) == (6 * 9, {9})
    assert baselines(every) == {} and len(lines([every.method], T, 2.0)) == 2
    model = moody()
    same = replace(every, method=ZSampling(steps=T))
    assert torch.equal(every.draw(model, TEXTS, X), same.draw(model, TEXTS, X))
    with pytest.raises(TypeError, match="rows are known when it has run"):
        every.rows()


def test_a_rule_that_is_not_linear_has_no_matched_scale() -> None:
    for rule in (RescaledCFG(3.0), Interval(RescaledCFG(3.0), 1)):
        found = baselines(Sampler(ZSampling(), T, rule))
        assert set(found) == {"same rows"}
    assert set(baselines(Sampler(ZSampling(), T, CFG(3.0)))) == {"matched scale", "same rows"}
    assert len({line.label for line in lines([ZSampling()], T, RescaledCFG(3.0))}) == 3


def scaled(by: float) -> Callable[[StepInfo], float]:
    def scale(step: StepInfo) -> float:
        return by * step.i

    return scale


def nonlinear(power: int) -> Guidance:
    """The same class by name, with other code."""
    if power == 2:

        class Rule:
            def branches(self, step: StepInfo) -> tuple[bool, bool]:
                return True, True

            def __call__(self, e_c: Tensor, e_u: Tensor, step: StepInfo) -> Tensor:
                return e_c + (e_c - e_u) ** 2

        return Rule()  # type: ignore[return-value]

    class Other:
        def branches(self, step: StepInfo) -> tuple[bool, bool]:
            return True, True

        def __call__(self, e_c: Tensor, e_u: Tensor, step: StepInfo) -> Tensor:
            return e_c + (e_c - e_u) ** 3

    Other.__name__, Other.__qualname__ = "Rule", "nonlinear.<locals>.Rule"
    return Other()  # type: ignore[return-value]


OTHERS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "a scale by another function of the same name": (lambda: CFG(scaled(1.0)), lambda: CFG(scaled(2.0))),
    "a rescaled one": (lambda: RescaledCFG(scaled(1.0)), lambda: RescaledCFG(scaled(2.0))),
    "other code": (lambda: nonlinear(2), lambda: nonlinear(3)),
    "another tensor": (lambda: with_state(torch.zeros(2)), lambda: with_state(torch.tensor([0.0, 1e-3]))),
    "inside an interval": (lambda: Interval(RescaledCFG(2.0)), lambda: Interval(RescaledCFG(3.0))),
}


def with_state(state: object) -> Guidance:
    rule = nonlinear(2)
    vars(rule)["state"] = state
    return rule


@pytest.mark.parametrize("name", OTHERS)
def test_a_rule_is_known_by_its_scales_or_by_its_state_and_code(name: str, tmp_path: Path) -> None:
    evaluation = Evaluation(moody(), tmp_path)

    def decides(make: Callable[[], object]) -> Any:
        return evaluation.head(Sampler(Standard(), T, make()))["decides"]  # type: ignore[arg-type]

    first, other = OTHERS[name]
    assert decides(first) == decides(first) != decides(other)
    assert json.loads(json.dumps(decides(first))) == decides(first)


def test_a_number_is_known_as_its_rule_is(tmp_path: Path) -> None:
    evaluation = Evaluation(moody(), tmp_path)
    rules = (2.0, CFG(2.0), Interval(CFG(2.0)))
    heads = [evaluation.head(Sampler(ZSampling(), T, rule))["decides"] for rule in rules]
    assert heads[0] == heads[1] == heads[2]


def test_a_rule_whose_state_cannot_be_told_is_refused_before_a_model_call(tmp_path: Path) -> None:
    model = moody()
    with pytest.raises(ValueError, match=r"strong=.*Rule.*cannot be evaluated: it holds .*generator"):
        Evaluation(model, tmp_path).run([Sampler(Standard(), T, with_state(k for k in range(3)))], [TRIAL])
    assert asked(model) == 0


@pytest.mark.parametrize("given", ["2", None, CFG, object()], ids=["text", "None", "class", "object"])
def test_what_is_no_rule_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="strong must be a number or a Guidance"):
        Sampler(Standard(), T, given)


def second_order(grid: Solver) -> Solver:
    return DPMSolver.on(grid, order=2)


def test_a_solver_is_a_name_a_function_or_itself(tmp_path: Path) -> None:
    named, model = Sampler(ZSampling(), T, 2.0, solver="2m"), moody()
    given = [replace(named, solver=s) for s in (second_order, second_order(model.solver(T)))]
    images = named.draw(model, TEXTS, X)
    heads = [Evaluation(model, tmp_path).head(s, TRIAL)["decides"] for s in (named, *given)]
    assert heads[0] == heads[1] == heads[2]
    for sampler in given:
        assert torch.equal(sampler.draw(model, TEXTS, X), images) and sampler.rows(model.solver) == named.rows()
    assert set(baselines(given[1])) == {"matched scale"}


@pytest.mark.parametrize("solver", [FlowEuler.uniform(T + 1), lambda grid: grid.alphas, 3])
def test_what_is_no_solver_of_the_model_is_refused_before_a_model_call(solver: Any, tmp_path: Path) -> None:
    model = moody()
    with pytest.raises((ValueError, TypeError), match="solver must"):
        Evaluation(model, tmp_path).run([Sampler(Standard(), T, 2.0, solver=solver)], [TRIAL])
    assert asked(model) == 0


class Euler(Sampler):
    """A loop of one's own, which knows nothing of a trace."""

    def draw(
        self,
        model: LearnedModel,
        prompts: Sequence[str],
        x: Tensor,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> Tensor:
        cond, solver = model.encode(prompts), self.solver_of(model)
        for i in range(self.steps):
            x = solver.step(i).forward(x, model.eps_fn(x, solver.times[i].expand(len(x)), cond))
        return model.decode(x)


def test_the_rows_of_a_sampler_of_ones_own_are_the_calls_it_made(tmp_path: Path) -> None:
    assert run(tmp_path, Euler(Standard(), T, 2.0)) == (6 * T, {T})
    assert run(tmp_path, Sampler(Standard(), T, 2.0)) == (6 * 2 * T, {2 * T})
