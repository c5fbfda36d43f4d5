"""A step leaves its arguments alone and passes gradients to all of them."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor

from support.tensors import noise
from zigzag.solvers import (
    AffineStep,
    Spherical,
    ddim_inverse,
    ddim_step,
    flow_inverse,
    flow_step,
    spherical_inverse,
    spherical_step,
)


def test_a_step_is_a_frozen_value_that_leaves_its_arguments_alone() -> None:
    step = AffineStep(torch.tensor([0.5, 2.0]), torch.tensor([1.0, -1.0]))
    with pytest.raises(FrozenInstanceError):
        step.a = 1.0  # type: ignore[misc]
    x, e = noise(0, 2, 3), noise(1, 2, 3)
    kept = x.clone(), e.clone()
    for method in (step.forward, step.inverse, step.shift):
        out = method(x, e)
        assert out.data_ptr() not in (x.data_ptr(), e.data_ptr())
    assert torch.equal(x, kept[0]) and torch.equal(e, kept[1])


GRADIENTS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "forward": (lambda x, e, a, b: AffineStep(a, b).forward(x, e), 2),
    "inverse": (lambda x, e, a, b: AffineStep(a, b).inverse(x, e), 2),
    "shift": (lambda x, e, a, b: AffineStep(a, b).shift(x, e), 2),
    "ddim_step": (ddim_step, 4),
    "ddim_inverse": (ddim_inverse, 4),
    "flow_step": (flow_step, 2),
    "flow_inverse": (flow_inverse, 2),
    "spherical_step": (spherical_step, 2),
    "spherical_inverse": (spherical_inverse, 2),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("shape", [(), (3,)], ids=["one time", "one time per sample"])
def test_gradients_flow_to_state_prediction_and_times(name: str, shape: tuple[int, ...]) -> None:
    function, count = GRADIENTS[name]
    rng = torch.Generator().manual_seed(0)
    draws = [torch.rand(shape, dtype=torch.float64, generator=rng) for _ in range(count)]
    times = [(0.3 + draw / 2).requires_grad_() for draw in draws]
    x, e = noise(0, 3, 2).requires_grad_(), noise(1, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, e, *times))


@pytest.mark.parametrize("name", ["forward", "inverse", "shift"])
def test_gradients_flow_through_a_solvers_own_step(name: str) -> None:
    step = Spherical.cosine(4).step(1)
    x, e = noise(0, 3, 2).requires_grad_(), noise(1, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(getattr(step, name), (x, e))
