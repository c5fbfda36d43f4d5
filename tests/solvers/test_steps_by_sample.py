"""Steps that differ by sample are the steps of each; what `coefficients` may not give is said before any model call."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.grids import spans
from support.held import SOLVERS, make
from support.refusals import refused
from support.tensors import assert_within, i64, noise
from zigzag import DDIM, AffineStep, FlowEuler, Solver, Standard, sample
from zigzag.solvers import DPMSolver

EPS = torch.finfo(torch.float64).eps


@given(spans(), st.data())
def test_a_step_of_tensors_is_a_loop_over_the_samples(span: Any, data: st.DataObject) -> None:
    grid, i, j = span
    solver, T = grid.solver, len(grid.solver)
    starts = data.draw(st.lists(st.integers(0, T - 1), min_size=1, max_size=4))
    ends = [data.draw(st.integers(k + 1, T)) for k in starts]
    x, e = noise(0, len(starts), 2, 3), noise(1, len(starts), 2, 3)
    for step, each in (
        (solver.step(i64(*starts), i64(*ends)), zip(starts, ends, strict=True)),
        (solver.step(i64(*starts)), ((k, k + 1) for k in starts)),
        (solver.step(i64(*starts).clamp(max=i), j), ((min(k, i), j) for k in starts)),
        (solver.step(i, i64(*ends).clamp(min=i + 1)), ((i, max(k, i + 1)) for k in ends)),
    ):
        single = [solver.step(*knots) for knots in each]
        forward = torch.stack([s.forward(x[k], e[k]) for k, s in enumerate(single)])
        inverse = torch.stack([s.inverse(x[k], e[k]) for k, s in enumerate(single)])
        assert_within(step.forward(x, e), forward, 4 * EPS * (forward.abs() + 1 + x.abs() * step_size(step.a)))
        assert_within(
            step.inverse(x, e), inverse, 16 * EPS * (inverse.abs() + x.abs() * step_size(step.c) + 8 * e.abs())
        )


def step_size(a: Any) -> torch.Tensor:
    return a.abs().reshape(-1, 1, 1)


@pytest.mark.parametrize("name", ["eta 1", "SDE-2M", "3M", "AB-3"])
def test_noise_and_the_first_order_come_with_a_step_of_tensors(name: str) -> None:
    solver = make(name)
    step, each = solver.step(i64(0, 2, 5)), [solver.step(k) for k in (0, 2, 5)]
    for k, single in enumerate(each):
        assert (float(step.a[k]), float(step.b[k])) == (single.a, single.b)
        assert (float(step.noise[k]) if step.noisy else 0.0) == single.noise
    assert step.noisy == any(s.noisy for s in each) and step.memory == ()


@pytest.mark.parametrize(("name", "order"), [("2M", 2), ("SDE-2M", 2), ("3M", 3), ("AB-3", 3)])
def test_what_is_remembered_comes_with_a_step_of_tensors(name: str, order: int) -> None:
    """A sample whose step has a lower order than another's remembers the rest by 0."""
    solver, starts = make(name), (3, 5, len(make(name)) - 1)
    each = [solver.step(k, remembered=(0, 1, 2)) for k in starts]
    step = solver.step(i64(*starts), remembered=(0, 1, 2))
    assert step.order == order == max(single.order for single in each)
    x, e, z = noise(0, 3, 2), noise(1, 3, 2), noise(2, 3, 2)
    earlier = [noise(3 + k, 3, 2) for k in range(order - 1)]
    r = step.remainder(earlier, z if step.noisy else None)
    for k, single in enumerate(each):
        own = single.remainder([m[k] for m in earlier[: single.order - 1]], z[k] if step.noisy else None)
        torch.testing.assert_close(step.forward(x, e, r)[k], single.forward(x[k], e[k], own), rtol=1e-12, atol=1e-12)


