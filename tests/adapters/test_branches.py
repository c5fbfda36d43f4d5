"""Telling a pipeline's two branches apart by what it makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("diffusers")
branches = pytest.importorskip("zigzag.adapters.diffusers.branches")
layouts = pytest.importorskip("zigzag.adapters.diffusers.layouts")
Names, Naming = branches.Names, pytest.importorskip("zigzag.adapters.diffusers.naming").Naming
rows_per_sample, shape_of, split_branches = layouts.rows_per_sample, layouts.shape_of, layouts.split_branches

SCALES = st.floats(1.05, 30.0)
GAPS = st.floats(-3.0, 1.0).map(lambda power: 10.0**power)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
RULES = ["plain", "by sample", "by row", "by channels"]


def pair(gap: float, seed: int, shape: tuple[int, ...] = (2, 4, 16, 16)) -> tuple[Tensor, Tensor]:
    """An unconditional prediction, and a conditional one that differs from it by a share of `gap`."""
    generator = torch.Generator().manual_seed(seed)
    e_u, d = (torch.randn(shape, generator=generator) for _ in range(2))
    return e_u, e_u + gap * d


def name_branches(p: Tensor, q: Tensor, m: Tensor) -> Any:
    """At a state that the pipeline has not mixed in."""
    return branches.name_branches(p, q, m, torch.randn(m.shape, generator=torch.Generator().manual_seed(99)))


def guide(e_u: Tensor, e_c: Tensor, w: float, rule: str, sign: int) -> Tensor:
    """Guidance in the arithmetic of the branches, rescaled or renormalised as pipelines do it."""
    e = e_u + w * (e_c - e_u)
    if rule == "by sample":
        dims = tuple(range(1, e.ndim))
        e = e * (0.7 * e_c.std(dims, keepdim=True) / e.std(dims, keepdim=True) + 0.3)
    if dim := {"by row": -1, "by channels": 1}.get(rule):
        e = e * (e_c.norm(dim=dim, keepdim=True) / e.norm(dim=dim, keepdim=True))
    return e if sign > 0 else -e


@given(w=SCALES, gap=GAPS, seed=st.integers(0, 9), rule=st.sampled_from(RULES), sign=st.sampled_from([1, -1]))
def test_the_branches_are_told_apart(w: float, gap: float, seed: int, rule: str, sign: int) -> None:
    """At any scale above 1, either order, either sign, rescaled or not; and the mutants are other answers."""
    e_u, e_c = pair(gap, seed)
    m = guide(e_u, e_c, w, rule, sign)
    assert name_branches(e_u, e_c, m) == Names(cond=1, sign=sign)
    assert name_branches(e_c, e_u, m) == Names(cond=0, sign=sign)
    named = Names(cond=1, sign=sign).of([e_u, e_c], m, m)
    assert torch.equal(named.cond, sign * e_c) and torch.equal(named.uncond, sign * e_u)


@given(w=st.floats(1.5, 15.0), seed=st.integers(0, 9), dtype=DTYPES, sign=st.sampled_from([1, -1]))
def test_half_precision_is_enough(w: float, seed: int, dtype: torch.dtype, sign: int) -> None:
    """Also where the pipeline guides in half precision, at gaps as of trained models."""
    e_u, e_c = (e.to(dtype) for e in pair(0.1, seed, (2, 4, 32, 32)))
    assert name_branches(e_u, e_c, guide(e_u, e_c, w, "plain", sign)) == Names(cond=1, sign=sign)
    wide = guide(e_u.float(), e_c.float(), w, "plain", sign)  # some widen before they guide
    assert name_branches(e_u, e_c, wide) == Names(cond=1, sign=sign)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("few", [1, 12])
def test_rows_that_are_kept_have_no_gap(rule: str, few: int) -> None:
    """Few of them or most, from the first call on: what the scheduler is given there is that of both branches."""
    naming, kept = Naming(), torch.arange(16)[:, None] < few
    for call in range(2):
        e_u, e_c = pair(0.5, call)
        m = guide(e_u, e_c, 4.0, rule, 1).masked_fill(kept, 0.1 * call)  # which moves away from what is given, say
        found, rows = naming([torch.cat([e_u, e_c])], m, torch.ones_like(m))
        assert rows == 2
        for part, e in zip(found, (e_c, e_u), strict=True):
            assert torch.equal(part, torch.where(kept, m, e))


@given(known=st.integers(1, 4), seed=st.integers(0, 9), w=SCALES, sign=st.sampled_from([1, -1]))
def test_first_frames_that_the_pipeline_knows_have_no_gap(known: int, seed: int, w: float, sign: int) -> None:
    """What it says of them is neither branch's; the others are told apart as ever."""
    e_u, e_c = pair(0.5, seed, (2, 4, 5, 4, 4))
    own, x = pair(1.0, seed + 10, e_u.shape)
    m = guide(e_u, e_c, w, "plain", sign)
    m[:, :, :known] = own[:, :, :known]
    (cond, uncond), rows = Naming()([e_c, e_u], m, x)
    assert rows == 2
    for found, branch in ((cond, sign * e_c), (uncond, sign * e_u)):
        assert torch.equal(found[:, :, :known], m[:, :, :known])
        assert torch.equal(found[:, :, known:], branch[:, :, known:])


