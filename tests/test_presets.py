"""Published methods, against loops written out by hand in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zigzag import DDIM, FlowEuler, count_rows, sample
from zigzag.presets import RF_SAMPLING, Mixture, rf_sampling, w2sd
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


def waves(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return torch.sin(x + cond.mean(1)) * (1 + t[:, None])


def moved(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """The exact flow of a Gaussian mixture that an embedding moves as a whole: that of the mixture, seen from there."""
    by = cond.mean(1)
    mixture = GaussianMixture(torch.tensor([[-1.0, 0.0, 0.3], [1.0, 0.5, -0.6]], dtype=torch.float64), 0.5)
    predict = mixture.predictor(FlowEuler.uniform(5))
    return predict(x - (1 - t)[:, None] * by, t, torch.full((len(x),), -1)) - by  # d/dt of (1 - t)·by


@pytest.mark.parametrize("field", [waves, moved])
@pytest.mark.parametrize(("model", "span", "strong", "weak"), [("dev", 1, 3.5, 0.0), ("lite", 2, 9.0, -1.0)])
def test_rf_sampling(model: str, span: int, strong: float, weak: float, field: Callable[..., Tensor]) -> None:
    """Embeddings `c + s·(0.7·c + 0.3·∅)` down and `c + s·(0.3·c + 0.7·∅)` up, half of which is kept, at every step."""
    solver, T = FlowEuler.uniform(5), 5
    generator = torch.Generator().manual_seed(0)
    c, empty = torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64) / 10
    x0 = torch.randn(2, 3, generator=generator, dtype=torch.float64)

    mix = RF_SAMPLING[model]
    conds = {"cond": mix.strong(c, empty), "weak_cond": mix.weak(c, empty), "plain_cond": c}
    x = sample(field, x0, solver, **rf_sampling(T, model=model), **conds)

    sigmas, y = solver.sigmas, x0

    def u(x: Tensor, i: int, cond: Tensor) -> Tensor:
        return field(x, sigmas[i].expand(2), cond)

    for i in range(T):
        z, end = y, min(i + span, T)
        for m in range(i, end):
            z = z + (sigmas[m + 1] - sigmas[m]) * u(z, m, c + strong * (0.7 * c + 0.3 * empty))
        for m in reversed(range(i, end)):
            z = z + (sigmas[m] - sigmas[m + 1]) * u(z, m, c + weak * (0.3 * c + 0.7 * empty))
        y = y + (z - y) / 2
        y = y + (sigmas[i + 1] - sigmas[i]) * u(y, i, c)
    torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-10)


def test_mixtures() -> None:
    """In the dtype of the embedding, with one empty embedding for all; nothing is added at a scale of 0."""
    c, empty = torch.randn(3, 4, 5).half(), torch.randn(1, 4, 5)
    assert torch.equal(Mixture(0.0, 0.7)(c, empty), c) and Mixture(2.0, 0.5)(c, empty).dtype == c.dtype
    torch.testing.assert_close(Mixture(1.0, 1.0)(c.float(), empty), c.float() + empty)
    assert torch.equal(Mixture(2.0, 0.5)(c, empty[0]), Mixture(2.0, 0.5)(c, empty))
    for other in (empty[:, :1], empty[..., :1], torch.randn(3, 6, 5)):
        with pytest.raises(ValueError, match=r"as long as the prompt's, \(3, 4, 5\), got .*encode both at one length"):
            Mixture(2.0, 0.5)(c, other)
    with pytest.raises(ValueError, match="model must be one of dev, lite, got 'schnell'"):
        rf_sampling(4, model="schnell")
