"""Conditions that change during a walk, gradients of its last steps, checkpoints, and a generator a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import (
    DDIM,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Resampling,
    Standard,
    Visit,
    Z2Sampling,
    ZSampling,
    sample,
    walk,
)  # fmt: skip
from zigzag.moves import Denoise, Shift
from zigzag.solvers import DPMSolver, Heun

T, W = 5, 7.5
SOLVER = DDIM.stable_diffusion(T)
METHODS = (Standard(), ZSampling(), ZSampling(span=2), EndToEnd(), ImplicitZ(), Z2Sampling(warmup=1), Resampling())


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


WEIGHT, X, COND = draw(0, 16, 16) / 4, draw(1, 4, 16), draw(2, 4, 16)
NULLS = [draw(10 + i, 4, 16) for i in range(T + 1)]


def eps_fn(x: Tensor, t: Tensor, cond: Any) -> Tensor:
    return torch.tanh(x @ WEIGHT.to(x.dtype) + (cond["e"] if isinstance(cond, dict) else cond))


def by_hand() -> Tensor:
    x = X
    for i in range(T):
        c, u = eps_fn(x, x, COND), eps_fn(x, x, NULLS[i])
        x = float(SOLVER.step(i).a) * x + float(SOLVER.step(i).b) * (u + W * (c - u))
    return x


# Conditions that change -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [False, "auto", True])
@pytest.mark.parametrize("how", ["written to", "replaced", "replaced where it lay", "under inference mode"])
def test_conditions_that_a_callback_changes_are_followed_in_every_mode(batched: Any, how: str) -> None:
    """Null-text inversion has an embedding of its own at each step."""
    with torch.inference_mode(how == "under inference mode"):
        uncond: Any = {"e": NULLS[0].clone()}

        def change(visit: Visit) -> None:
            if how == "replaced":
                uncond["e"] = NULLS[visit.knot]
            elif how == "replaced where it lay":
                uncond.pop("e")  # freed first, so that the next one may be where it was
                uncond["e"] = NULLS[visit.knot].clone()
            else:
                uncond["e"].copy_(NULLS[visit.knot])

        found = sample(
            eps_fn, X, SOLVER, Standard(), cond={"e": COND.clone()}, uncond=uncond, strong=W, batched=batched,
            callback=change,
        )  # fmt: skip
        torch.testing.assert_close(found, by_hand())


SOLVERS = [SOLVER, FlowEuler.uniform(T), DPMSolver.on(SOLVER, order=2, sde=True), Heun.on(FlowEuler.uniform(T))]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_all_modes_agree_on_conditions_that_change_at_every_move(method: Any, solver: Any) -> None:
    """Both conditions, by every method, with a weak model of its own too; and what changes is seen at all."""

    def sampled(batched: Any, changing: bool, **options: Any) -> Tensor:
        cond, uncond, moves = COND.clone(), {"e": NULLS[0].clone()}, [0]

        def change(visit: Visit) -> None:
            moves[0] += 1
            if changing:
                uncond["e"].copy_(draw(100 + moves[0], 4, 16))
                held["e"] = draw(200 + moves[0], 4, 16)

        held = {"e": cond}
        return sample(
            eps_fn, X, solver, method, cond=held, uncond=uncond, strong=2.0, weak=0.5, batched=batched,
            generator=torch.Generator().manual_seed(3), callback=change, **options,
        )  # fmt: skip

    for options in ({}, {"weak_fn": lambda x, t, cond: eps_fn(x, t, cond) * 0.5}):
        one, auto, two = (sampled(batched, True, **options) for batched in (True, "auto", False))
        torch.testing.assert_close(one, two)
        assert torch.equal(one, auto)
        assert not torch.allclose(two, sampled(False, False, **options))


def test_conditions_that_do_not_change_are_doubled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, *a: calls.append(parts[0].data_ptr()) or cat(parts, *a))  # type: ignore[func-returns-value]
    cond, uncond = COND.clone(), NULLS[0].clone()
    sample(eps_fn, X, SOLVER, Standard(), cond=cond, uncond=uncond, strong=W)
    assert calls.count(uncond.data_ptr()) == 1 and len(calls) == 1 + T  # and the states


def test_conditions_must_not_change_where_calls_are_computed_anew() -> None:
    for batched in (True, False):
        uncond = NULLS[0].clone()
        with pytest.raises(ValueError, match="changed during a walk with checkpoint=True"):
            sample(
                eps_fn, X, SOLVER, Standard(), cond=COND, uncond=uncond, strong=W, grad=True, checkpoint=True,
                batched=batched, callback=lambda visit, u=uncond: (u.add_(1), None)[1],  # type: ignore[misc]
            )  # fmt: skip


# Gradients ------------------------------------------------------------------------------------------------------


def gradient(method: Any, solver: Any = SOLVER, cut: int | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The sample, and the gradient of its sum by the weight; with `cut`, the state is detached by hand there."""
    weight = WEIGHT.clone().requires_grad_()

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.tanh(x @ weight + cond)

    y = sample(
        fn, X, solver, method, cond=COND, uncond=NULLS[0], strong=2.0,
        generator=torch.Generator().manual_seed(3), **options,
    )  # fmt: skip
    (found,) = torch.autograd.grad(y.sum(), weight)
    return y.detach(), found


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("solver", [SOLVER, DPMSolver.on(SOLVER, order=2, sde=True)], ids=["ddim", "sde-2m"])
def test_the_last_steps_alone_have_the_gradient_of_a_weight_that_was_another_before(method: Any, solver: Any) -> None:
    """∂/∂W of the moves below knot T − K, all that came before being what it is: two weights, one differentiated."""
    for K in (1, 2, T):
        moves = method.path(T)
        first = max((k for k, m in enumerate(moves) if min(m.start, m.end) < T - K), default=-1) + 1
        weight, calls = WEIGHT.clone().requires_grad_(), [0]

        def fn(x: Tensor, t: Tensor, cond: Tensor, weight: Tensor = weight, calls: list[int] = calls) -> Tensor:
            return torch.tanh(x @ (weight if calls[0] >= first else WEIGHT) + cond)  # noqa: B023

        def count(visit: Visit, calls: list[int] = calls) -> None:
            calls[0] += 1

        y = sample(
            fn, X, solver, method, cond=COND, uncond=NULLS[0], strong=2.0, grad=True, callback=count,
            generator=torch.Generator().manual_seed(3),
        )  # fmt: skip
        (wanted,) = torch.autograd.grad(y.sum(), weight)
        sampled, found = gradient(method, solver, grad=K)
        assert torch.equal(sampled, y.detach())
        torch.testing.assert_close(found, wanted)
    whole = gradient(method, solver, grad=True)[1]
    torch.testing.assert_close(gradient(method, solver, grad=T)[1], whole)
    assert not torch.allclose(gradient(method, solver, grad=1)[1], whole)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_checkpoints_change_no_gradient(method: Any) -> None:
    plain, again = (gradient(method, grad=True, checkpoint=flag) for flag in (False, True))
    assert torch.equal(plain[0], again[0])
    torch.testing.assert_close(again[1], plain[1])
    torch.testing.assert_close(gradient(method, grad=2, checkpoint=True)[1], gradient(method, grad=2)[1])


