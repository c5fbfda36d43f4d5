"""What all guidance rules share: dtypes, purity, gradients, and arguments refused by name."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.guidance import STEP, needed
from support.tensors import noise
from zigzag.guidance import CFG, CFGPlusPlus, Interval, RescaledCFG


def test_a_guided_prediction_keeps_the_dtype_of_the_predictions() -> None:
    e_c, e_u = noise(0, 2, 3).float(), noise(1, 2, 3).float()
    for rule in (CFG(5.5), CFG(1), CFG(0), CFGPlusPlus(0.6), RescaledCFG(5.5), Interval(CFG(5.5), 0, 9)):
        assert needed(rule, e_c, e_u, STEP).dtype == torch.float32


def test_rules_leave_the_predictions_alone_and_pass_gradients_to_both() -> None:
    e_c, e_u = noise(0, 3, 4), noise(1, 3, 4)
    kept = e_c.clone(), e_u.clone()
    for rule in (CFG(5.5), CFGPlusPlus(0.6), RescaledCFG(5.5), Interval(CFG(5.5), 0, 9)):
        rule(e_c, e_u, STEP)
        assert torch.equal(e_c, kept[0]) and torch.equal(e_u, kept[1])
        pair = e_c.clone().requires_grad_(), e_u.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda c, u, rule=rule: rule(c, u, STEP), pair)


BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "cfg text": (lambda: CFG("5.5"), TypeError, "scale"),  # type: ignore[arg-type]
    "cfg none": (lambda: CFG(None), TypeError, "scale"),  # type: ignore[arg-type]
    "cfg nan": (lambda: CFG(math.nan), ValueError, "scale"),
    "cfg inf": (lambda: CFG(math.inf), ValueError, "scale"),
    "gamma text": (lambda: CFG.from_gamma("4"), TypeError, "gamma"),  # type: ignore[arg-type]
    "gamma nan": (lambda: CFG.from_gamma(math.nan), ValueError, "gamma|scale"),
    "lam text": (lambda: CFGPlusPlus("0.6"), TypeError, "lam"),  # type: ignore[arg-type]
    "lam nan": (lambda: CFGPlusPlus(math.nan), ValueError, "lam"),
    "rescaled text": (lambda: RescaledCFG("5"), TypeError, "scale"),  # type: ignore[arg-type]
    "rescaled nan": (lambda: RescaledCFG(math.nan), ValueError, "scale"),
    "phi above 1": (lambda: RescaledCFG(5.5, phi=1.5), ValueError, "phi"),
    "phi below 0": (lambda: RescaledCFG(5.5, phi=-0.1), ValueError, "phi"),
    "phi nan": (lambda: RescaledCFG(5.5, phi=math.nan), ValueError, "phi"),
    "phi text": (lambda: RescaledCFG(5.5, phi="0.7"), TypeError, "phi"),  # type: ignore[arg-type]
    "interval of text": (lambda: Interval("5.5"), TypeError, "guidance"),  # type: ignore[arg-type]
    "start below 0": (lambda: Interval(CFG(5.5), -1), ValueError, "start"),
    "stop before start": (lambda: Interval(CFG(5.5), 4, 2), ValueError, "stop"),
    "start no integer": (lambda: Interval(CFG(5.5), 1.5), TypeError, "start"),  # type: ignore[arg-type]
    "stop no integer": (lambda: Interval(CFG(5.5), 0, 2.5), TypeError, "stop"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_argument_is_refused_by_its_name(case: str) -> None:
    build, error, word = BAD[case]
    with pytest.raises(error, match=word):
        build()
