"""What a solver holds: knots, times, float64 tables, and the numbers of a step."""

from collections.abc import Callable

import pytest
import torch

from support.tensors import assert_within, f64
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical, StepInfo, StepTable

EPS = torch.finfo(torch.float64).eps


def solvers() -> dict[str, Solver]:
    """One of each, none with a step that has no inverse."""
    return {
        "sd": DDIM.stable_diffusion(10),
        "karras": DDIM.karras(8),
        "flow": FlowEuler.uniform(6, shift=3.0, time_scale=1000.0),
        "spherical": Spherical.cosine(5),
    }


every_solver = pytest.mark.parametrize("name", list(solvers()))

# What a solver holds ---------------------------------------------------------------------------------------


@every_solver
def test_a_solver_of_t_steps_holds_t_plus_one_knots_and_t_times_in_float64_on_the_host(name: str) -> None:
    solver = solvers()[name]
    steps = len(solver)
    assert solver.alphas.shape == solver.sigmas.shape == (steps + 1,)
    assert solver.times.shape == (steps,)
    assert solver.alphas.dtype == solver.sigmas.dtype == torch.float64
    assert solver.alphas.device.type == solver.sigmas.device.type == "cpu"
    assert solver.times.dtype == (torch.int64 if name == "sd" else torch.float64)
    assert solver.prediction == {"flow": "flow", "spherical": "v"}.get(name, "epsilon")


@every_solver
def test_noise_falls_from_knot_0_to_knot_t(name: str) -> None:
    """atan2(σ, α) falls strictly: knots go from noise to data."""
    solver = solvers()[name]
    assert (torch.atan2(solver.sigmas, solver.alphas).diff() < 0).all()


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_constructors_keep_their_numbers_in_float64(dtype: torch.dtype) -> None:
    values = torch.tensor([0.9, 0.5, 0.1], dtype=dtype)
    exact = values.double()
    assert torch.equal(FlowEuler(values).sigmas, exact)
    assert_within(FlowEuler(values).alphas, 1 - exact, EPS)
    assert_within(Spherical(values).alphas, exact.cos(), EPS)
    assert_within(Spherical(values).sigmas, exact.sin(), EPS)
    ddim = DDIM(1 - values, values, values[:-1])
    assert torch.equal(ddim.alphas, (1 - values).double()) and torch.equal(ddim.sigmas, exact)
    for solver in (FlowEuler(values), Spherical(values), ddim):
        assert solver.times.dtype == torch.float64
        assert torch.equal(solver.times, exact[:-1])


@pytest.mark.parametrize("build", [FlowEuler, Spherical], ids=["flow", "spherical"])
def test_times_default_to_sigma_or_phi_and_integer_times_stay_integers(build: Callable[..., Solver]) -> None:
    knots = f64(0.9, 0.5, 0.0)
    assert torch.equal(build(knots).times, knots[:-1])
    told = build(knots, torch.tensor([7, 3]))
    assert told.times.dtype == torch.int64 and told.times.tolist() == [7, 3]


def test_a_solver_is_not_changed_by_what_happens_to_the_tensor_it_was_built_from() -> None:
    sigmas = f64(0.9, 0.5, 0.0)
    solver = FlowEuler(sigmas)
    sigmas.zero_()
    assert solver.sigmas.tolist() == [0.9, 0.5, 0.0]
    assert solver.step(0).b == 0.5 - 0.9


@every_solver
def test_info_says_the_host_numbers_of_a_step(name: str) -> None:
    solver = solvers()[name]
    for i, j in ((0, 1), (1, 3), (0, len(solver)), (len(solver) - 1, len(solver))):
        alphas, sigmas = solver.alphas.tolist(), solver.sigmas.tolist()
        expected = (i, j, solver.times[i].item(), alphas[i], sigmas[i], alphas[j], sigmas[j])
        info = solver.info(i, j)
        assert isinstance(info, StepInfo)
        numbers = (info.i, info.j, info.t, info.alpha_i, info.sigma_i, info.alpha_j, info.sigma_j)
        assert numbers == expected
        assert all(isinstance(v, (int, float)) for v in numbers)
    assert solver.info(1) == solver.info(1, 2)
    assert solver.step(1) == solver.step(1, 2)


