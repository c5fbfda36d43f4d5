"""The generator is all the randomness of a sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from support.predictors import field
from support.sampling import COND, FLOAT, INTEGER, METHODS, UNCOND, X, each_method, seed
from zigzag import Resampling, sample

NOISY = Resampling(rounds=2)


def test_the_generator_is_all_the_randomness_there_is() -> None:
    """Same inputs and seed, same bits; another seed, another sample."""

    def draw(generator: torch.Generator, method: object = NOISY) -> torch.Tensor:
        return sample(field, X, INTEGER, method, cond=COND, uncond=UNCOND, generator=generator)

    assert torch.equal(draw(seed(0)), draw(seed(0))) and not torch.allclose(draw(seed(0)), draw(seed(1)))
    rng = seed(0)
    assert not torch.allclose(draw(rng), draw(rng)), "the generator did not advance"
    for method in METHODS:
        if not isinstance(method, Resampling):
            assert torch.equal(draw(seed(0), method), draw(seed(1), method))


def check_rng_untouched(run: Callable[[], object]) -> None:
    before = torch.get_rng_state()
    run()
    assert torch.equal(before, torch.get_rng_state())


@each_method
def test_the_global_generator_is_left_alone(method: object) -> None:
    def run(generator: torch.Generator | None) -> torch.Tensor:
        return sample(field, X, FLOAT, method, cond=COND, uncond=UNCOND, generator=generator)

    check_rng_untouched(lambda: run(seed()))
    if isinstance(method, Resampling):
        with pytest.raises(AssertionError):
            check_rng_untouched(lambda: run(None))
    else:
        check_rng_untouched(lambda: run(None))
