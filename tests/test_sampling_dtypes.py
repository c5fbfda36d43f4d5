"""The dtypes and devices that a predictor sees; nothing waits for the device."""

from __future__ import annotations

import pytest
import torch

from support.predictors import field
from support.sampling import COND, FLOAT, INTEGER, METHODS, UNCOND, B, T, X, both, each_solver
from zigzag import Standard, Trace, Visit, ZSampling, sample, walk


def check_call(x: torch.Tensor, t: torch.Tensor, rows: set[int], dtype: torch.dtype, t_dtype: torch.dtype) -> None:
    """x is (B or 2B, ...) in its own dtype; t is (B or 2B,) on x's device, int64 or the state's dtype."""
    assert x.dtype == dtype and x.shape[0] in rows and x.shape[1:] == X.shape[1:]
    assert isinstance(t, torch.Tensor) and t.shape == x.shape[:1] and t.device == x.device
    assert t.dtype == t_dtype and bool((t == t[0]).all())


STATE = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float32}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@each_solver
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_of_x_t_state_and_result(solver: object, batched: bool, dtype: torch.dtype) -> None:
    """Predictors see x.dtype; the state is promote(x.dtype, float32); the result is x.dtype again."""
    state = STATE.get(dtype, dtype)
    t_dtype = torch.int64 if solver is INTEGER else state
    rows = {2 * B, B} if batched else {B}
    seen = []

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        check_call(x, t, rows, dtype, t_dtype)
        for mutant in [
            (x.to(torch.int32), t),
            (x, t[:1]),
            (x, t.float().half()),
            (x, t + torch.arange(len(t))),
        ]:
            with pytest.raises(AssertionError):
                check_call(*mutant, rows, dtype, t_dtype)
        seen.append(t[0].item())
        return field(x, t, cond)

    kept = X.to(dtype)
    visits: list[Visit] = []
    y = sample(fn, kept, solver, ZSampling(), cond=COND, uncond=UNCOND, batched=batched, callback=visits.append)
    assert y.dtype == dtype and y.shape == X.shape and torch.equal(kept, X.to(dtype))
    assert {visit.state.dtype for visit in visits} == {state}
    assert torch.equal(y, visits[-1].state.to(dtype))
    assert set(seen) == {solver.times[i].to(t_dtype).item() for i in range(T)}


def check_close(got: torch.Tensor, want: torch.Tensor, bound: float) -> None:
    assert float((got.double() - want.double()).abs().max()) <= bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_guidance_and_update_are_computed_in_the_dtype_of_the_state(dtype: torch.dtype) -> None:
    """Predictions are cast before guidance: only x going in and the result are rounded to half precision.

    With e_c, e_u as the predictor rounds them, one step is x + b (e_u + w (e_c - e_u)) to float32 rounding.
    """
    e_c, e_u = torch.tensor([1.5, -0.75]), torch.tensor([1.25, 3.0])

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        return cond[:, None].expand_as(x).to(dtype) + 2**-7

    x, b = torch.full((B, 3), 0.5, dtype=dtype), float(FLOAT.sigmas[1] - FLOAT.sigmas[0])
    visit = next(walk(fn, x, FLOAT, Standard(), cond=e_c, uncond=e_u, strong=5.3))
    e_c, e_u = ((e + 2**-7).to(dtype).double()[:, None] for e in (e_c, e_u))
    bound = 8 * torch.finfo(torch.float32).eps * (0.5 + abs(b) * 20)
    check_close(visit.state, 0.5 + b * (e_u + 5.3 * (e_c - e_u)).expand(B, 3), bound)
    with pytest.raises(AssertionError):
        half = (e_u.to(dtype) + 5.3 * (e_c.to(dtype) - e_u.to(dtype))).double()
        check_close(visit.state, 0.5 + b * half.expand(B, 3), bound)


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values: no .item(), no branch on a tensor, and t lies where x lies."""
    x = torch.empty(B, 3, device="meta")

    def fn(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        assert t.device == x.device == torch.device("meta")
        return x * 0.5 + cond[:, None]

    for method in METHODS:
        cond, uncond, trace = torch.empty(B, device="meta"), torch.empty(B, device="meta"), Trace()
        y = sample(fn, x, FLOAT, method, cond=cond, uncond=uncond, trace=trace)
        assert y.device == x.device and y.shape == x.shape and trace.rows > 0
    with pytest.raises((RuntimeError, NotImplementedError)):
        sample(lambda x, t, c: x * float(t[0]), x, FLOAT, Standard(), cond=cond, uncond=uncond)
