"""The four moves against an interpreter written from the design's table, with a running rounding bound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zigzag import DDIM, FlowEuler, Spherical, sample, walk
from zigzag.moves import Denoise, Invert, Renoise, Shift

U = torch.finfo(torch.float64).eps
LIP = 0.3
T = 4
SOLVERS = {
    "ddim": DDIM.stable_diffusion(T),
    "karras": DDIM.karras(T, sigma_max=5.0),
    "flow": FlowEuler([1.0, 0.8, 0.45, 0.15, 0.0]),
    "spherical": Spherical([1.5, 1.2, 0.65, 0.25, 0.0]),
}
each_solver = pytest.mark.parametrize("name", list(SOLVERS))


def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """e(x, t, c) = 0.3 sin(x + c) + 0.1 c + 0.2 cos t: elementwise, Lipschitz constant 0.3."""
    c = cond[:, None].to(x.dtype)
    return LIP * torch.sin(x + c) + 0.1 * c + 0.2 * torch.cos(t.to(x.dtype))[:, None]


X = torch.linspace(-1.5, 1.5, 6, dtype=torch.float64).reshape(2, 3)
COND = torch.tensor([0.9, -0.4], dtype=torch.float64)
UNCOND = torch.tensor([0.2, 0.1], dtype=torch.float64)


def coefficients(solver: object, i: int, j: int) -> tuple[float, float, float, float]:
    """The table of docs/mathematics.md, and how far rounding can take each of the two numbers."""
    al, si = solver.alphas.tolist(), solver.sigmas.tolist()
    if isinstance(solver, DDIM):
        a = al[j] / al[i]
        b = si[j] - a * si[i]
    elif isinstance(solver, FlowEuler):
        a, b = 1.0, si[j] - si[i]
    else:
        delta = math.atan2(si[i], al[i]) - math.atan2(si[j], al[j])
        a, b = math.cos(delta), -math.sin(delta)
    return a, b, 8 * U * (1 + abs(a)), 8 * U * (1 + si[j] + abs(a) * si[i])


def size(x: torch.Tensor) -> float:
    return float(x.abs().max())


class Interpreter:
    """docs/mathematics.md, "Moves", in float64; carries a bound of the rounding error beside the state."""

    def __init__(self, solver: object, strong: float, weak: float) -> None:
        self.solver, self.strong, self.weak = solver, strong, weak

    def guided(self, x: torch.Tensor, err: float, i: int, w: float) -> tuple[torch.Tensor, float]:
        t = torch.full((x.shape[0],), float(self.solver.times[i]), dtype=x.dtype)
        e_c, e_u = field(x, t, COND), field(x, t, UNCOND)
        e = e_u + w * (e_c - e_u)
        spread = abs(w) + abs(1 - w)
        return e, LIP * spread * err + 8 * U * spread * (size(e_c) + size(e_u))

    def affine(
        self,
        x: torch.Tensor,
        err: float,
        e: torch.Tensor,
        e_err: float,
        ab: tuple[float, float, float, float],
    ) -> tuple[torch.Tensor, float]:
        a, b, da, db = ab
        rounding = 4 * U * (abs(a) * size(x) + abs(b) * size(e))
        return a * x + b * e, abs(a) * err + abs(b) * e_err + da * size(x) + db * size(e) + rounding

    def inverse(self, i: int, j: int) -> tuple[float, float, float, float]:
        a, b, da, db = coefficients(self.solver, i, j)
        return 1 / a, -b / a, da / a**2 + U, (db + abs(b / a) * da) / abs(a) + U

    def run(self, path: Iterable[object], x: torch.Tensor) -> list[tuple[torch.Tensor, float]]:
        err, gap, out = 0.0, None, []
        for move in path:
            if isinstance(move, Denoise):
                e, de = self.guided(x, err, move.i, self.strong)
                weak, dw = self.guided(x, err, move.i, self.weak)
                gap = (e - weak, de + dw + U * (size(e) + size(weak)))
                x, err = self.affine(x, err, e, de, coefficients(self.solver, move.i, move.j))
            elif isinstance(move, Invert):
                cd = self.inverse(*(move.coefficients or (move.i, move.j)))
                start, start_err = x, err
                for _ in range(1 + move.refine):
                    e, de = self.guided(x, err, move.i, self.weak)
                    x, err = self.affine(start, start_err, e, de, cd)
            elif isinstance(move, Shift):
                if move.fresh:
                    e, de = self.guided(x, err, move.i, self.strong)
                    weak, dw = self.guided(x, err, move.i, self.weak)
                    gap = (e - weak, de + dw + U * (size(e) + size(weak)))
                _, d, _, dd = self.inverse(move.i, move.i + 1)
                x, err = self.affine(x, err, gap[0], gap[1], (1.0, -d, 0.0, dd))
            out.append((x, err))
        return out


def states(path: tuple[object, ...], solver: object, strong: float, weak: float) -> list[torch.Tensor]:
    visits = walk(field, X, solver, path, cond=COND, uncond=UNCOND, strong=strong, weak=weak)
    return [visit.state for visit in visits]


def check_states(got: list[torch.Tensor], want: list[tuple[torch.Tensor, float]]) -> None:
    """Every state on the way is the interpreter's, within the rounding that the interpreter bounds."""
    assert len(got) == len(want)
    for x, (y, err) in zip(got, want, strict=True):
        assert x.shape == y.shape and size(x - y) <= err


