"""Steps that hold a remainder, on tensors: one coefficient per sample, gradients, and nothing written over."""

from typing import Any

import pytest
import torch
from torch import Tensor

from support.held import MULTISTEP, STOCHASTIC, make
from support.steps import EPS
from support.tensors import assert_within, noise
from zigzag.solvers import AffineStep

HOLDING = [*MULTISTEP, "SDE-2M", "SDE-3M", "eta 1"]
B = 3


def samples() -> list[AffineStep]:
    """Three steps of three knots of SDE-3M, one a sample, all of order 3 and noisy."""
    solver = make("SDE-3M", T=8)
    return [solver.step(i, i + 1, range(i)) for i in (2, 4, 6)]


def batched(steps: list[AffineStep]) -> AffineStep:
    def column(values: Any) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float64)

    memory = tuple(column(k) for k in zip(*(s.memory for s in steps), strict=True))
    return AffineStep(column(s.a for s in steps), column(s.b for s in steps), memory, column(s.noise for s in steps))


def check_equals_loop(step: AffineStep, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """One step with (B,) coefficients is B steps with numbers, a sample each: remainder, forward and inverse."""
    x, e, m, older, z = (noise(k, *shape, dtype=dtype) for k in range(5))
    r = step.remainder([m, older], z)
    got = r, step.forward(x, e, r), step.inverse(x, e, r)
    loop = []
    for k, one in enumerate(samples()):
        row = slice(k, k + 1)
        r_k = one.remainder([m[row], older[row]], z[row])
        loop.append((r_k, one.forward(x[row], e[row], r_k), one.inverse(x[row], e[row], r_k)))
    size = sum(v.abs() for v in (x, e, m, older, z)).double() * 10
    for mine, theirs in zip(got, zip(*loop, strict=True), strict=True):
        assert mine.dtype == dtype
        assert_within(mine, torch.cat(theirs), 8 * torch.finfo(dtype).eps * size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(B,), (B, B), (B, 2, B)], ids=str)
def test_a_step_per_sample_equals_a_loop_over_samples(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    step = batched(samples())
    assert step.order == 3 and step.noisy
    check_equals_loop(step, shape, dtype)
    if dtype != torch.bfloat16:
        with pytest.raises(AssertionError):  # mutant: the memory the other way around
            check_equals_loop(AffineStep(step.a, step.b, step.memory[::-1], step.noise), shape, dtype)


def test_a_remainder_is_what_the_coefficients_say_and_wants_as_many_as_they_are() -> None:
    step = AffineStep(0.5, 2.0, (3.0, -1.0), 0.25)
    m, older, z = noise(0, 2, 3), noise(1, 2, 3), noise(2, 2, 3)
    assert_within(step.remainder([m, older], z), 3 * m - older + z / 4, 8 * EPS * (m.abs() + older.abs() + z.abs()))
    assert step.order == 3 and step.noisy
    for wrong in ([m], [m, older, m]):
        with pytest.raises(ValueError, match=r"zip|argument"):
            step.remainder(wrong, z)
    plain = AffineStep(0.5, 2.0)
    assert plain.remainder() is None and plain.order == 1 and not plain.noisy


@pytest.mark.parametrize("name", HOLDING)
def test_a_step_writes_over_nothing_that_it_is_given(name: str) -> None:
    step = make(name).step(3, 4, (0, 1, 2))
    given = [noise(k, 2, 3) for k in range(3 + len(step.memory))]
    copies = [t.clone() for t in given]
    x, e, z, *memory = given
    r = step.remainder(memory, z if step.noisy else None)
    kept = r.clone()
    for out in (step.forward(x, e, r), step.inverse(x, e, r)):
        assert out.data_ptr() not in {t.data_ptr() for t in (*given, r)}
    assert torch.equal(r, kept) and all(torch.equal(*pair) for pair in zip(given, copies, strict=True))


@pytest.mark.parametrize("name", HOLDING)
def test_gradients_flow_to_state_prediction_memory_and_noise(name: str) -> None:
    """Through Φ and Ψ, by finite differences."""
    step = make(name).step(3, 4, (0, 1, 2))
    x, e, z, *memory = (noise(k, 2, 3).requires_grad_() for k in range(3 + len(step.memory)))

    def down(x: Tensor, e: Tensor, z: Tensor, *memory: Tensor) -> Tensor:
        return step.forward(x, e, step.remainder(memory, z if step.noisy else None))

    def up(x: Tensor, e: Tensor, z: Tensor, *memory: Tensor) -> Tensor:
        return step.inverse(x, e, step.remainder(memory, z if step.noisy else None))

    for way in (down, up):
        assert torch.autograd.gradcheck(way, (x, e, z, *memory))
        held = [*memory, *([z] if step.noisy else [])]
        assert all(g.abs().min() > 0 for g in torch.autograd.grad(way(x, e, z, *memory).sum(), held))


@pytest.mark.parametrize("shape", [(), (B,)], ids=["one time", "one time per sample"])
def test_gradients_flow_to_the_coefficients_themselves(shape: tuple[int, ...]) -> None:
    a, b, k, n = ((0.5 + torch.rand(shape, dtype=torch.float64)).requires_grad_() for _ in range(4))
    x, e, m, z = (noise(s, B, 2).requires_grad_() for s in range(4))

    def there_and_back(a: Tensor, b: Tensor, k: Tensor, n: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        step, (x, e, m, z) = AffineStep(a, b, (k,), n), tensors
        r = step.remainder([m], z)
        return step.forward(x, e, r), step.inverse(x, e, r)

    assert torch.autograd.gradcheck(there_and_back, (a, b, k, n, x, e, m, z))


def test_every_stochastic_solver_adds_noise_but_onto_clean_data() -> None:
    for name in STOCHASTIC:
        solver = make(name, "trailing", T=5)
        clean = make(name, "karras", T=5)
        assert all(solver.step(i, None, range(i)).noisy for i in range(5)), name  # it ends at ᾱ_0, not at 1
        assert [clean.step(i, None, range(i)).noisy for i in range(5)] == [True] * 4 + [False], name
