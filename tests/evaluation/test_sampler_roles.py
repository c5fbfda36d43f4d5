"""Samplers whose roles have another prompt or network draw what `sample` draws, at the rows that they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("scipy")
from support.evaluations import moody
from support.samplers import METHODS, SCALES, TEXTS, T, X, check_rows, seeded
from zigzag import ImplicitZ, Move, Standard, Z2Sampling, ZSampling, sample
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.sampling import Predictor
from zigzag.zoo.learned import LearnedModel


def half(model: LearnedModel) -> Predictor:
    """A weaker network: it says half of what the model does."""
    return lambda x, t, cond: model.eps_fn(x, t, cond) / 2


OTHER: tuple[dict[str, Any], ...] = (
    {"weak_prompt": "two circles"}, {"weak_fn": half}, {"weak_prompt": ""}, {"weak_negative_prompt": "a square"},
)  # fmt: skip
GIVEN = {
    "weak_prompt": "weak_cond", "weak_negative_prompt": "weak_uncond", "plain_prompt": "plain_cond",
    "plain_negative_prompt": "plain_uncond",
}  # fmt: skip


def encoded(model: LearnedModel, role: dict[str, Any]) -> dict[str, Any]:
    """The prompts of a role as `sample` takes them, and the rest as it is."""
    return {GIVEN.get(k, k): model.encode([v] * 3) if k in GIVEN else v for k, v in role.items()}


@pytest.mark.parametrize("role", OTHER, ids=["prompt", "network", "empty prompt", "negative prompt"])
@pytest.mark.parametrize("method", [ZSampling(), ImplicitZ(), Z2Sampling(warmup=1)], ids=str)
def test_a_draw_under_another_weak_role_is_that_of_sample(method: ZSampling, role: dict[str, Any]) -> None:
    model = moody()
    sampler = Sampler(method, T, 2.5, 0.5, **role)
    drawn = sampler.draw(model, TEXTS, X, seeded())
    given = {"weak_fn": half(model)} if "weak_fn" in role else encoded(model, role)
    x = sample(
        model.eps_fn, X, model.solver(T), method, cond=model.encode(TEXTS), uncond=model.encode([""] * 3), strong=2.5,
        weak=0.5, **given,
    )  # fmt: skip
    assert torch.equal(drawn, model.decode(x))
    assert not torch.equal(drawn, Sampler(method, T, 2.5, 0.5).draw(model, TEXTS, X, seeded()))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rows_under_another_weak_role_are_those_that_run(method: ZSampling) -> None:
    for strong, weak in SCALES:
        if weak:
            check_rows(Sampler(method, T, strong, weak, weak_prompt="a circle"))
        if weak not in (0, 1):
            check_rows(Sampler(method, T, strong, weak, weak_prompt="a circle", weak_negative_prompt="a square"))
        if weak != 1:
            check_rows(Sampler(method, T, strong, weak, weak_negative_prompt="a square"))
        check_rows(Sampler(method, T, strong, weak, weak_fn=half))


PLAIN: tuple[dict[str, Any], ...] = (
    {"plain": 0.5}, {"plain": 0.0, "plain_negative_prompt": "a square"}, {"plain_prompt": "two circles"},
    {"plain": 1.0, "plain_prompt": "two circles"}, {"plain": 2.0, "plain_prompt": "", "plain_negative_prompt": "a"},
)  # fmt: skip


@pytest.mark.parametrize("role", PLAIN, ids=str)
@pytest.mark.parametrize("weak", [{"weak": 0.0}, {"weak": 1.0, "weak_prompt": "two circles"}], ids=str)
def test_a_draw_under_another_plain_role_is_that_of_sample(weak: dict[str, Any], role: dict[str, Any]) -> None:
    """Its scale, and the prompts of both its branches, in the Denoise that leaves a knot for good, and nowhere else."""
    model, method = moody(), ZSampling(plain=True, strength=0.5)
    sampler = Sampler(method, T, 2.5, **weak, **role)
    x = sample(
        model.eps_fn, X, model.solver(T), method, cond=model.encode(TEXTS), uncond=model.encode([""] * 3), strong=2.5,
        **encoded(model, weak), **encoded(model, role),
    )  # fmt: skip
    drawn = sampler.draw(model, TEXTS, X)
    assert torch.equal(drawn, model.decode(x))
    assert not torch.equal(drawn, Sampler(method, T, 2.5, **weak).draw(model, TEXTS, X))
    check_rows(sampler)


def twice(model: LearnedModel) -> Predictor:
    return lambda x, t, cond: model.eps_fn(x, t, cond) * 2


def third(model: LearnedModel) -> Predictor:
    return lambda x, t, cond: model.eps_fn(x, t, cond) / 3


def test_a_draw_of_three_networks_is_that_of_sample() -> None:
    model, method = moody(), ZSampling(plain=True)
    sampler = Sampler(method, T, 2.5, 1.0, strong_fn=twice, weak_fn=half, plain_fn=third)
    drawn = sampler.draw(model, TEXTS, X)
    x = sample(
        twice(model), X, model.solver(T), method, cond=model.encode(TEXTS), uncond=model.encode([""] * 3), strong=2.5,
        weak=1.0, weak_fn=half(model), plain_fn=third(model),
    )  # fmt: skip
    assert torch.equal(drawn, model.decode(x))
    assert sampler.rows() == 2 + (T - 1) * (2 + 1 + 2)
    check_rows(sampler)


class Mine:
    """A path with plain steps of one's own."""

    def path(self, T: int) -> tuple[Move, ...]:
        return ZSampling(plain=True).path(T)


