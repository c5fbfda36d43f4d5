"""Digits: a narrow Gaussian on each of scikit-learn's 1,797 real digits, exact and class-conditional."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support.tensors import assert_within, noise
from zigzag.solvers import DDIM, FlowEuler, Solver, Spherical
from zigzag.zoo import Digits, GaussianMixture

sklearn_datasets = pytest.importorskip("sklearn.datasets")

EPS = torch.finfo(torch.float64).eps
COUNT = 1797


@pytest.fixture(scope="module")
def digits() -> Iterator[Digits]:
    yield Digits()


@pytest.fixture(scope="module")
def source() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's own pixels, 0 to 16, brought to [−1, 1], and its labels."""
    data = sklearn_datasets.load_digits()
    yield data.images / 8 - 1, data.target


# The data --------------------------------------------------------------------------------------------------


def check_data(images: Tensor, labels: Tensor, source: tuple[np.ndarray, np.ndarray]) -> None:
    """Equal, not close: a multiple of 1/8 is exact in every dtype."""
    assert images.shape == (COUNT, 1, 8, 8) and labels.shape == (COUNT,)
    assert images.dtype.is_floating_point and labels.dtype == torch.int64
    assert images.min() == -1 and images.max() == 1
    assert np.array_equal(images[:, 0].double().numpy(), source[0])
    assert np.array_equal(labels.numpy(), source[1])


def test_the_data_are_scikit_learns_digits(digits: Digits, source: tuple[np.ndarray, np.ndarray]) -> None:
    check_data(digits.images, digits.labels, source)
    assert isinstance(digits, GaussianMixture)
    with pytest.raises(AssertionError):  # mutants: scaled to [0, 1]; transposed; labels of the neighbour
        check_data(digits.images / 2 + 0.5, digits.labels, source)
    with pytest.raises(AssertionError):
        check_data(digits.images.mT, digits.labels, source)
    with pytest.raises(AssertionError):
        check_data(digits.images, digits.labels.roll(1), source)


# The predictor ---------------------------------------------------------------------------------------------


def posterior_mean(
    x: np.ndarray, alpha: float, sigma: float, std: float, means: np.ndarray
) -> tuple[np.ndarray, float]:
    """E[x₀|x] under equal Gaussians on the means, in extended precision; and the largest log-weight."""
    x, means = x.astype(np.longdouble).reshape(-1), means.astype(np.longdouble).reshape(len(means), -1)
    variance = (alpha * np.longdouble(std)) ** 2 + np.longdouble(sigma) ** 2
    away = x - alpha * means
    logits = -(away**2).sum(1) / (2 * variance)
    weight = np.exp(logits - logits.max())
    weight /= weight.sum()
    mean = (weight[:, None] * (means + alpha * std**2 / variance * away)).sum(0)
    size = ((x**2).sum() + (alpha**2 * means**2).sum(1).max()) / variance
    return mean.astype(np.float64).reshape(1, 8, 8), float(size)


def check_predictor(model: Any, source: tuple[np.ndarray, np.ndarray], std: float) -> None:
    """x₀, ε, v and u of the predictor, unconditional and of a class, are those of the closed form.

    A log-weight is rounded at (|x|² + α²|μ|²)/var, call it L; a responsibility is good to L·eps; with equal
    variances it weighs means of pixels in [−1, 1]. ε and u carry the error of x₀ by α/σ and 1 + α/σ.
    """
    images, targets = source
    for seed, (alpha, sigma) in enumerate([(0.999, 0.05), (0.8, 0.6), (0.3, 0.95), (0.02, 0.98), (1.0, 5.0)]):
        labels = torch.tensor([-1, 0, 7, 3])
        start = torch.from_numpy(images[:4, None])
        x = alpha * start + sigma * noise(seed, 4, 1, 8, 8)
        out = {k: model.predict(x, alpha, sigma, labels, k) for k in ("x0", "epsilon", "v", "flow")}
        for row, label in enumerate(labels.tolist()):
            own = images if label < 0 else images[targets == label]
            mean, size = posterior_mean(x[row].numpy(), alpha, sigma, std, own)
            x0 = torch.from_numpy(mean)
            eps = (x[row] - alpha * x0) / sigma
            bound = 16 * EPS * (size + 64) * (1 + x[row].abs()) * (1 + 1 / sigma)
            assert_within(out["x0"][row], x0, bound)
            assert_within(out["epsilon"][row], eps, bound)
            assert_within(out["v"][row], alpha * eps - sigma * x0, bound * (1 + sigma))
            assert_within(out["flow"][row], eps - x0, bound * 2)


