"""How much of a gap a Shift applies, and by how much a whole walk enlarged the scale."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from zigzag import (
    DDIM,
    EndToEnd,
    FlowEuler,
    ImplicitZ,
    Resampling,
    Shift,
    Standard,
    Trace,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
)
from zigzag.capture.graphs import TableLoop
from zigzag.strengths import CosineStrength, NormStrength, Seen, ShareStrength
from zigzag.zoo import GaussianMixture

T, S, W = 6, 3.0, 0.0
SOLVER = DDIM.stable_diffusion(T)
GENERATOR = torch.Generator().manual_seed(0)
X, C, U = (torch.randn(3, 4, dtype=torch.float64, generator=GENERATOR) for _ in range(3))
RULES: dict[str, Any] = {
    "0.3": 0.3, "-0.3": -0.3, "0": 0.0, "cos": CosineStrength(), "cos 1": CosineStrength(1.0),
    "share": ShareStrength(0.5), "norm": NormStrength(), "norm 0.01": NormStrength(0.01),
}  # fmt: skip


def field(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return torch.sin(x + cond) * (1 + 0.001 * t.to(x.dtype)[:, None])


def run(method: Any, **given: Any) -> Tensor:
    return sample(field, X, SOLVER, method, cond=C, uncond=U, strong=S, weak=W, **given)


def strength(rule: Any, gap: Tensor, before: Tensor | None, x: Tensor, e: Tensor, shift: float) -> Tensor:
    """Sample by sample in Python's own numbers; the largest strength of a norm by bisection."""
    if isinstance(rule, float):
        return torch.full((len(gap),), rule, dtype=gap.dtype)
    found = []
    for k in range(len(gap)):
        g, share = gap[k], 1.0
        if isinstance(rule, CosineStrength):
            cos = 0.0 if before is None else float(g @ before[k]) / (float(g @ g) * float(before[k] @ before[k])) ** 0.5
            share = max(0.0, cos) ** rule.power
        elif isinstance(rule, ShareStrength):
            share = min(1.0, rule.share * float(e[k] @ e[k]) ** 0.5 / float(g @ g) ** 0.5)
        elif isinstance(rule, NormStrength):
            bound = (1 + rule.growth) * float(x[k].norm())
            if float((x[k] + shift * g).norm()) > bound:
                low, high = 0.0, 1.0
                # From the far end: the norm may shrink before it grows.
                for _ in range(200):
                    middle = (low + high) / 2
                    grown = [float((x[k] + s * shift * g).norm()) > bound for s in (middle, (middle + high) / 2)]
                    low, high = (low, middle) if all(grown) else (middle, high)
                share = low
        found.append(share)
    return torch.tensor(found, dtype=gap.dtype)


def by_hand(rule: Any, fresh: bool) -> Tensor:
    x, gap, before, e = X, None, None, None
    for i in range(T):
        t, step = SOLVER.times[i].expand(3), SOLVER.step(i)
        a, b = float(step.a), float(step.b)

        def pair(x: Tensor, t: Tensor = t) -> tuple[Tensor, Tensor]:
            e_c, e_u = field(x, t, C), field(x, t, U)
            return e_u + S * (e_c - e_u), e_u

        if fresh:
            e, e_w = pair(x)
            before, gap = gap, e - e_w
        if gap is not None and e is not None:
            x = x + b / a * strength(rule, gap, before, x, e, b / a)[:, None] * gap
        e_s, e_w = pair(x)
        if not fresh:
            e, before, gap = e_s, gap, e_s - e_w
        x = a * x + b * e_s
    return x


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("fresh", [True, False])
def test_every_strength_is_the_loop_by_hand(rule: str, fresh: bool) -> None:
    given = RULES[rule]
    method = ImplicitZ(strength=given) if fresh else Z2Sampling(warmup=1, strength=given)
    got = run(method)
    torch.testing.assert_close(got, by_hand(given, fresh), rtol=1e-10, atol=1e-10)
    loop = TableLoop(field, X, SOLVER, method, cond=C, uncond=U, strong=S, weak=W)
    for _ in range(2):  # the second run finds nothing of the first
        torch.testing.assert_close(loop(X), got, rtol=1e-10, atol=1e-10)
    assert loop.rows == (4 if fresh else 2) * T