class Empty:
    """A function of the model that is nothing, if it is asked for its truth."""

    def __len__(self) -> int:
        return 0

    def __call__(self, model: LearnedModel) -> Predictor:
        return half(model)


def test_a_strong_network_alone_is_a_model_of_its_own() -> None:
    """Its standard sampling is its own too; a plain network has no matched scale, and what it is compared with."""
    method = ZSampling(plain=True)
    alone = Sampler(Standard(), T, 4.0, strong_fn=twice)
    assert not alone.other_role and replace(alone, method=ZSampling()).standard == alone
    assert "matched scale" in baselines(replace(alone, method=ZSampling()))
    mine = Mine()
    for sampler in (*(replace(alone, method=m) for m in (method, mine)), replace(alone, method=method, plain_fn=half)):
        found = baselines(sampler)
        assert [*found] == ["same rows"] and found["same rows"].strong_fn is twice
        assert found["same rows"].plain_fn is None


def test_a_weak_role_of_its_own_has_no_matched_scale() -> None:
    """Its gap is along another direction; what plain guidance as many rows buy is there, of the model as it is."""
    for role in OTHER:
        sampler = Sampler(ZSampling(), T, 4.0, 0.5, **role)
        found = baselines(sampler)
        assert [*found] == ["same rows"] and not found["same rows"].other_role
        with pytest.raises(ValueError, match="a path with another role has no matched scale"):
            replace(sampler, method=Standard(), matched=ZSampling())


def test_a_plain_role_of_its_own_has_no_matched_scale_and_no_part_in_what_it_is_compared_with() -> None:
    for role in PLAIN:
        found = baselines(Sampler(ZSampling(plain=True), T, 4.0, 1.0, **role))
        assert [*found] == ["same rows"] and not found["same rows"].other_role
    with pytest.raises(ValueError, match=r"plain.* was passed, but ImplicitZ.* has no plain Denoise"):
        Sampler(ImplicitZ(), T, 4.0, plain=2.0).rows()


def test_roles_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match="weak_prompt must be a text, got 3"):
        Sampler(ZSampling(), T, 4.0, 1.0, weak_prompt=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weak_fn must be a function of the model"):
        Sampler(ZSampling(), T, 4.0, weak_fn="dit")  # type: ignore[arg-type]
    for name in ("strong_fn", "weak_fn", "plain_fn"):
        with pytest.raises(TypeError, match=f"{name} must be a function of the model, got 3"):
            Sampler(ZSampling(), T, 4.0, **{name: 3})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="error must be alone"):
            Sampler(ZSampling(), T, 4.0, error=0.5, **{name: Empty()})  # type: ignore[arg-type]
    unread = {"weak_negative_prompt": 1.0, "plain_prompt": 0.0, "plain_negative_prompt": 1.0}
    for name, scale in unread.items():
        role = name.partition("_")[0]
        with pytest.raises(ValueError, match=f"{name} is read by no prediction at {role}={scale:g}"):
            Sampler(ZSampling(plain=True), T, 4.0, **{role: scale, name: "a circle"})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=f"{name} must be a text, got 3"):
            Sampler(ZSampling(plain=True), T, 4.0, 0.5, **{name: 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="plain must be a number or a Guidance"):
        Sampler(ZSampling(plain=True), T, 4.0, plain="much")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weak_prompt is read by no prediction at weak=0"):
        Sampler(ZSampling(), T, 4.0, weak_prompt="a circle")
    with pytest.raises(ValueError, match="magenta"):
        Sampler(ZSampling(), T, 4.0, 1.0, weak_prompt="a red cat").draw(moody(), TEXTS, X)