@st.composite
def paths(draw: Callable[..., object]) -> tuple[object, ...]:
    """Any contiguous tuple of moves (Renoise apart), from any knot to any knot."""
    knot, cached, moves = draw(st.integers(0, T)), False, []
    for _ in range(draw(st.integers(1, 7))):
        kinds = (["denoise", "fresh"] if knot < T else []) + (["invert"] if knot > 0 else [])
        kinds += ["cached"] if knot < T and cached else []
        kind = draw(st.sampled_from(kinds))
        if kind == "denoise":
            moves.append(Denoise(knot, draw(st.integers(knot + 1, T))))
        elif kind == "invert":
            moves.append(Invert(knot, draw(st.integers(0, knot - 1)), refine=draw(st.integers(0, 2))))
        else:
            moves.append(Shift(knot, kind == "fresh"))
        cached = cached or kind in ("denoise", "fresh")
        knot = moves[-1].end
    return tuple(moves)


def move_rows(move: object, weak: float) -> int:
    """Rows of one move where the strong scale needs both branches."""
    if isinstance(move, Invert):
        return (1 if weak in (0.0, 1.0) else 2) * (1 + move.refine)
    return 0 if isinstance(move, Shift) and not move.fresh else 2


@each_solver
@given(path=paths(), strong=st.sampled_from([2.0, 5.5]), weak=st.sampled_from([0.0, 0.5, 1.0]))
def test_any_path_is_what_the_table_says(name: str, path: tuple[object, ...], strong: float, weak: float) -> None:
    """x_j = a x + b e_s; x_i = c x + d e_w; x~ = x + (b/a) gap: on every path from any knot to any knot."""
    solver = SOLVERS[name]
    check_states(states(path, solver, strong, weak), Interpreter(solver, strong, weak).run(path, X))


@given(path=paths(), weak=st.sampled_from([0.0, 0.5, 1.0]), batched=st.booleans())
def test_rows_of_any_path_are_the_counted_ones(path: tuple[object, ...], weak: float, batched: bool) -> None:
    """rows = sum over calls of the rows of the batch / B, after every move."""
    counted = 0

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        nonlocal counted
        counted += x.shape[0]
        return field(x, t, cond)

    want = 0
    visits = walk(fn, X, SOLVERS["flow"], path, cond=COND, uncond=UNCOND, weak=weak, batched=batched)
    for visit in visits:
        want += move_rows(visit.move, weak)
        assert visit.rows == want == counted / X.shape[0]


ZIGZAG = (Denoise(1, 2), Invert(2, 1), Denoise(1, 2))
MUTANTS = {
    "inverse of the neighbouring interval": (Denoise(1, 2), Invert(2, 1, coefficients=(2, 3)), Denoise(1, 2)),
    "refined inverse for the plain one": (Denoise(1, 2), Invert(2, 1, refine=1), Denoise(1, 2)),
    "shift for the zigzag": (Denoise(1, 2), Invert(2, 1), Shift(1, True)),
}


@each_solver
@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_the_check_fails_on_a_mutant_path(name: str, mutant: str) -> None:
    solver, reference = SOLVERS[name], Interpreter(SOLVERS[name], 5.5, 0.5)
    check_states(states(ZIGZAG, solver, 5.5, 0.5), reference.run(ZIGZAG, X))
    with pytest.raises(AssertionError):
        check_states(states(MUTANTS[mutant], solver, 5.5, 0.5), reference.run(ZIGZAG, X))


@each_solver
def test_the_check_fails_on_mutant_guidance_and_on_a_stale_gap(name: str) -> None:
    """gamma for w, the two scales exchanged, and a cached gap where a fresh one is asked for."""
    solver, reference = SOLVERS[name], Interpreter(SOLVERS[name], 5.5, 0.5)
    for strong, weak in [(6.5, 0.5), (5.5, 1.5), (0.5, 5.5)]:
        with pytest.raises(AssertionError):
            check_states(states(ZIGZAG, solver, strong, weak), reference.run(ZIGZAG, X))
    fresh, stale = ((Denoise(0, 1), Shift(1, flag), Denoise(1, 2)) for flag in (True, False))
    check_states(states(fresh, solver, 5.5, 0.5), reference.run(fresh, X))
    with pytest.raises(AssertionError):
        check_states(states(stale, solver, 5.5, 0.5), reference.run(fresh, X))


