"""Samplers whose roles have another prompt or network draw what `sample` draws, at the rows that they say."""

from __future__ import annotations

from dataclasses import replace

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


OTHER = ({"weak_prompt": "two circles"}, {"weak_fn": half}, {"weak_prompt": ""})


@pytest.mark.parametrize("role", OTHER, ids=["prompt", "network", "empty prompt"])
@pytest.mark.parametrize("method", [ZSampling(), ImplicitZ(), Z2Sampling(warmup=1)], ids=str)
def test_a_draw_under_another_weak_role_is_that_of_sample(method: ZSampling, role: dict[str, object]) -> None:
    model = moody()
    sampler = Sampler(method, T, 2.5, 0.5, **role)  # type: ignore[arg-type]
    drawn = sampler.draw(model, TEXTS, X, seeded())
    given = {"weak_cond": model.encode([role["weak_prompt"]] * 3)} if "weak_prompt" in role else {}  # type: ignore[list-item]
    x = sample(
        model.eps_fn, X, model.solver(T), method, cond=model.encode(TEXTS), uncond=model.encode([""] * 3), strong=2.5,
        weak=0.5, weak_fn=half(model) if "weak_fn" in role else None, **given,
    )  # fmt: skip
    assert torch.equal(drawn, model.decode(x))
    assert not torch.equal(drawn, Sampler(method, T, 2.5, 0.5).draw(model, TEXTS, X, seeded()))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rows_under_another_weak_role_are_those_that_run(method: ZSampling) -> None:
    for strong, weak in SCALES:
        if weak:
            check_rows(Sampler(method, T, strong, weak, weak_prompt="a circle"))
        check_rows(Sampler(method, T, strong, weak, weak_fn=half))


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
    assert not alone.other_role and replace(alone, method=ZSampling()).plain == alone
    assert "matched scale" in baselines(replace(alone, method=ZSampling()))
    mine = Mine()
    for sampler in (*(replace(alone, method=m) for m in (method, mine)), replace(alone, method=method, plain_fn=half)):
        found = baselines(sampler)
        assert [*found] == ["same rows"] and found["same rows"].strong_fn is twice
        assert found["same rows"].plain_fn is None


def test_a_weak_role_of_its_own_has_no_matched_scale() -> None:
    """Its gap is along another direction; what plain guidance as many rows buy is there, of the model as it is."""
    for role in OTHER:
        sampler = Sampler(ZSampling(), T, 4.0, 1.0, **role)  # type: ignore[arg-type]
        found = baselines(sampler)
        assert [*found] == ["same rows"] and not found["same rows"].other_role
        with pytest.raises(ValueError, match="a path with another role has no matched scale"):
            replace(sampler, method=Standard(), matched=ZSampling())


def test_weak_roles_that_are_none_are_refused() -> None:
    with pytest.raises(TypeError, match="weak_prompt must be a text, got 3"):
        Sampler(ZSampling(), T, 4.0, 1.0, weak_prompt=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weak_fn must be a function of the model"):
        Sampler(ZSampling(), T, 4.0, weak_fn="dit")  # type: ignore[arg-type]
    for name in ("strong_fn", "weak_fn", "plain_fn"):
        with pytest.raises(TypeError, match=f"{name} must be a function of the model, got 3"):
            Sampler(ZSampling(), T, 4.0, **{name: 3})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="error must be alone"):
            Sampler(ZSampling(), T, 4.0, error=0.5, **{name: Empty()})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weak_prompt is read by no prediction at weak=0"):
        Sampler(ZSampling(), T, 4.0, weak_prompt="a circle")
    with pytest.raises(ValueError, match="magenta"):
        Sampler(ZSampling(), T, 4.0, 1.0, weak_prompt="a red cat").draw(moody(), TEXTS, X)