def test_what_is_remembered_is_told_from_noise_to_data() -> None:
    solver = make("3M")
    for told in ((2, 0), (1, 1), (0, 3), (0, 4)):
        with pytest.raises(ValueError, match="the step from knot 3 remembers noisier knots, from noise to data, got"):
            solver.step(3, remembered=told)


def test_the_coefficients_come_in_the_dtype_that_is_asked_for_on_the_device_of_the_knots() -> None:
    step = DDIM.stable_diffusion(8).step(torch.tensor([1, 2], dtype=torch.int32), dtype=torch.float32)
    assert step.a.dtype == step.b.dtype == torch.float32
    with pytest.raises(NotImplementedError, match="meta"):  # they are read on the host
        DDIM.stable_diffusion(8).step(torch.tensor([1], device="meta"))


@pytest.mark.parametrize(
    ("i", "j", "error", "match"),
    [
        (i64(0, 4), None, ValueError, "from knot 4 to 5"),
        (i64(-1, 0), None, ValueError, "from knot -1 to 0"),
        (i64(2, 1), i64(3, 1), ValueError, "from knot 1 to 1"),
        (torch.tensor([0.0, 1.0]), None, TypeError, "i must be integers"),
        (i64(0), torch.tensor([1.0]), TypeError, "j must be integers"),
        (i64(0, 1), i64(1, 2, 3), ValueError, r"\(2,\) and \(3,\)"),
        (torch.tensor(1), None, ValueError, r"must be \(B,\)"),
        (torch.tensor([True]), None, TypeError, "i must be integers"),
    ],
)
def test_knots_by_sample_that_the_grid_does_not_have(i: Any, j: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        FlowEuler.uniform(4).step(i, j)


class Own(FlowEuler):
    """A flow with a step of one's own."""

    def __init__(self, given: Any, memory: Any = 0) -> None:
        super().__init__([1.0, 0.75, 0.5, 0.25, 0.0])
        self.given, self.memory = given, memory

    def coefficients(self, i: int, j: int, remembered: tuple[int, ...]) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("given_", "memory", "error", "match"),
    [
        ((1.0, 0.5), 0, TypeError, "must return an AffineStep, got tuple"),
        (AffineStep(torch.tensor(1.0), 0.5), 0, TypeError, "host numbers"),
        (AffineStep(1.0, 0.5, (0.1,)), 1, ValueError, "reads 1 remembered predictions, but 0 are at hand"),
        (AffineStep(1.0, 0.5, (0.1, 0.2)), 1, ValueError, "reads 2 remembered"),
        (AffineStep(1.0, float("nan")), 0, ValueError, "must be finite"),
        (AffineStep(1.0, 0.5, noise=-0.1), 0, ValueError, "noise not negative"),
        (AffineStep(1.0, 0.5), -1, TypeError, "memory must be an integer"),
        (AffineStep(1.0, 0.5), None, TypeError, "memory must be an integer"),
    ],
)
def test_what_a_solver_of_ones_own_may_not_give_is_said_before_a_model_call(
    given_: Any, memory: Any, error: Any, match: str
) -> None:
    message = refused(match, error, solver=Own(given_, memory), method=Standard())
    assert "step 0 -> 1" in message


def test_a_solver_without_coefficients_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="coefficients"):
        Solver([0.5, 1.0], [0.5, 0.0], [1])  # type: ignore[abstract]


def test_all_solvers_of_the_library_give_what_they_may() -> None:
    for name in SOLVERS:
        solver = make(name)
        for i in range(len(solver)):
            assert isinstance(solver.step(i, None, range(i)), AffineStep)


def test_a_path_may_be_any_iterable_of_moves() -> None:
    class Lazily:
        def path(self, T: int) -> Any:
            yield from Standard().path(T)

    solver = DPMSolver.on(DDIM.stable_diffusion(6))
    x = solver.noise((2, 3), generator=torch.Generator().manual_seed(0))
    one, two = (sample(lambda x, t, c: x.sin(), x, solver, m, cond=None, strong=1.0) for m in (Lazily(), Standard()))
    assert torch.equal(one, two)