@each_solver
def test_released_coefficients_are_those_of_the_next_step(name: str) -> None:
    """x_i = c_{i+1} x_j + d_{i+1} e_w(x_j, t_i): only the coefficients move, the time does not."""
    solver, path = SOLVERS[name], (Denoise(1, 2), Invert(2, 1, coefficients=(2, 3)))
    check_states(states(path, solver, 3.0, 0.0), Interpreter(solver, 3.0, 0.0).run(path, X))


def check_times(path: tuple[object, ...], knots: list[int], name: str) -> None:
    seen: list[float] = []

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        seen.append(float(t[0]))
        return field(x, t, cond)

    sample(fn, X, SOLVERS[name], path, cond=COND, uncond=UNCOND, strong=0.0, weak=0.0)
    assert seen == [float(SOLVERS[name].times[i]) for i in knots]


@each_solver
def test_an_inversion_is_told_the_time_it_returns_to(name: str) -> None:
    """Paper eq. 4: Psi from knot j to knot i asks e_w(x, t_i), also on each refinement."""
    path = (Denoise(0, 1), Invert(1, 0, refine=2), Denoise(0, 2), Invert(2, 1), Shift(1, True), Denoise(1, 4))
    knots = [0, 0, 0, 0, 0, 1, 1, 1]
    check_times(path, knots, name)
    with pytest.raises(AssertionError):
        check_times(path, [0, 1, 1, 1, 0, 2, 1, 1], name)


@each_solver
def test_a_path_may_start_in_the_middle(name: str) -> None:
    """Image-to-image: x is the state at the first knot; two steps from knot 2 are the last two steps."""
    solver = SOLVERS[name]
    path = tuple(Denoise(i, i + 1) for i in range(T))
    whole = states(path, solver, 3.0, 0.0)
    half = sample(field, whole[1], solver, path[2:], cond=COND, uncond=UNCOND, strong=3.0)
    assert torch.equal(half, whole[-1])
    wrong = sample(field, whole[0], solver, path[2:], cond=COND, uncond=UNCOND, strong=3.0)
    assert not torch.equal(wrong, whole[-1])


@each_solver
def test_inverting_takes_a_path_from_the_last_knot_to_the_first(name: str) -> None:
    solver, path = SOLVERS[name], tuple(Invert(j, j - 1) for j in range(T, 0, -1))
    check_states(states(path, solver, 5.5, 0.0), Interpreter(solver, 5.5, 0.0).run(path, X))


def renoised(x: torch.Tensor, name: str, j: int, i: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return sample(field, x, SOLVERS[name], (Renoise(j, i),), cond=None, uncond=None, generator=rng)


def check_renoise(y: torch.Tensor, zero: torch.Tensor, x: torch.Tensor, name: str, j: int, i: int) -> None:
    """x_i = (alpha_i/alpha_j) x + sqrt(sigma_i^2 - (alpha_i/alpha_j)^2 sigma_j^2) z, z standard normal."""
    al, si = SOLVERS[name].alphas.tolist(), SOLVERS[name].sigmas.tolist()
    r = al[i] / al[j]
    std = math.sqrt(si[i] ** 2 - r**2 * si[j] ** 2)
    bound = 16 * U * (abs(r) * size(x) + 6 * (1 + abs(r)) * (si[i] + r * si[j]))
    assert size((y - zero) - r * x) <= bound
    z = zero / std
    n = z.numel()
    assert abs(float(z.mean())) < 5 / math.sqrt(n) and abs(float(z.var()) - 1) < 5 * math.sqrt(2 / n)


@each_solver
@pytest.mark.parametrize(("j", "i"), [(4, 0), (4, 3), (2, 1), (3, 1)])
def test_renoise_is_the_forward_process(name: str, j: int, i: int) -> None:
    x = torch.randn(40, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, zero = renoised(x, name, j, i), renoised(torch.zeros_like(x), name, j, i)
    check_renoise(y, zero, x, name, j, i)
    for mutant in [(y - 0.01 * x, zero), (y, 1.2 * zero), (x, torch.zeros_like(x))]:
        with pytest.raises(AssertionError):
            check_renoise(*mutant, x, name, j, i)


def test_moves_are_small_frozen_records() -> None:
    """start and end are the knots at which a move begins and ends; moves compare and hash by value."""
    ends = {Denoise(1, 2): (1, 2), Invert(2, 1): (2, 1), Shift(1, True): (1, 1), Renoise(3, 1): (3, 1)}
    for move, (start, end) in ends.items():
        assert (move.start, move.end) == (start, end)
        with pytest.raises(dataclasses.FrozenInstanceError):
            move.i = 0
    assert Invert(2, 1) == Invert(j=2, i=1, refine=0, coefficients=None) != Invert(2, 1, refine=1)
    assert Shift(1, fresh=True) != Shift(1, fresh=False) and Denoise(i=0, j=1) == Denoise(0, 1)
