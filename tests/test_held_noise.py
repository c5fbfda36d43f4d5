"""Noise is drawn once an interval, memory is kept as long as it is read, and neither a move longer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import STOCHASTIC, make
from support.predictors import field
from support.sampling import COND, UNCOND, X, seed
from zigzag import DDIM, EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling, sample, walk
from zigzag.checks import as_guidance
from zigzag.guided import Answer, Query
from zigzag.moves import Denoise, Invert, Renoise
from zigzag.paths import plan_path
from zigzag.roles import Role, Roles
from zigzag.sampling import traverse
from zigzag.solvers import LCM, DPMSolver, Solver

T = 6
ARGS: dict[str, Any] = {"cond": COND, "uncond": UNCOND, "strong": 2.0, "weak": 0.5}


# How often noise is drawn --------------------------------------------------------------------------------------------


def check_draws(path: Any, solver: Solver, count: int) -> None:
    """The generator stands where `count` draws like the state leave it."""
    used, other = seed(), seed()
    sample(field, X, solver, path, generator=used, **ARGS)
    for _ in range(count):
        torch.randn(X.shape, generator=other, dtype=X.dtype)
    assert torch.equal(used.get_state(), other.get_state())


DRAWS: dict[str, tuple[Any, int]] = {  # onto clean data nothing is added: T − 1 intervals have noise
    "standard": (Standard(), T - 1),
    "Z": (ZSampling(), T - 1),
    "Z, span 3, rounds 2": (ZSampling(span=3, rounds=2, refine=1), T - 1),
    "end to end": (EndToEnd(), T - 1),
    "implicit": (ImplicitZ(), T - 1),
    "Z2": (Z2Sampling(warmup=1), T - 1),
    "resampling": (Resampling(), 3 * (T - 1)),  # Φ, Renoise, Φ with noise of its own
    "two ways over two knots": ((Denoise(0, 2), Invert(2, 0), Denoise(0, 1), Denoise(1, 2)), 3),
    "up from data": (tuple(Invert(k + 1, k) for k in reversed(range(T))), T - 1),
    "a Renoise from far": ((Denoise(0, 1), Denoise(1, 2), Denoise(2, 3), Renoise(3, 1), Denoise(1, 2)), 3 + 1 + 1),
    "above a Renoise": ((Denoise(0, 1), Denoise(1, 2), Renoise(2, 1), Invert(1, 0), Denoise(0, 1)), 2 + 1),
}


@pytest.mark.parametrize("case", DRAWS)
@pytest.mark.parametrize("name", ["eta 1", "DDPM, large", "SDE-2M", "LCM", "TCD"])
def test_the_noise_of_an_interval_is_drawn_once(name: str, case: str) -> None:
    """Whatever goes down and up over it, until a Renoise to its knot or above forgets it."""
    path, count = DRAWS[case]
    check_draws(path, make(name, "karras", T), count)
    for mutant in (count - 1, count + 1):
        with pytest.raises(AssertionError):
            check_draws(path, make(name, "karras", T), mutant)


@pytest.mark.parametrize("name", ["2M", "3M", "DEIS-3", "AB-4", "DPM-1", "Heun"])
def test_a_solver_without_noise_draws_none(name: str) -> None:
    check_draws(ZSampling(span=2), make(name, "karras", T), 0)


FRESH: dict[str, Callable[[], Solver]] = {
    "eta 1": lambda: DDIM.karras(T, eta=1.0, fresh_noise=True),
    "SDE-2M": lambda: DPMSolver.on(DDIM.karras(T), sde=True, fresh_noise=True),
    "LCM": lambda: LCM.on(DDIM.karras(T), fresh_noise=True),
}


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize(
    ("path", "count"),
    [
        (Standard(), T - 1),  # each Denoise leaves for good, with the only noise there is
        (ZSampling(), 2 * (T - 1)),  # the last interval has neither noise nor a zigzag
        (ZSampling(rounds=3), 2 * (T - 1)),  # the rounds between hold theirs
        (ZSampling(steps=1, span=2), 2 + (T - 1)),
        (EndToEnd(), 2 * (T - 1)),
        (Z2Sampling(warmup=1), T - 1),
        ((Denoise(0, 1), Invert(1, 0), Denoise(0, 1), Invert(1, 0)), 1),  # it never leaves for good
        # Knot 0 is left for good although its interval is entered again from below: (0, 2) twice, and (1, 2) twice.
        ((Denoise(0, 2), Invert(2, 0), Denoise(0, 2), Invert(2, 1), Denoise(1, 2)), 4),
    ],
    ids=str,
)
def test_fresh_noise_is_for_the_denoise_that_leaves_its_knot_for_good(name: str, path: Any, count: int) -> None:
    check_draws(path, FRESH[name](), count)


def test_fresh_noise_takes_the_place_of_what_the_interval_held() -> None:
    """Without a gap: Φ z, Ψ z, Φ z' ends where a plain Φ with the second draw does."""
    solver, path = FRESH["eta 1"](), (Denoise(0, 1), Invert(1, 0), Denoise(0, 1))

    def steady(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return cond[:, None].expand_as(x)

    args = ARGS | {"weak": 2.0}
    got = sample(steady, X, solver, path, generator=seed(), **args)
    later = seed()
    first = sample(steady, X, solver, path[:1], generator=later, **args)
    want = sample(steady, X, solver, path[:1], generator=later, **args)
    torch.testing.assert_close(got, want, rtol=0, atol=64 * torch.finfo(X.dtype).eps * 80)
    assert not torch.allclose(got, first)


def test_the_same_generator_gives_the_same_bits_and_another_another_sample() -> None:
    for name in STOCHASTIC:
        one, two, other = (
            sample(field, X, make(name, "karras", T), ZSampling(span=2), generator=seed(n), **ARGS) for n in (0, 0, 1)
        )
        assert torch.equal(one, two) and not torch.allclose(one, other), name


# How long anything is kept -------------------------------------------------------------------------------------------


class Watched:
    """A walk whose remembered tensors and noises are counted as long as they live."""

    def __init__(self, solver: Solver) -> None:
        self.solver, self.living = solver, weakref.WeakSet[Tensor]()
        plain = solver.remember
        solver.remember = lambda *args: self.watch(plain(*args).clone())  # type: ignore[method-assign]

    def watch(self, x: Tensor) -> Tensor:
        self.living.add(x)
        return x

    def counts(self, method: Any, **mutant: Any) -> list[int]:
        """How many are held at each evaluation, and after the last move."""
        path, steps = plan_path(method, self.solver)
        steps = [held._replace(**mutant) for held in steps]
        draw = lambda x, interval: self.watch(torch.randn_like(x))  # noqa: E731
        strong, weak = Role("strong", as_guidance("strong", 2.0)), Role("weak", as_guidance("weak", 0.5))
        moves, held = traverse(path, steps, X, self.solver, Roles(strong, weak, strong), draw), []
        answer: Any = None
        while True:
            try:
                message = moves.send(answer)
            except StopIteration:
                return [*held, len(self.living)]
            answer = None
            if isinstance(message, Query):
                held.append(len(self.living))
                answer = Answer({"cond": message.x.sin(), "uncond": message.x.cos()}, 2)
            del message


HELD: list[tuple[str, Any, list[int]]] = [
    ("2M", Standard(), [0, 1, 1, 1, 1, 1, 0]),
    ("3M", Standard(), [0, 1, 2, 2, 2, 2, 0]),
    ("AB-4", Standard(), [0, 1, 2, 3, 3, 3, 0]),
    ("DPM-1", Standard(), [0] * 7),
    ("eta 1", Standard(), [0] * 7),
    ("SDE-2M", Standard(), [0, 1, 1, 1, 1, 1, 0]),
    ("2M, lower at the end", Standard(), [0, 1, 1, 1, 1, 0, 0]),  # its last step reads nothing
    # Φ Ψ Φ at step 0: m_0 is not read before it is left again; from step 1 on m_{i−1} is.
    ("2M", ZSampling(steps=2), [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]),
    ("eta 1", ZSampling(steps=2), [0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0]),
    ("2M", ImplicitZ(steps=2), [0, 0, 1, 1, 1, 1, 1, 1, 0]),
    # Down, up and down again: m_i of the first way is for the step i + 1 down and up; all noises wait for the end.
    ("2M", EndToEnd(), [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0]),
    ("eta 1", EndToEnd(), [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 5, 4, 3, 2, 1, 0]),
    ("2M", Resampling(steps=2), [0, 0, 1, 0, 1, 1, 1, 1, 0]),
]


@pytest.mark.parametrize(("name", "method", "want"), HELD, ids=lambda v: str(v) if not isinstance(v, list) else "")
def test_nothing_is_held_longer_than_a_later_move_reads_it(name: str, method: Any, want: list[int]) -> None:
    assert Watched(make(name, "trailing", T)).counts(method) == want


def test_the_watch_sees_what_is_kept_too_long() -> None:
    """Mutants: nothing is forgotten, and what nobody reads is left all the same."""
    assert Watched(make("2M", "trailing", T)).counts(Standard(), forgets=()) == [0, 1, 2, 3, 4, 5, 0]
    assert Watched(make("2M, lower at the end", "trailing", T)).counts(Standard(), leaves=True)[-2] == 1


def test_a_walk_that_is_dropped_in_the_middle_leaves_nothing() -> None:
    watched = Watched(make("3M", "trailing", T))
    moves = walk(field, X, watched.solver, EndToEnd(), **ARGS)
    for _ in range(5):
        next(moves)
    assert len(watched.living) == 5
    moves.close()
    del moves
    assert len(watched.living) == 0
