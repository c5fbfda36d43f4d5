"""GaussianMixture: bad arguments are refused by name."""

import math
from typing import Any

import pytest

from support.gaussians import LABELS, MEANS, STDS, WEIGHTS, mixture
from support.tensors import noise
from zigzag.zoo import GaussianMixture

ERRORS: dict[str, tuple[tuple[Any, ...], str]] = {
    "std 0": ((MEANS, 0.0), "stds"),
    "std below 0": ((MEANS, -STDS), "stds"),
    "std nan": ((MEANS, math.nan), "stds"),
    "stds per something else": ((MEANS, STDS[:-1]), "stds"),
    "weights short": ((MEANS, STDS, WEIGHTS[:-1]), "weights"),
    "weights below 0": ((MEANS, STDS, -WEIGHTS), "weights"),
    "labels short": ((MEANS, STDS, WEIGHTS, LABELS[:-1]), "labels"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_bad_mixture_is_refused_by_the_name_of_its_argument(case: str) -> None:
    args, word = ERRORS[case]
    with pytest.raises(ValueError, match=word):
        GaussianMixture(*args)


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="prediction"):
        mixture().predict(noise(0, 2, 2), 0.6, 0.8, prediction="noise")  # type: ignore[arg-type]
