"""Ancestral steps: the grid and path they become, their rows, and the distribution that they keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from zigzag import CFG, DDIM, EndToEnd, FlowEuler, Resampling, Standard, Z2Sampling, ZSampling, sample, walk
from zigzag.checks import resolve_path
from zigzag.evaluation.ancestral import ancestral, down_times
from zigzag.methods import Method
from zigzag.moves import Denoise, Invert, Move, Renoise
from zigzag.zoo import GaussianMixture
from zigzag.zoo.learned import noise_table

MEAN, STD = 0.7, 0.4
METHODS = [
    Standard(),
    ZSampling(),
    ZSampling(steps=3, rounds=2, span=2, refine=1),
    ZSampling(released=True),
    EndToEnd(),
    Resampling(),
]


def solver(steps: int, final: float = 1.0) -> DDIM:
    return DDIM.stable_diffusion(steps, spacing="trailing", final_alpha_cumprod=final)


def k(grid: DDIM) -> Tensor:
    return grid.sigmas / grid.alphas


def names(path: Sequence[Move]) -> str:
    return "".join(type(move).__name__[0] for move in path)


@pytest.mark.parametrize("steps", [2, 7, 20, 200])
def test_a_step_goes_down_to_where_unit_eta_says_and_up_to_the_knot_it_was_bound_for(steps: int) -> None:
    """k_down = k_{i+1}²/k_i to within the distance between two training times."""
    plain = solver(steps)
    grid, moves = ancestral(plain, Standard())
    alphas, sigmas = noise_table()
    log_k = (sigmas / alphas).log()
    for i in range(steps - 1):
        down, up = moves[2 * i], moves[2 * i + 1]
        assert isinstance(down, Denoise) and isinstance(up, Renoise)
        for knot, own in ((down.i, i), (up.i, i + 1)):
            assert grid.times[knot] == plain.times[own] and grid.alphas[knot] == plain.alphas[own]
        t = int(grid.times[down.j])
        wanted = float(2 * k(plain)[i + 1].log() - k(plain)[i].log())
        near = log_k[max(t - 1, 0) : t + 2]
        assert (log_k[t] - wanted).abs() <= (near - wanted).abs().min()
        assert t == 0 or near[0] < wanted < near[-1]
    assert moves[-1] == Denoise(moves[-2].end, len(grid)) and k(grid)[-1] == 0


def test_the_noise_added_is_that_of_euler_ancestral() -> None:
    """In x/α the fresh noise has variance k_{i+1}²(k_i² − k_{i+1}²)/k_i², as near as the training times allow."""
    plain = solver(20)
    grid, moves = ancestral(plain, Standard())
    ks, log_k = k(plain).tolist(), (noise_table()[1] / noise_table()[0]).log()
    for i, t in enumerate(down_times(plain)[:-1]):
        renoise = moves[2 * i + 1]
        assert isinstance(renoise, Renoise) and t is not None
        fresh = float(grid.noise_step(renoise.j, renoise.i).b) / float(grid.alphas[renoise.i])
        wanted = ks[i + 1] * math.sqrt(1 - (ks[i + 1] / ks[i]) ** 2)
        # k_up² = k_{i+1}² − k_down², and log k_down is off by half the distance of two training times at most.
        off = float(log_k[t + 1] - log_k[max(t - 1, 0)]) / 2
        assert abs(fresh**2 - wanted**2) <= (ks[i + 1] ** 2 / ks[i]) ** 2 * (math.exp(2 * off) - 1)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("steps", [5, 20, 1000])
def test_the_path_connects_from_noise_to_data_and_its_rows_are_those_of_the_method(method: Method, steps: int) -> None:
    plain = solver(steps)
    grid, moves = ancestral(plain, method)
    before = method.path(steps)
    assert resolve_path(moves, grid) == moves
    assert (moves[0].start, moves[-1].end) == (0, len(grid))
    # A move of the method that calls the model is one such move here, told the same time.
    told, told_before = (
        [(type(move), int(on.times[move.i])) for move in path if isinstance(move, Denoise | Invert)]
        for on, path in ((grid, moves), (plain, before))
    )
    assert told == told_before
    assert [m.refine for m in moves if isinstance(m, Invert)] == [m.refine for m in before if isinstance(m, Invert)]


def test_a_zigzag_comes_up_by_the_inverse_of_the_deterministic_step() -> None:
    plain = solver(4)
    grid, moves = ancestral(plain, ZSampling(steps=1))
    assert names(moves) == "DRIDRDRDRD"
    invert = moves[2]
    assert isinstance(invert, Invert)
    assert grid.step(invert.i, invert.j) == plain.step(0, 1)
    plain = solver(20)
    grid, moves = ancestral(plain, ZSampling(released=True, steps=18))
    inverts = [move for move in moves if isinstance(move, Invert)]
    assert len(inverts) == 18
    for i, invert in enumerate(inverts):
        assert invert.coefficients is not None
        assert grid.step(*invert.coefficients) == plain.step(i + 1, i + 2)


def test_counted_calls_are_those_of_the_deterministic_method() -> None:
    rows = {}
    mixture = GaussianMixture(torch.tensor([[MEAN], [-MEAN]]), STD)
    x, label, every = torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), torch.full((3,), -1)
    for name, (grid, moves) in {
        "plain": (solver(6), ZSampling().path(6)),
        "ancestral": ancestral(solver(6), ZSampling()),
    }.items():
        for visit in walk(mixture.predictor(grid), x, grid, moves, cond=label, uncond=every, strong=3.0, weak=0.0):
            rows[name] = visit.rows
    assert rows["plain"] == rows["ancestral"] == 6 * 2 + 5 * 3


def end_variance(grid: DDIM, moves: Sequence[Move], fresh: float = 1.0) -> float:
    """The variance at the end of a walk on N(·, STD²): each move is affine in the state and in fresh noise.

    The exact prediction is ε = (x − α·mean)·σ/(α²STD² + σ²). A mutant's noise has another variance than 1.
    """
    alphas, sigmas = grid.alphas.tolist(), grid.sigmas.tolist()
    v: float = (alphas[0] * STD) ** 2 + sigmas[0] ** 2
    for move in moves:
        if isinstance(move, Denoise):
            step, (alpha, sigma) = grid.step(move.i, move.j), (alphas[move.i], sigmas[move.i])
            slope = float(step.a) + float(step.b) * sigma / ((alpha * STD) ** 2 + sigma**2)
            v *= slope**2
        else:
            assert isinstance(move, Renoise)
            step = grid.noise_step(move.j, move.i)
            v = float(step.a) ** 2 * v + fresh * float(step.b) ** 2
    return v


def check_variance(fresh: float = 1.0) -> None:
    """The variance is that of the data in the limit of many steps."""
    errors = [abs(end_variance(*ancestral(solver(T), Standard()), fresh) / STD**2 - 1) for T in (10, 100, 1000)]
    assert errors[2] < 0.03  # there are no more training times
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3


def test_ancestral_sampling_of_a_gaussian_has_its_variance_in_the_limit_of_many_steps() -> None:
    check_variance()
    for mutant in (0.0, 0.9, 1.1):
        with pytest.raises(AssertionError):
            check_variance(mutant)


def test_a_walk_has_the_mean_and_variance_that_the_moves_say() -> None:
    """20,000 samples: within five standard errors."""
    n = 20_000
    grid, moves = ancestral(solver(20), Standard())
    mixture = GaussianMixture(torch.tensor([[MEAN]]), STD)
    generator = torch.Generator().manual_seed(0)
    x = float(grid.alphas[0]) * mixture.sample(n, generator=generator)
    x = x + float(grid.sigmas[0]) * torch.randn(n, 1, dtype=torch.float64, generator=generator)
    out = sample(mixture.predictor(grid), x, grid, moves, cond=None, strong=CFG(1.0), generator=generator)
    v = end_variance(grid, moves)
    assert abs(float(out.mean()) - MEAN) < 5 * math.sqrt(v / n)
    assert abs(float(out.var()) - v) < 5 * v * math.sqrt(2 / n)


def test_a_grid_that_ends_above_data_goes_no_lower_than_its_end() -> None:
    """The step from training time 3 to 1 goes down to time 0, which is this grid's last knot."""
    plain = DDIM.stable_diffusion(500, spacing="trailing")
    assert plain.times[-2:].tolist() == [3, 1] and down_times(plain)[-2:] == [0, None]
    grid, moves = ancestral(plain, Standard())
    T, p = len(grid), grid.times.tolist().index(3)
    assert grid.alphas[-1] == plain.alphas[-1] and 0 not in grid.times
    assert moves[-3:] == (Denoise(p, T), Renoise(T, T - 1), Denoise(T - 1, T))


def test_what_has_no_ancestral_steps_is_refused() -> None:
    with pytest.raises(TypeError, match="solver must be a DDIM, got FlowEuler"):
        ancestral(FlowEuler.uniform(4), Standard())  # type: ignore[arg-type]
    for other in (DDIM.karras(4), DDIM.stable_diffusion(4, beta_end=0.02)):
        with pytest.raises(ValueError, match="solver must be on Stable Diffusion's training times"):
            ancestral(other, Standard())
    with pytest.raises(TypeError, match="never shift, got Z2Sampling"):
        ancestral(solver(8), Z2Sampling())
