"""Recorded attention is the attention there was, and the study reads it at the right words, steps and branch."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from zigzag import ZSampling
from zigzag.zoo.shapes import Noun, Thing

pytest.importorskip("diffusers")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
from zigzag.evaluation.studies import attention
from zigzag.evaluation.studies.attention import content_words, entropy, readings, recorded_attention, run
from zigzag.zoo.learned import MODELS, LearnedModel, create

TEXTS = ["a red circle above a blue square", "a circle and a triangle"]


def model(name: str = "shapes-unet") -> LearnedModel:
    """Untrained, in float64 so that rounding hides nothing, and random where networks begin with zeros."""
    torch.manual_seed(0)
    network = create(name)
    for p in network.parameters():
        nn.init.normal_(p, std=0.2) if p.ndim > 1 else None
    return LearnedModel(name, network.double().eval().requires_grad_(False))


def predict(of: LearnedModel) -> Tensor:
    x = torch.randn(2, *LearnedModel.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return of.eps_fn(x, of.solver(4).times[1].expand(2), of.encode(TEXTS))


def check_maps(of: LearnedModel, calls: list[Tensor], heads: int) -> None:
    """By another way: attention over the values 1, a row each, gives its weights. Q and K are those of the layers."""
    kept: dict[str, list[Tensor]] = {"to_q": [], "to_k": []}
    layers = [m for n, m in of.network.named_modules() if n.endswith("attn2") and getattr(m, "to_q", None)]
    hooks = [
        getattr(layer, key).register_forward_hook(lambda _m, _a, out, key=key: kept[key].append(out))
        for layer in layers
        for key in kept
    ]
    predict(of)
    for hook in hooks:
        hook.remove()
    maps = []
    for q, k in zip(kept["to_q"], kept["to_k"], strict=True):
        q, k = (h.unflatten(-1, (heads, -1)).transpose(1, 2) for h in (q, k))  # type: ignore[no-untyped-call]
        ones = torch.eye(k.shape[-2], dtype=k.dtype).expand(*k.shape[:2], -1, -1)
        maps.append(scaled_dot_product_attention(q, k, ones).mean(1))
    assert len(calls) == 1 and calls[0].shape == (len(layers), 2, 64, 8)
    torch.testing.assert_close(calls[0], torch.stack(maps), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "heads"), [("shapes-unet", 4), ("shapes-dit", 5)])
def test_what_is_recorded_is_the_attention_and_the_prediction_stays_the_same(name: str, heads: int) -> None:
    of = model(name)
    before, processors = predict(of), of.network.body.attn_processors  # type: ignore[union-attr]
    with recorded_attention(of.network) as calls:
        inside = predict(of)
    torch.testing.assert_close(inside, before, rtol=1e-12, atol=1e-12)
    assert of.network.body.attn_processors == processors  # type: ignore[union-attr]
    check_maps(of, calls, heads)
    for mutant in (calls[0].flip(0), calls[0].flip(1), calls[0].softmax(-1)):
        with pytest.raises(AssertionError):
            check_maps(of, [mutant], heads)
    predict(of)
    assert len(calls) == 1  # nothing is recorded after the block


@pytest.mark.parametrize("name", MODELS)
def test_an_error_puts_the_processors_back_and_a_call_that_broke_leaves_no_maps(name: str) -> None:
    of = model(name)
    body = of.network.body
    processors = body.attn_processors  # type: ignore[union-attr]
    last = [m for n, m in of.network.named_modules() if n.endswith("attn2") and getattr(m, "to_q", None)][-1]

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(KeyError), recorded_attention(of.network) as calls:
        hook = last.register_forward_hook(broken)
        with pytest.raises(RuntimeError, match="broken"):
            predict(of)
        hook.remove()
        predict(of)
        assert len(calls) == 1
        raise KeyError
    assert body.attn_processors == processors  # type: ignore[union-attr]
    assert not body._forward_hooks and not body._forward_pre_hooks  # type: ignore[union-attr]
    check_maps(of, calls, {"shapes-unet": 4, "shapes-dit": 5}[name])


def test_a_network_without_cross_attention_is_refused() -> None:
    network = nn.Module()
    network.body = nn.Module()
    network.body.attn_processors = {"attn1.processor": object()}  # type: ignore[assignment]
    wanted = r"must have cross-attention layers \(attn2\), got Module"
    with pytest.raises(ValueError, match=wanted), recorded_attention(network):
        pass


def test_colour_and_shape_words_belong_to_their_nouns() -> None:
    red, blue = Noun("circle", "red"), Noun("square", "blue")
    assert content_words("a red circle left of a blue square") == [(1, red), (2, red), (6, blue), (7, blue)]
    assert content_words("a circle and a triangle") == [(1, Noun("circle")), (4, Noun("triangle"))]
    assert content_words("three squares") == [(1, Noun("square"))]
    with pytest.raises(ValueError, match="is no caption"):
        content_words("red red red")


@pytest.mark.parametrize("n", [1, 2, 64])
def test_the_entropy_of_an_even_map_over_n_positions_is_log_n_and_its_scale_does_not_matter(n: int) -> None:
    p = torch.zeros(64)
    p[:n] = 0.3
    assert float(entropy(p)) == pytest.approx(math.log2(n), abs=1e-5)


def test_a_share_is_the_part_of_the_map_in_the_thing_that_the_noun_names() -> None:
    """The things fill whole blocks of 4×4 pixels: a square of 8 pixels a side centred on a corner of four."""
    side = 8 / math.sqrt(math.pi)  # the radius of the disc of that area
    scene = (Thing("square", "blue", 8, 24, side), Thing("square", "red", 24, 16, side))
    maps = torch.ones(1, 8, 64)
    maps.view(1, 8, 8, 8)[..., 5:7, 1:3] = 10
    out = readings(["a red circle above a blue square"], maps, [scene])[:, 0]
    share = 40 / (40 + 60)
    for word, row in ((6, 2), (5, 2), (1, 2), (6, 3)):
        there = (word, row) in ((5, 2), (6, 3))
        assert bool(out[row, word].isnan()) != there
        assert not there or float(out[row, word]) == pytest.approx(share, rel=1e-5)
    # No circle: an entropy for its words, and no share.
    assert out[0].isnan().logical_not().nonzero().flatten().tolist() == [1, 5]
    assert out[1].isnan().logical_not().nonzero().flatten().tolist() == [2, 6]
    assert not readings(["a red circle above a blue square"], maps, [()])[2:].isfinite().any()
    # Without a colour both squares count, and half of an even map's area is twice that of one.
    both = readings(["a square and a circle"], torch.ones(1, 8, 64), [scene])[3, 0, 1]
    assert float(both) == pytest.approx(8 / 64, rel=1e-5)


def test_the_maps_read_are_those_of_the_conditional_branch_at_the_two_denoise_moves_of_a_step() -> None:
    """At step 0 of Z-Sampling, against calls made by hand."""
    of, generator = model(), torch.Generator().manual_seed(1)
    x = torch.randn(2, *LearnedModel.shape, generator=generator, dtype=torch.float64)
    solver, cond, uncond = of.solver(3), of.encode(TEXTS), of.encode(["", ""])
    t = solver.times[0].expand(2)
    e_c, e_u = of.eps_fn(x, t, cond), of.eps_fn(x, t, uncond)
    x_1 = solver.step(0).forward(x, e_u + 4.0 * (e_c - e_u))
    x_tilde = solver.step(0).inverse(x_1, of.eps_fn(x_1, t, uncond))
    setting = attention.Setting(3, 4.0, 0.0, (0,))
    _, found = attention._maps(of, TEXTS, x, ZSampling(), setting)
    for state, got in zip((x, x_tilde), found[0], strict=True):
        with recorded_attention(of.network) as calls:
            of.eps_fn(state, t, cond)
        torch.testing.assert_close(got, calls[0].mean(0).mT, rtol=1e-6, atol=1e-9)
    assert (found[0][0] - found[0][1]).abs().max() > 1e-3


def test_the_study_writes_its_table_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(model(), tmp_path / "new", 6, steps=2, at=(0,))
    assert (tmp_path / "new/attention.txt").read_text() == text + "\n"
    assert (tmp_path / "new/attention.png").read_bytes().startswith(b"\x89PNG")
    assert all(title in text for title in attention.TITLES)
    # Before the first zigzag the matched arm stands where the anchor stands, and an even map has log2(64) bits.
    colours, shapes = (line.split()[1:5] for line in text.splitlines() if line.startswith("   0") and " 6.000" in line)
    assert colours[0] == colours[2] != colours[1] and shapes[0] == shapes[2]
    monkeypatch.setattr(attention, "_draw", lambda *_: None)
    monkeypatch.setattr(attention, "BATCH", 1)  # how the prompts are shared among batches changes nothing
    assert run(model(), tmp_path, 6, steps=2, at=(0,)) == text


def test_a_difference_is_paired_by_word_and_a_prompt_counts_once() -> None:
    """Two prompts, of one and of two words: means 1 and 3, so 2 ± 1.96·√2/√2."""
    words = torch.tensor([[1.0, math.nan], [2.0, 4.0], [math.nan, math.nan]])
    assert attention._difference(words).split() == ["+2.0000", "(+0.0400", "to", "+3.9600)", "2"]
    assert attention._difference(words[:1]).split() == ["-", "1"]


def test_bad_arguments_are_refused_before_the_first_model_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = LearnedModel("shapes-unet", nn.Identity())
    with pytest.raises(ValueError, match="prompts must be at least 6, got 5"):
        run(of, tmp_path, 5)
    with pytest.raises(ValueError, match=r"at must be steps that zigzag, 0 to 18 of 20, got \[0, 19\]"):
        run(of, tmp_path, at=[0, 19])
    with pytest.raises(ValueError, match="strong must not be 0"):
        run(of, tmp_path, strong=0.0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'zigzag-diffusion\[plots\]'"):
        run(of, tmp_path)
    assert not list(tmp_path.iterdir())
