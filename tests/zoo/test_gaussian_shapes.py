"""GaussianMixture: any event shape, one std for all, the state's dtype, and gradients."""

from functools import partial
from typing import Any

import pytest
import torch

from support.gaussians import KINDS, LABELS, MEANS, STDS, WEIGHTS, K, mixture, rounding, truth
from support.tensors import assert_within, noise
from zigzag.zoo import GaussianMixture

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("event", [(1,), (6,), (1, 2, 3), (2, 3)], ids=str)
def test_any_event_shape_is_the_flattened_mixture(event: tuple[int, ...]) -> None:
    means, x = noise(0, 3, *event), noise(1, 4, *event)
    labels, query = torch.tensor([0, 1, 1]), torch.tensor([1, 0, -1, 1])
    shaped = GaussianMixture(means, 0.5, labels=labels)
    flat = GaussianMixture(means.flatten(1), 0.5, labels=labels)
    for kind in KINDS:
        out = shaped.predict(x, 0.6, 0.8, labels=query, prediction=kind)
        assert out.shape == x.shape
        expected = flat.predict(x.flatten(1), 0.6, 0.8, labels=query, prediction=kind)
        assert_within(out.flatten(1), expected, 256 * EPS * (1 + x.flatten(1).abs()))


def test_one_std_for_all_is_that_std_for_each_and_no_weights_are_equal_weights() -> None:
    x = noise(0, 4, 2)
    one = GaussianMixture(MEANS, 0.5).predict(x, 0.6, 0.8)
    spelt = GaussianMixture(MEANS, torch.full((K,), 0.5).double(), torch.full((K,), 1 / K).double())
    assert_within(one, spelt.predict(x, 0.6, 0.8), 256 * EPS * (1 + x.abs()))


def check_precision(mix: GaussianMixture, dtype: torch.dtype) -> None:
    """Out comes the dtype that went in, within its rounding of autograd's float64 answer on the same state."""
    x = noise(0, 6, 2).to(dtype)
    expected = truth(x.double(), 0.6, 0.8, [None] * len(x))
    bound = rounding(x.double(), 0.6, 0.8) * (torch.finfo(dtype).eps / EPS)
    for kind in KINDS:
        out = mix.predict(x, 0.6, 0.8, prediction=kind)
        assert out.dtype == dtype
        assert_within(out, expected[kind], bound)


class Through(GaussianMixture):
    """Predicts in float32, whatever comes in; hands back `out`, or what came in."""

    out: torch.dtype | None = None

    def predict(self, x: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        return super().predict(x.float(), *args, **more).to(self.out or x.dtype)


class Widening(Through):
    out = torch.float64


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_the_prediction_has_the_states_dtype_and_its_precision(dtype: torch.dtype) -> None:
    check_precision(mixture(), dtype)
    mutant = Widening if dtype == torch.float32 else Through
    with pytest.raises(AssertionError):
        check_precision(mutant(MEANS, STDS, WEIGHTS, LABELS), dtype)


def test_predictions_are_differentiable_in_the_state() -> None:
    x = noise(0, 3, 2).requires_grad_()
    for kind in KINDS:
        assert torch.autograd.gradcheck(partial(mixture().predict, prediction=kind), (x, 0.6, 0.8))
