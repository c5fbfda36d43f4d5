"""What the one loop promises a guidance: its scale, its state and its step."""

from __future__ import annotations

import pytest
import torch

from support.predictors import field
from support.sampling import COND, FLOAT, INTEGER, UNCOND, X
from zigzag import CFG, Standard, ZSampling, sample
from zigzag.moves import Denoise, Invert, Shift


def test_a_number_is_the_guidance_of_that_scale() -> None:
    number = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=5.5, weak=0.5)
    rule = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=CFG(5.5), weak=CFG(0.5))
    gamma = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=CFG.from_gamma(5.5), weak=0.5)
    assert torch.equal(number, rule) and not torch.allclose(number, gamma)
    default = sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND)
    assert torch.equal(default, sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, strong=5.5, weak=0.0))


class Counting(CFG):
    """A guidance with state: its scale grows with every call since the last reset."""

    resets = 0
    calls = 0

    def reset(self) -> None:
        object.__setattr__(self, "resets", self.resets + 1)
        object.__setattr__(self, "calls", 0)

    def __call__(self, e_c: torch.Tensor, e_u: torch.Tensor, step: object) -> torch.Tensor:
        object.__setattr__(self, "calls", self.calls + 1)
        return e_u + (1 + self.calls) * (e_c - e_u)


def check_reset(guidance: Counting, slot: str) -> None:
    scales = {"strong": 3.0, "weak": 0.5} | {slot: guidance}
    one, two = (sample(field, X, FLOAT, ZSampling(), cond=COND, uncond=UNCOND, **scales) for _ in range(2))
    assert torch.equal(one, two) and guidance.calls > 0


@pytest.mark.parametrize("slot", ["strong", "weak"])
def test_a_guidance_with_state_is_reset_before_every_sample(slot: str) -> None:
    guidance = Counting(2.5)
    check_reset(guidance, slot)
    assert guidance.resets >= 2

    class Forgetful(Counting):
        def reset(self) -> None:
            pass

    with pytest.raises(AssertionError):
        check_reset(Forgetful(2.5), slot)


def test_a_guidance_without_state_needs_no_reset() -> None:
    class Plain:
        def branches(self, step: object) -> tuple[bool, bool]:
            return True, False

        def __call__(self, e_c: torch.Tensor, e_u: torch.Tensor | None, step: object) -> torch.Tensor:
            assert e_u is None
            return e_c

    y = sample(field, X, FLOAT, Standard(), cond=COND, strong=Plain())
    assert torch.equal(y, sample(field, X, FLOAT, Standard(), cond=COND, strong=1.0))


def test_a_guidance_is_told_the_step_that_a_move_takes_or_undoes() -> None:
    """step = (i, j, t_i, alpha_i, sigma_i, alpha_j, sigma_j), also for the Invert(j, i) and the Shift(i)."""
    for slot, want in {"strong": {(0, 1), (1, 2), (2, 3), (2, 4)}, "weak": {(0, 1), (2, 4), (1, 3)}}.items():
        seen: list[tuple[int, int]] = []

        class Asking(CFG):
            def __call__(
                self, e_c: torch.Tensor, e_u: torch.Tensor, step: object, seen: list[tuple[int, int]] = seen
            ) -> torch.Tensor:
                seen.append((step.i, step.j))
                assert step == INTEGER.info(step.i, step.j) and step.t == int(INTEGER.times[step.i])
                al, si = INTEGER.alphas.tolist(), INTEGER.sigmas.tolist()
                got = (step.alpha_i, step.sigma_i, step.alpha_j, step.sigma_j)
                assert got == (al[step.i], si[step.i], al[step.j], si[step.j])
                assert all(isinstance(v, int | float) for v in got)
                return e_u + 2.0 * (e_c - e_u)

        path = (
            Shift(0, True),
            Denoise(0, 1),
            Denoise(1, 2),
            Denoise(2, 4),
            Invert(4, 2),
            Denoise(2, 3),
            Invert(3, 1),
        )
        scales = {"strong": 3.0, "weak": 0.5} | {slot: Asking(2.0)}
        sample(field, X, INTEGER, path, cond=COND, uncond=UNCOND, **scales)
        assert set(seen) == want
