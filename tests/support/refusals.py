"""Arguments of `sample` and `walk`, and the check that they are refused before the first model call."""

from __future__ import annotations

import pytest
import torch

from support.predictors import untouched
from zigzag import FlowEuler, ZSampling, sample, walk

T, B = 4, 2
FLOW = FlowEuler.uniform(T)
X = torch.linspace(-1, 1, 6).reshape(B, 3)
C, U = torch.tensor([0.5, -0.5]), torch.tensor([0.0, 0.1])
WRONG = (TypeError, ValueError)


def refused(match: str, error: type[Exception] | tuple[type[Exception], ...] = ValueError, **changed: object) -> str:
    """The message with which `sample` and `walk` refuse these arguments, no model called."""
    given = {
        "eps_fn": untouched,
        "x": X,
        "solver": FLOW,
        "method": ZSampling(),
        "cond": C,
        "uncond": U,
    } | changed
    positional = [given.pop(name) for name in ("eps_fn", "x", "solver", "method")]
    with pytest.raises(error, match=match):
        list(walk(*positional, **given))
    with pytest.raises(error, match=match) as caught:
        sample(*positional, **given)
    return str(caught.value)
