"""Published methods, against loops written out by hand in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zigzag import DDIM, count_rows, sample
from zigzag.presets import w2sd
from zigzag.zoo import GaussianMixture

MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.5]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])
COND, UNCOND = torch.tensor([0, 1]), torch.tensor([-1, -1])
SOLVER = DDIM.stable_diffusion(8)
NOISE = torch.tensor([[0.3, -1.1], [-0.8, 0.6]], dtype=torch.float64)


def network(strength: float) -> GaussianMixture:
    """What a LoRA of that strength makes of a model: here it moves the modes."""
    return GaussianMixture(MEANS + 0.3 * strength, 0.5, labels=LABELS)


@pytest.mark.parametrize("released", [False, True])
def test_w2sd(released: bool) -> None:
    """Strength 1.5 under CFG 5.5 down, −1.5 under CFG 1 up, and 0.8 under CFG 5.5 down, at all steps but the last."""
    strong, weak, plain = (network(k).predictor(SOLVER) for k in (1.5, -1.5, 0.8))
    x = sample(strong, NOISE, SOLVER, **w2sd(released=released), weak_fn=weak, plain_fn=plain, cond=COND, uncond=UNCOND)

    alphas, sigmas = SOLVER.alphas.double(), SOLVER.sigmas.double()

    def ddim(x: Tensor, e: Tensor, i: int, j: int) -> Tensor:
        return alphas[j] * (x - sigmas[i] * e) / alphas[i] + sigmas[j] * e

    y, T = NOISE, len(SOLVER)
    for i in range(T):
        t = SOLVER.times[i].expand(2)

        def guided(fn: object, w: float, x: Tensor, t: Tensor = t) -> Tensor:
            e_c, e_u = fn(x, t, COND), fn(x, t, UNCOND)  # type: ignore[operator]
            e: Tensor = e_u + w * (e_c - e_u)
            return e

        if i < T - 1:
            down, k = ddim(y, guided(strong, 5.5, y), i, i + 1), i + 1 if released else i
            y = ddim(down, guided(weak, 1.0, down), k + 1, k)  # DDIM is inverted by exchanging the two levels
        y = ddim(y, guided(plain, 5.5, y), i, i + 1)
    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_the_rows_of_w2sd() -> None:
    """2 down, 1 up, 2 down."""
    preset = w2sd()
    scales = (preset["strong"], preset["weak"])
    rows = count_rows(preset["method"], 50, *scales, own_weak=True, plain=preset["plain"], own_plain=True)
    assert rows == (2 + 1 + 2) * 49 + 2
    assert w2sd(steps=3, released=True)["method"].path(5) != w2sd(steps=3)["method"].path(5)