@pytest.mark.parametrize("which", ["all", "last", "guided otherwise"])
def test_frames_that_are_not_known_at_first_are_refused(which: str) -> None:
    e_u, e_c = pair(0.5, 0, (2, 4, 5, 4, 4))
    own, x = pair(1.0, 10, e_u.shape)
    m = guide(e_u, e_c, 4.0, "plain", 1)
    if which == "guided otherwise":
        m[:, :, :2] = guide(e_u, e_c, 2.0, "plain", 1)[:, :, :2]
        m = m.flatten(-2).unsqueeze(-1)  # rows of one entry, for a scale of each row's own is followed
        e_u, e_c, x = (each.flatten(-2).unsqueeze(-1) for each in (e_u, e_c, x))
    else:
        part = slice(None) if which == "all" else slice(-1, None)
        m[:, :, part] = own[:, :, part]
    with pytest.raises(ValueError, match="not a combination"):
        Naming()([e_c, e_u], m, x)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_equal_branches_have_no_names_yet(scale: float) -> None:
    e_u = scale * pair(0.0, 0)[0]
    assert name_branches(e_u, e_u.clone(), e_u) is None


@given(w=SCALES, seed=st.integers(0, 9), rule=st.sampled_from(RULES), sign=st.sampled_from([1, -1]), dtype=DTYPES)
def test_equal_branches_are_the_pipelines_own_prediction(w: float, seed: int, rule: str, sign: int, dtype: Any) -> None:
    """`k·(e + w·(e − e)) = k·e`, at any scale, rescaled or not: no gap, whatever the roundings; names come later."""
    e = pair(0.0, seed)[0].to(dtype)
    m, naming = guide(e, e, w, rule, sign), Naming()
    named, rows = naming([torch.cat([e, e])], m, torch.randn(m.shape))
    assert torch.equal(named.cond, m) and torch.equal(named.uncond, m) and rows == 2
    e_u, e_c = pair(0.3, seed)
    named, rows = naming([torch.cat([e_u, e_c])], guide(e_u, e_c, w, rule, sign), torch.randn(m.shape))
    assert torch.equal(named.cond, sign * e_c) and torch.equal(named.uncond, sign * e_u) and rows == 2


CONVERSIONS = {  # of a prediction e at x, as pipelines do it
    "x0 into v": lambda e, x, sigma: (x - e) / sigma,
    "preconditioned": lambda e, x, sigma: (x - (x / (1 + sigma) - sigma / (1 + sigma) * e)) / sigma,
}


@given(
    w=st.floats(1.5, 15.0), gap=st.floats(-1.5, 0.5).map(lambda power: 10.0**power), seed=st.integers(0, 9),
    kind=st.sampled_from([*CONVERSIONS]), sigma=st.sampled_from([0.1, 0.5, 1.0, 20.0]), swapped=st.booleans(),
)  # fmt: skip
def test_a_prediction_made_of_another_is_followed(
    w: float, gap: float, seed: int, kind: str, sigma: float, swapped: bool
) -> None:
    """Guidance first and then `A·x + k·e`: each branch is what the pipeline would make of it alone."""
    (e_u, e_c), naming = pair(gap, seed), Naming()
    for at in (sigma, 0.7 * sigma):  # A and k are another at each call
        x = torch.randn(e_u.shape, generator=torch.Generator().manual_seed(seed + 50)) * max(1.0, at)
        made = [CONVERSIONS[kind](e, x, at) for e in (e_u, e_c, e_u + w * (e_c - e_u))]
        named, _ = naming([e_c, e_u] if swapped else [e_u, e_c], made[2], x)
        for branch, wanted in ((named.uncond, made[0]), (named.cond, made[1])):
            assert float((branch - wanted).norm()) <= 1e-4 * float(made[2].norm())


@pytest.mark.parametrize("w", [0.25, 0.5, 0.75])
def test_scales_between_0_and_1_are_refused(w: float) -> None:
    e_u, e_c = pair(0.3, 0)
    with pytest.raises(ValueError, match="guidance scale above 1"):
        name_branches(e_u, e_c, guide(e_u, e_c, w, "plain", 1))