@every_solver
@pytest.mark.parametrize(("i", "j"), [(-1, 1), (0, 0), (2, 1), (0, 99), (99, 100)])
def test_a_step_outside_the_grid_or_upwards_is_refused(name: str, i: int, j: int) -> None:
    """0 <= i < j <= T, and no wrapping round of negative indices."""
    solver = solvers()[name]
    with pytest.raises(ValueError):
        solver.step(i, j)
    with pytest.raises(ValueError):
        solver.info(i, j)
    with pytest.raises(ValueError):
        solver.step(len(solver))


# Tables ----------------------------------------------------------------------------------------------------


def check_table(table: StepTable, solver: Solver, dtype: torch.dtype) -> None:
    """Row i of the table is step i -> i+1, rounded once from float64; times int64 stay so, others take the dtype."""
    for symbol in "abcd":
        column = getattr(table, symbol)
        exact = f64(*(getattr(solver.step(i), symbol) for i in range(len(solver))))
        assert column.dtype == dtype
        assert torch.equal(column, exact.to(dtype)), symbol
    times = solver.times if solver.times.dtype == torch.int64 else solver.times.to(dtype)
    assert table.times.dtype == times.dtype
    assert torch.equal(table.times, times)


@every_solver
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
def test_the_table_holds_the_steps_cast_once(name: str, dtype: torch.dtype) -> None:
    solver = solvers()[name]
    table = solver.table(torch.device("cpu"), dtype)
    assert all(getattr(table, s).dtype == dtype and getattr(table, s).shape == (len(solver),) for s in "abcd")
    assert table.times.shape == (len(solver),)
    check_table(table, solver, dtype)
    wrong = torch.float16 if table.times.is_floating_point() else dtype
    with pytest.raises(AssertionError):  # mutant: times of another dtype
        check_table(table._replace(times=table.times.to(wrong)), solver, dtype)


@every_solver
def test_the_table_is_float64_by_default(name: str) -> None:
    check_table(solvers()[name].table(), solvers()[name], torch.float64)


def test_the_table_check_refuses_the_neighbouring_step_and_a_table_computed_in_float32() -> None:
    solver = DDIM.stable_diffusion(10)
    t = solver.table()
    with pytest.raises(AssertionError):
        check_table(StepTable(t.a, t.b, t.c.roll(-1), t.d.roll(-1), t.times), solver, torch.float64)
    with pytest.raises(AssertionError):
        d = -t.b.float() / t.a.float()
        check_table(StepTable(t.a.float(), t.b.float(), 1 / t.a.float(), d, t.times), solver, torch.float32)


# alpha_sigma -----------------------------------------------------------------------------------------------


@every_solver
def test_alpha_sigma_finds_the_knot_of_a_model_time_per_sample(name: str) -> None:
    """In float64, for times as the predictor sees them: int64, or in the state's dtype (float32 here)."""
    solver = solvers()[name]
    rows = torch.tensor([len(solver) - 1, 0, 2, 2, 1])
    alpha, sigma = solver.alpha_sigma(solver.times[rows])
    assert alpha.dtype == sigma.dtype == torch.float64
    assert_within(alpha, solver.alphas[rows], 4 * EPS)
    assert_within(sigma, solver.sigmas[rows], 4 * EPS * solver.sigmas[rows].clamp_min(1))
    if solver.times.dtype == torch.float64:
        rounding = torch.finfo(torch.float32).eps
        alpha, sigma = solver.alpha_sigma(solver.times[rows].float())
        assert alpha.dtype == sigma.dtype == torch.float64
        assert_within(alpha, solver.alphas[rows], 2 * rounding)
        assert_within(sigma, solver.sigmas[rows], 2 * rounding * solver.sigmas[rows].clamp_min(1))