def test_the_predictor_is_the_closed_form_over_the_real_digits(
    digits: Digits, source: tuple[np.ndarray, np.ndarray]
) -> None:
    check_predictor(digits, source, 0.1)
    check_predictor(Digits(std=0.3), source, 0.3)


def test_the_predictor_check_refuses_another_width_and_other_labels(
    digits: Digits, source: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(AssertionError):
        check_predictor(Digits(std=0.11), source, 0.1)
    with pytest.raises(AssertionError):
        check_predictor(digits, (source[0], np.roll(source[1], 1)), 0.1)


def test_a_bad_std_is_refused() -> None:
    for bad in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="std"):
            Digits(std=bad)


# Reading ---------------------------------------------------------------------------------------------------


def test_every_real_digit_is_read_as_itself_and_is_at_no_distance(digits: Digits) -> None:
    """No image stands under two labels, so the nearest neighbour of a real digit is of its class."""
    read = digits.classify(digits.images)
    assert read.dtype == torch.int64 and torch.equal(read, digits.labels)
    distance = digits.distance(digits.images, digits.labels)
    assert distance.shape == (COUNT,)
    assert torch.equal(distance, torch.zeros_like(distance))


def check_reading(classify: Any, distance: Any, source: tuple[np.ndarray, np.ndarray]) -> None:
    """Nearest neighbour and Euclidean distance to the nearest digit of a class, against a loop in numpy."""
    images, targets = source
    x = torch.from_numpy(images[:6, None]) + 0.8 * noise(0, 6, 1, 8, 8)
    labels = torch.tensor([0, 1, 5, 5, 9, 3])
    square = ((x[:, 0].numpy()[:, None] - images[None]) ** 2).sum((2, 3))
    nearest = targets[square.argmin(1)]
    assert classify(x).tolist() == nearest.tolist()
    away = distance(x, labels)
    for row, label in enumerate(labels.tolist()):
        exact = square[row, targets == label].min()
        size = (x[row] ** 2).sum().item() + 64
        assert abs(away[row].item() ** 2 - exact) <= 64 * EPS * size


def test_reading_is_by_the_nearest_real_digit(digits: Digits, source: tuple[np.ndarray, np.ndarray]) -> None:
    check_reading(digits.classify, digits.distance, source)
    with pytest.raises(AssertionError):  # mutants: squared distance; any class; the classifier one off
        check_reading(digits.classify, lambda x, y: digits.distance(x, y) ** 2, source)
    with pytest.raises(AssertionError):
        check_reading(digits.classify, lambda x, y: digits.distance(x, digits.classify(x)), source)
    with pytest.raises(AssertionError):
        check_reading(lambda x: (digits.classify(x) + 1) % 10, digits.distance, source)


# Drawing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 4, 9])
def test_samples_of_a_class_lie_on_its_digits(digits: Digits, label: int) -> None:
    """A draw is a real digit plus std·z in 64 dimensions: |z|² is χ²_64, above 144 with probability 4e-8."""
    draws = digits.sample(50, label=label, generator=torch.Generator().manual_seed(0))
    assert draws.shape == (50, 1, 8, 8)
    away = digits.distance(draws, torch.full((50,), label))
    assert (away <= 0.1 * 12).all()
    assert away.min() > 0


@pytest.mark.parametrize("name", ["ddim", "flow", "spherical"])
def test_the_probability_flow_from_noise_ends_on_a_digit_of_the_class(name: str, digits: Digits) -> None:
    """40 conditional steps in float64, from the same noise; the distance is that of a draw (above)."""
    solver: Solver = {
        "ddim": DDIM.stable_diffusion(40, spacing="trailing", final_alpha_cumprod=1.0),
        "flow": FlowEuler.uniform(40),
        "spherical": Spherical.cosine(40),
    }[name]
    labels = torch.arange(10)
    predict, x = digits.predictor(solver), noise(0, 10, 1, 8, 8)
    for i in range(len(solver)):
        x = solver.step(i).forward(x, predict(x, solver.times[i].expand(10), labels))
    assert torch.equal(digits.classify(x), labels)
    assert (digits.distance(x, labels) <= 0.1 * 12).all()