@given(share=st.floats(1e-3, 1.0), seed=st.integers(0, 9))
def test_guidance_that_is_no_combination_is_refused(share: float, seed: int) -> None:
    """A third prediction in it, a clamp, a part of the channels only."""
    e_u, e_c = pair(0.3, seed)
    other = torch.randn(e_u.shape, generator=torch.Generator().manual_seed(seed + 100))
    m = guide(e_u, e_c, 4.0, "plain", 1)
    partial = torch.cat([m[:, :3], e_c[:, 3:]], 1)
    for odd in (m + share * other, m.clamp(-1, 1), torch.tanh(m)):
        with pytest.raises(ValueError, match="not a combination"):
            name_branches(e_u, e_c, odd)
    # Row by row a part of the channels is a combination, and tells the same.
    assert name_branches(e_u, e_c, partial) == Names(cond=1, sign=1)


def test_branches_that_are_parallel_are_refused() -> None:
    """`e_c = 2·e_∅` fits any share: better no answer than a wrong one."""
    e_u, _ = pair(0.0, 0)
    with pytest.raises(ValueError, match="not a combination"):
        name_branches(e_u, 2 * e_u, guide(e_u, 2 * e_u, 4.0, "plain", 1))


LAYOUTS: list[tuple[Any, Tensor]] = [
    ([torch.zeros(4, 4, 8, 8)], torch.zeros(2, 4, 8, 8)),  # a doubled batch
    ([torch.zeros(2, 4, 8, 8)] * 2, torch.zeros(2, 4, 8, 8)),  # two calls
    ([torch.zeros(4, 8, 8, 8)], torch.zeros(2, 4, 8, 8)),  # with a variance
    ([[torch.zeros(4, 1, 8, 8)] * 4], torch.zeros(2, 4, 8, 8)),  # a list of single frames
    ([torch.zeros(4, 4, 3, 8, 8)], torch.zeros(6, 4, 8, 8)),  # frames folded into the batch
    ([torch.zeros(2, 20, 16)] * 2, torch.zeros(2, 16, 16)),  # tokens of a reference image behind
]


@pytest.mark.parametrize(("outputs", "guided"), LAYOUTS)
def test_every_layout_is_cut_into_two_branches(outputs: Any, guided: Tensor) -> None:
    parts, *others = split_branches(outputs, guided)
    assert not others or parts[0].shape != outputs[0].shape
    assert len(parts) == rows_per_sample(outputs, guided) == 2
    assert rows_per_sample([shape_of(output) for output in outputs], guided) == 2
    assert all(part.shape == guided.shape for part in parts)


def test_the_order_of_a_layout_is_kept() -> None:
    """Entries are marked by branch, sample, frame and channel, and come out where the scheduler has them."""
    marks = torch.arange(2 * 2 * 4 * 3).reshape(4, 4, 3, 1, 1).float()  # (branch·sample, channel, frame)
    (parts,) = split_branches([marks], torch.zeros(6, 4, 1, 1))
    for branch, part in enumerate(parts):
        for sample in range(2):
            for frame in range(3):
                assert torch.equal(part[sample * 3 + frame], marks[branch * 2 + sample, :, frame])


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_first_frame_that_is_cut_off_is_no_part_of_the_prediction(tokens: bool, sign: int) -> None:
    """The layout is the one under which guidance is a combination, frames or tokens of frames."""
    e_u, e_c = pair(0.3, 1, (2, 4, 3, 2, 2))
    m = guide(e_u, e_c, 4.0, "plain", sign)[:, :, 1:]
    outputs = [e.flatten(2).mT if tokens else e for e in (e_u, e_c)]
    named, _ = Naming()(outputs, m, torch.randn(m.shape))
    assert torch.equal(named.cond, sign * e_c[:, :, 1:]) and torch.equal(named.uncond, sign * e_u[:, :, 1:])


def test_text_before_an_image_in_one_branch_or_at_one_call_is_no_part_of_the_prediction() -> None:
    """Ideogram's unconditional branch has none, and Qwen-Image 2.1's later calls give none."""
    (e_u, e_c), text = pair(0.3, 1, (2, 6, 5)), torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(7))
    longer, m, naming = torch.cat([text, e_c], 1), guide(e_u, e_c, 4.0, "plain", 1), Naming()
    for outputs in ([longer, e_u], [longer, torch.cat([text, e_u], 1)], [e_c, e_u]):
        named, rows = naming(outputs, m, torch.randn(m.shape))
        assert rows == 2 and torch.equal(named.cond, e_c) and torch.equal(named.uncond, e_u)


@pytest.mark.parametrize(
    ("outputs", "guided"),
    [([torch.zeros(5, 4, 8, 8)], torch.zeros(2, 4, 8, 8)), ([torch.zeros(4, 2, 8, 8)], torch.zeros(2, 4, 8, 8))],
)
def test_other_layouts_are_refused(outputs: Any, guided: Tensor) -> None:
    with pytest.raises(ValueError, match="attach can"):
        split_branches(outputs, guided)
    assert rows_per_sample(outputs, guided) in (2, 3)