def test_strength_zero_is_standard_and_one_is_the_method() -> None:
    torch.testing.assert_close(run(Z2Sampling(1, strength=0.0)), run(Standard()), rtol=0, atol=0)
    torch.testing.assert_close(run(Z2Sampling(1, strength=1.0)), run(Z2Sampling(1)), rtol=0, atol=0)
    assert not torch.allclose(run(Z2Sampling(1, strength=0.5)), run(Z2Sampling(1)))


def test_rules_are_of_each_sample_alone() -> None:
    for rule in (CosineStrength(), ShareStrength(0.5), NormStrength(0.01)):
        whole = run(Z2Sampling(1, strength=rule))
        for k in range(len(X)):
            one = sample(
                field, X[k : k + 1], SOLVER, Z2Sampling(1, strength=rule), cond=C[k : k + 1], uncond=U[k : k + 1],
                strong=S, weak=W,
            )  # fmt: skip
            torch.testing.assert_close(whole[k : k + 1], one, rtol=1e-12, atol=1e-12)


def test_the_norm_of_the_state_grows_no_further() -> None:
    x, gap = torch.randn(64, 5, generator=GENERATOR), torch.randn(64, 5, generator=GENERATOR)
    for growth, shift in ((0.0, 1.0), (0.1, -2.0), (0.5, 0.3)):
        lam = NormStrength(growth)(gap, gap, SOLVER.info(0), Seen(x, gap, shift))
        norm, bound = (x + shift * lam[:, None] * gap).norm(dim=1), (1 + growth) * x.norm(dim=1)
        assert (norm <= bound * (1 + 1e-5)).all() and ((lam == 1) | (norm >= bound * (1 - 1e-5)) | (lam == 0)).all()


def test_bad_strengths_are_refused_before_the_first_call() -> None:
    for make in (lambda s: Z2Sampling(1, strength=s), lambda s: ImplicitZ(strength=s)):
        with pytest.raises(TypeError, match="strength must be a number, or a rule"):
            make("much")
        with pytest.raises(ValueError, match="strength must be finite"):
            make(float("nan"))
    with pytest.raises(TypeError, match=r"move 0 of the path.*strength must be a number"):
        run((Shift(0, True, None),))  # type: ignore[arg-type]
    for bad in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="power must be a finite number above 0"):
            CosineStrength(bad)
        with pytest.raises(ValueError, match="share must be a finite number above 0"):
            ShareStrength(bad)
    with pytest.raises(ValueError, match="growth must be a finite number of at least 0"):
        NormStrength(-0.1)
    with pytest.raises(TypeError, match="has no matched scale: its strength depends on the state"):
        matched_cfg(Z2Sampling(1, strength=CosineStrength()), SOLVER, S, W)
    with pytest.raises(TypeError, match="has no matched scale: a plain role"):
        matched_cfg(ZSampling(plain=True), SOLVER, S, W)


@pytest.mark.parametrize("number", [np.float32(0.25), Fraction(1, 4), np.float64(0.25)], ids=repr)
@pytest.mark.parametrize(
    "make", [lambda s: Z2Sampling(1, strength=s), lambda s: ImplicitZ(strength=s), lambda s: ZSampling(strength=s)]
)
def test_a_strength_is_any_real_number(make: Any, number: Any) -> None:
    """In the state's own dtype, whatever that of the number is."""
    found, expected = run(make(number)), run(make(0.25))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(run(make(np.int64(0))), run(make(0.0)), rtol=0, atol=0)


def test_a_rule_that_returns_another_shape_is_named() -> None:
    @dataclass(frozen=True)
    class Whole:
        reads_state = False

        def __call__(self, gap: Tensor, cached: Tensor, step: Any, *seen: Seen) -> Tensor:
            return gap

    with pytest.raises(ValueError, match=r"Whole\(\) must return a strength for each sample, \(3,\), got \(3, 4\)"):
        run(Z2Sampling(1, strength=Whole()))


# The effective scale -------------------------------------------------------------------------------------------------


