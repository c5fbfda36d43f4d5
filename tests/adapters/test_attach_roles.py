"""Roles of an attached pipeline, whose calls are edited for them, against `zigzag.sample` with predictors of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag import CFG, ImplicitZ, Trace, Z2Sampling, ZSampling, count_rows

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
adapters = pytest.importorskip("zigzag.adapters.diffusers")
attach, Role = adapters.attach, adapters.Role

Tiny = Callable[..., Any]
METHODS = [ZSampling(steps=3, refine=1), ImplicitZ(steps=4), Z2Sampling(warmup=2)]
TOKENS = 5


def named(method: Any) -> str:
    return type(method).__name__


def check_same(x: Tensor, y: Tensor) -> None:
    assert x.shape == y.shape and float((x - y).norm() / y.norm()) <= 1e-5


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_role(case: Any, method: Any, weak: Any, weak_cond: dict[str, Any], batch: int) -> None:
    """What the pipeline makes is what `zigzag.sample` makes with that condition, and another than without; rows too."""
    plain = case.run()
    with attach(case.pipe, method, weak=weak) as run, case.counted() as rows:
        x = case.run()
    check_same(x, case.sampled(method, weak=1.0, weak_cond=weak_cond))
    own = count_rows(method, case.solver(), strong=1.0, weak=1.0, own_weak=("cond",))
    assert run.rows == sum(rows) / batch == own
    with pytest.raises(AssertionError):  # the mutant that does nothing
        check_same(plain, x)
    assert torch.equal(case.run(), plain)


@pytest.fixture
def one_branch(tiny: Tiny) -> Tiny:
    import tiny_distilled

    made: Tiny = tiny_distilled.one_branch
    return made


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize(("family", "unit"), [("flux", 1.0), ("flux2", 1.0), ("hunyuan_video", 1000.0)])
def test_a_lower_embedded_scale(family: str, unit: float, method: Any, one_branch: Tiny) -> None:
    """In the pipeline's own unit, whatever its model is told."""
    case = one_branch(family, batch := 2)
    weak_cond = {**case.cond, "guidance": torch.full((batch,), 1.5 * unit)}
    check_role(case, method, Role(guidance=1.5), weak_cond, batch)


@pytest.mark.parametrize("method", METHODS, ids=named)
@pytest.mark.parametrize("family", ["flux", "flux2", "hunyuan_video", "ltx", "sdxl"])
def test_another_prompt(family: str, method: Any, one_branch: Tiny) -> None:
    """As embeddings for the pipeline's own `encode_prompt`, and as the same arguments of the model."""
    case, batch = one_branch(family), 1
    other = normal(batch, TOKENS, 16, seed=8)
    prompt: dict[str, Any] = {"prompt_embeds": other}
    weak_cond = {**case.cond, "encoder_hidden_states": other}
    if family in ("flux", "hunyuan_video"):
        prompt["pooled_prompt_embeds"] = pooled = normal(batch, 16 if family == "flux" else 8, seed=9)
        weak_cond["pooled_projections"] = pooled
    if family == "sdxl":
        prompt["pooled_prompt_embeds"] = pooled = normal(batch, 16, seed=9)
        weak_cond["added_cond_kwargs"] = {**case.cond["added_cond_kwargs"], "text_embeds": pooled}
    if family in ("hunyuan_video", "ltx"):
        prompt["prompt_attention_mask"] = case.call["prompt_attention_mask"]
    check_role(case, method, Role(prompt=prompt), weak_cond, batch)
    edit = {k: v for k, v in weak_cond.items() if k != "guidance"}
    check_role(case, method, Role(edit=edit), weak_cond, batch)
