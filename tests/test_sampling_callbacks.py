"""What the one loop promises a callback, and what it shows of its progress."""

from __future__ import annotations

import re
import warnings

import pytest
import torch

from support.predictors import field
from support.sampling import COND, EPS, FLOAT, UNCOND, B, T, X, each_method, each_solver, seed
from zigzag import Standard, Visit, sample, walk
from zigzag.moves import Denoise, Shift


@each_method
def test_the_callback_gets_every_visit_and_none_changes_nothing(method: object) -> None:
    visits: list[Visit] = []
    y = sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, callback=visits.append, generator=seed())
    assert tuple(v.move for v in visits) == method.path(T)
    assert torch.equal(y, sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, generator=seed()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_a_callback_may_replace_the_state(dtype: torch.dtype) -> None:
    """x <- callback(visit), cast to the state's dtype: the next move starts from it, or it is the result."""

    def halve(visit: Visit) -> torch.Tensor:
        assert visit.state.dtype == torch.float32
        return (visit.state * 0.5).round(decimals=2).to(dtype)

    def constant(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        return torch.ones_like(x)

    x = X.float()
    y = sample(constant, x, FLOAT, Standard(), cond=COND, uncond=UNCOND, callback=halve)
    for i in range(T):
        x = ((x + float(FLOAT.sigmas[i + 1] - FLOAT.sigmas[i])) * 0.5).round(decimals=2).to(dtype).float()
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x, rtol=0, atol=8 * torch.finfo(torch.float32).eps)
    plain = sample(constant, X.float(), FLOAT, Standard(), cond=COND, uncond=UNCOND)
    assert not torch.allclose(y, plain)


@each_solver
def test_replacing_the_state_keeps_the_cached_gap(solver: object) -> None:
    """The state set to 0 after Denoise(0, 1): Shift(1) then gives -d_1 gap, gap of the prediction at x_T."""
    strong, path, after = 3.0, (Denoise(0, 1), Shift(1, False)), []

    def zero(visit: Visit) -> torch.Tensor | None:
        after.append(visit.state)
        return torch.zeros_like(visit.state) if isinstance(visit.move, Denoise) else None

    sample(field, X, solver, path, cond=COND, uncond=UNCOND, strong=strong, callback=zero)
    t = torch.full((B,), float(solver.times[0]), dtype=X.dtype)
    gap = strong * (field(X, t, COND) - field(X, t, UNCOND))
    step = solver.step(1)
    want = step.b / step.a * gap
    assert float(want.abs().max()) > 1e-3
    torch.testing.assert_close(after[1], want, rtol=16 * EPS, atol=16 * EPS)


def test_a_callback_replaces_the_state_of_a_walk_too() -> None:
    """The state set to 1 at knot 1: what follows is the walk that starts there from 1."""
    path, ones = Standard().path(T), torch.ones_like(X)

    def at_one(visit: Visit) -> torch.Tensor | None:
        return ones if visit.knot == 1 else None

    whole = [v.state for v in walk(field, X, FLOAT, path, cond=COND, uncond=UNCOND, callback=at_one)]
    rest = [v.state for v in walk(field, ones, FLOAT, path[1:], cond=COND, uncond=UNCOND)]
    plain = [v.state for v in walk(field, X, FLOAT, path, cond=COND, uncond=UNCOND)]
    assert all(torch.equal(one, two) for one, two in zip(whole[1:], rest, strict=True))
    assert not any(torch.equal(one, two) for one, two in zip(whole[1:], plain[1:], strict=True))


@each_method
def test_progress_is_one_tick_a_move_on_stderr(method: object, capsys: pytest.CaptureFixture[str]) -> None:
    n = len(method.path(T))

    def run(progress: bool) -> tuple[torch.Tensor, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = sample(
                field,
                X,
                FLOAT,
                method,
                cond=COND,
                uncond=UNCOND,
                progress=progress,
                generator=seed(),
                batched=False,
            )
        out, err = capsys.readouterr()
        assert out == ""
        return y, err

    quiet, nothing = run(False)
    loud, bar = run(True)
    assert nothing == "" and torch.equal(quiet, loud)
    assert re.findall(r"(\d+)/(\d+)", bar)[-1] == (str(n), str(n)), bar
    rows = sum(v.rows for v in list(walk(field, X, FLOAT, method, cond=COND, uncond=UNCOND))[-1:])
    assert re.search(rf"rows\D*{rows}\b", bar), bar