def constant(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Branches that do not depend on the state, nor on the time."""
    return cond


@pytest.mark.parametrize("solver", [SOLVER, FlowEuler.uniform(T)], ids=["ddim", "flow"])
@pytest.mark.parametrize(
    "method",
    [ZSampling(), ZSampling(rounds=2), ZSampling(span=2), ImplicitZ(), Z2Sampling(2), Z2Sampling(2, strength=0.4),
     EndToEnd()],
    ids=str,
)  # fmt: skip
def test_on_a_constant_field_it_is_the_matched_scale(method: Any, solver: Any) -> None:
    trace, w = Trace(), 0.5
    sample(constant, X, solver, method, cond=C, uncond=U, strong=S, weak=w, trace=trace)
    matched, total = matched_cfg(method, solver, S, w), torch.zeros(len(X), dtype=X.dtype)
    last = {record.move.start: record for record in trace.records if record.move.end == record.move.start + 1}
    for i in range(T):
        added = matched.at(solver.info(i)) - S
        beta = last[i].beta
        if abs(added) > 1e-9:
            assert beta is not None
            torch.testing.assert_close(beta, torch.full_like(beta, added), rtol=1e-8, atol=1e-8)
            total += added / T
        else:
            assert beta is None or float(beta.abs().max()) < 1e-8
    assert trace.beta is not None
    torch.testing.assert_close(trace.beta, total, rtol=1e-8, atol=1e-8)


def test_it_costs_no_row_and_changes_nothing() -> None:
    for method in (ZSampling(), ImplicitZ(), Z2Sampling(2), Resampling()):
        trace, plain = Trace(), Trace()
        with_it = run(method, trace=trace, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(with_it, run(method, generator=torch.Generator().manual_seed(1)), rtol=0, atol=0)
        run(Standard(), trace=plain)
        assert plain.beta is None and trace.beta is not None and trace.beta.shape == (3,)
        assert (
            trace.rows == {"ZSampling": 27, "ImplicitZ": 24, "Z2Sampling": 12, "Resampling": 22}[type(method).__name__]
        )


def test_it_is_the_projection_on_the_plain_direction_where_the_state_is_left() -> None:
    """Z² at one step, by hand, on the exact Gaussian mixture: ⟨Δ, g⟩/⟨g, g⟩ at the shifted state."""
    mixture = GaussianMixture(torch.randn(4, 4, dtype=torch.float64, generator=GENERATOR), 0.3)
    fn = mixture.predictor(SOLVER)
    c, u = torch.tensor([0, 1, 2]), torch.full((3,), -1)
    visits, trace = [], Trace()
    sample(
        fn, X, SOLVER, Z2Sampling(3, steps=4), cond=c, uncond=u, strong=S, weak=W, trace=trace, callback=visits.append
    )
    before, after = visits[2].state, visits[3].state
    a, b = float(SOLVER.step(3).a), float(SOLVER.step(3).b)
    t = SOLVER.times[3].expand(3)
    g = fn(after, t, c) - fn(after, t, u)
    expected = ((after - before) * a / b * g).sum(1) / (g * g).sum(1)
    (record,) = [record for record in trace.records if record.beta is not None]
    assert record.move.start == 3 and record.beta is not None
    torch.testing.assert_close(record.beta, expected, rtol=1e-9, atol=1e-9)


def test_it_needs_both_branches() -> None:
    trace = Trace()
    sample(
        field, X, SOLVER, ZSampling(), cond=C, uncond=U, strong=1.0, weak=0.0, trace=trace
    )  # the strong prediction is the conditional branch alone
    assert trace.beta is None


@pytest.mark.parametrize("name", RULES)
def test_a_state_of_one_number_a_sample_is_shifted_and_traced_like_a_column(name: str) -> None:
    def flat_field(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return torch.sin(x + cond) * (1 + 0.001 * t.to(x.dtype))

    traces = flat, column = Trace(), Trace()
    method = Z2Sampling(warmup=1, strength=RULES[name])
    found = sample(flat_field, X[:, 0], SOLVER, method, cond=C[:, 0], uncond=U[:, 0], strong=S, trace=flat)
    wanted = sample(field, X[:, :1], SOLVER, method, cond=C[:, :1], uncond=U[:, :1], strong=S, trace=column)
    torch.testing.assert_close(found, wanted[:, 0])
    deltas = [torch.stack([record.delta for record in trace.records if record.delta is not None]) for trace in traces]
    torch.testing.assert_close(*deltas)