def test_checkpoints_keep_no_activations_of_the_model() -> None:
    """What autograd saves: per call a few states with checkpoints, and the hidden layers too without."""
    wide = draw(5, 16, 4096)

    def fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(x @ wide) @ wide.mT / 4096 + cond)

    def saved(checkpoint: bool) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda v: sizes.append(v.numel()) or v, lambda v: v):  # type: ignore[func-returns-value]
            x = X.clone().requires_grad_()
            sample(fn, x, SOLVER, Standard(), cond=COND, strong=1.0, grad=True, checkpoint=checkpoint)
        return sum(size for size in sizes if size == 4 * 4096)

    assert saved(True) == 0 < saved(False)


@pytest.mark.parametrize(("grad", "error"), [(0, ValueError), (T + 1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_numbers_of_steps_that_there_are_not_are_refused(grad: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="grad must be"):
        walk(eps_fn, X, SOLVER, Standard(), cond=COND, strong=1.0, grad=grad)


def test_gradients_of_a_path_that_ends_higher_are_of_its_last_steps() -> None:
    moves = [Denoise(0, 1), Shift(1, True), Denoise(1, 2), Denoise(2, 3)]
    for K, some in ((1, True), (2, True)):
        flags = [v.state.requires_grad for v in walk(
            lambda x, t, c: x * WEIGHT.clone().requires_grad_().sum(), X, SOLVER, moves, cond=COND, uncond=COND, grad=K
        )]  # fmt: skip
        assert flags == [False] * (4 - K - (K == 2)) + [some] * (K + (K == 2))


# A generator a sample -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [SOLVER, DDIM.stable_diffusion(T, eta=1), DPMSolver.on(SOLVER, sde=True)], ids=str)
def test_with_a_generator_a_sample_its_batch_does_not_matter(solver: Any) -> None:
    def seeded(k: int) -> torch.Generator:
        return torch.Generator().manual_seed(k)

    for method in (Resampling(), ZSampling(), Z2Sampling(warmup=1)):
        together = sample(
            eps_fn, X, solver, method, cond=COND, uncond=NULLS[0], strong=2.0, generator=[seeded(k) for k in range(4)]
        )
        for k in range(4):
            alone = sample(
                eps_fn, X[k : k + 1], solver, method, cond=COND[k : k + 1], uncond=NULLS[0][k : k + 1], strong=2.0,
                generator=seeded(k),
            )  # fmt: skip
            torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize(
    "generator", [[torch.Generator()] * 3, [None] * 4, [1] * 4, [], 7], ids=["three", "Nones", "numbers", "none", "7"]
)
def test_generators_that_do_not_fit_are_refused_before_a_model_call(generator: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="generator must be"):
        walk(eps_fn, X, SOLVER, Resampling(), cond=COND, strong=1.0, generator=generator)


# Noise ----------------------------------------------------------------------------------------------------------


def test_the_noise_of_a_grid_has_the_deviation_of_its_first_knot() -> None:
    for solver, sigma in ((DDIM.karras(5), 80.0), (FlowEuler.uniform(5), 1.0), (SOLVER, float(SOLVER.sigmas[0]))):
        z = solver.noise((4, 50, 50), generator=torch.Generator().manual_seed(0))
        assert z.shape == (4, 50, 50) and z.dtype == torch.float32
        assert float(z.std()) == pytest.approx(sigma, rel=0.03)
        assert torch.equal(z, solver.noise((4, 50, 50), generator=torch.Generator().manual_seed(0)))
    assert solver.noise((2, 3), dtype=torch.float16).dtype == torch.float16


def test_noised_data_lies_on_the_knot() -> None:
    z = draw(4, 4, 16)
    for knot in (0, 2, T):
        alpha, sigma = float(SOLVER.alphas[knot]), float(SOLVER.sigmas[knot])
        torch.testing.assert_close(SOLVER.add_noise(X, z, knot), alpha * X + sigma * z)
    with pytest.raises(ValueError, match="knot must lie in"):
        SOLVER.add_noise(X, z, T + 1)
