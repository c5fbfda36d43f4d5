"""Samplers draw what `sample` draws, at the rows that they say, and stand beside fair baselines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("scipy")
from support.evaluations import asked, moody
from support.painters import painter
from support.samplers import METHODS, SCALES, TEXTS, T, X, check_rows, seeded
from zigzag import (
    EndToEnd,
    ImplicitZ,
    Resampling,
    Standard,
    Z2Sampling,
    ZSampling,
    matched_cfg,
    sample,
)
from zigzag.evaluation.accuracy import accuracy, noise, prompts
from zigzag.evaluation.samplers import Sampler, baselines, noisy
from zigzag.moves import Invert
from zigzag.zoo.shapes import CATEGORIES, check


def test_standard_sampling_has_the_verdicts_of_accuracy() -> None:
    model, sampler, right = moody(), Sampler(Standard(), 3, 2.0), {}
    for category in CATEGORIES:
        texts = prompts(category, 6, seed=5)
        right[category] = sum(check(texts, sampler.draw(model, texts, noise(category, 0, 6, seed=5))))
    wanted = {category: score.right for category, score in accuracy(model, 36, 3, 2.0, seed=5).items()}
    assert right == wanted and 0 < sum(right.values()) < 36


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_draw_is_that_of_sample(method: ZSampling) -> None:
    """The images of the last state, in [0, 1]; a Renoise has its noise from the generator."""
    model = painter()
    drawn = Sampler(method, T, 2.5, 0.5).draw(model, TEXTS, X, seeded())
    x = sample(
        model.eps_fn, X, model.solver(T), method, cond=model.encode(TEXTS), uncond=model.encode([""] * 3),
        strong=2.5, weak=0.5, generator=seeded(),
    )  # fmt: skip
    assert torch.equal(drawn, model.decode(x))
    assert drawn.shape == X.shape and drawn.min() >= 0 and drawn.max() <= 1


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rows_are_those_that_run(method: ZSampling) -> None:
    for strong, weak in SCALES:
        check_rows(Sampler(method, T, strong, weak))


@pytest.mark.parametrize("strong", [4.0, 1.0, 0.5, 0.0])
def test_rows_at_a_matched_scale_are_those_that_run(strong: float) -> None:
    """Strong guidance at w = 1 asks for one branch, its matched scale for both."""
    for method in (ZSampling(), ZSampling(steps=1), EndToEnd(), Z2Sampling(warmup=1)):
        check_rows(Sampler(Standard(), T, strong, matched=method))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rows_with_an_error_are_those_that_run(method: ZSampling) -> None:
    """A weak prediction with an error is no by-product of the strong one: it has rows of its own."""
    check_rows(Sampler(method, T, 4.0, error=0.5))
    check_rows(Sampler(method, T, 4.0, weak=2.0, error=0.5))


@pytest.mark.parametrize(
    "solver", ["ddim:eta=1", "ddim:eta=1,fresh", "2m", "3m", "sde-2m", "deis", "lms", "plms", "heun"]
)
@pytest.mark.parametrize("name", ["shapes-unet", "shapes-dit"])
def test_rows_on_every_solver_are_those_that_run(solver: str, name: str) -> None:
    for method in (Standard(), ZSampling(span=2), EndToEnd(), Resampling(), ImplicitZ(), Z2Sampling(warmup=1)):
        if (solver, name) not in (("heun", "shapes-dit"), ("plms", "shapes-dit"), ("lms", "shapes-dit")):
            check_rows(Sampler(method, T, 4.0, solver=solver), name)


@pytest.mark.parametrize(
    "changed",
    [{"steps": 0}, {"steps": -1}, {"strong": float("nan")}, {"weak": float("inf")}, {"method": Z2Sampling()}],
    ids=str,
)
def test_rows_of_what_cannot_be_sampled_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"steps|strong|weak|warmup|T"):
        replace(Sampler(ZSampling(), T, 4.0), **changed).rows()  # type: ignore[arg-type]


def test_matched_is_the_scale_of_matched_cfg() -> None:
    """Of a zigzag at every step that is `s + (s − w)`; of one at some of them it is found step by step."""
    model = painter()
    plain = Sampler(Standard(), T, 3.0, 1.0)
    every = replace(plain, matched=ZSampling(steps=T)).draw(model, TEXTS, X)
    torch.testing.assert_close(every, replace(plain, strong=5.0).draw(model, TEXTS, X))
    for method in (ZSampling(), ZSampling(span=2), EndToEnd(), Z2Sampling(warmup=1)):
        found = replace(plain, matched=method).draw(model, TEXTS, X)
        x = sample(
            model.eps_fn, X, model.solver(T), Standard(), cond=model.encode(TEXTS), uncond=model.encode([""] * 3),
            strong=matched_cfg(method, model.solver(T), 3.0, 1.0),
        )  # fmt: skip
        assert torch.equal(found, model.decode(x))
        assert not torch.equal(found, plain.draw(model, TEXTS, X))


def test_what_has_no_matched_scale_is_refused_before_a_model_call() -> None:
    model = moody()
    with pytest.raises(ValueError, match="no matched scale"):
        Sampler(Standard(), T, 4.0, matched=ZSampling(released=True)).draw(model, TEXTS, X)
    with pytest.raises(ValueError, match="magenta"):
        Sampler(Standard(), T, 4.0).draw(model, ["a red cat"], X[:1])
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 2"):
        Sampler(Standard(), T, 4.0, solver="ddim:eta=2").draw(model, TEXTS, X)
    assert asked(model) == 0


def test_ancestral_steps_add_noise_of_the_generator() -> None:
    model, sampler = moody("shapes-unet"), Sampler(Standard(), T, 1.0, solver="ddim:eta=1")
    first, again, other = (sampler.draw(model, TEXTS, X, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, replace(sampler, solver="ddim").draw(model, TEXTS, X))


def predictions(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    return x * cond[:, None, None, None]


def test_an_error_has_the_size_it_is_said_to_have_in_each_sample() -> None:
    sizes = torch.tensor([0.01, 1.0, 50.0])
    for s in (0.1, 0.5, 2.0):
        e = predictions(X, X, sizes)
        off = noisy(predictions, s, seeded())(X, X, sizes) - e
        ratio = off.flatten(1).norm(dim=1) / e.flatten(1).norm(dim=1)
        torch.testing.assert_close(ratio, torch.full_like(ratio, s), rtol=1e-3, atol=0)


def test_an_error_is_random_and_has_no_preference() -> None:
    """The mean of n errors of norm s‖e‖ has norm s‖e‖/√n, and no part along e but chance's."""
    generator, e, n = seeded(), X[:1], 400
    predict = noisy(lambda x, t, cond: e, 1.0, generator)
    off = torch.stack([predict(e, e, None) - e for _ in range(n)]).flatten(1)
    assert float(off.mean(0).norm() / e.norm()) == pytest.approx(n**-0.5, rel=0.1)
    along = off @ e.flatten() / e.norm() ** 2
    assert abs(float(along.mean())) < 5 * float(along.std()) / n**0.5


def test_an_error_is_of_the_generator() -> None:
    ones = torch.ones(3)
    first, again, other = (noisy(predictions, 0.5, seeded(seed))(X, X, ones) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    held = noisy(predictions, 0.5, generator := seeded())
    assert torch.equal(held(X, X, ones), first) and not torch.equal(held(X, X, ones), first)
    assert not torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("method", [Standard(), ZSampling(), ZSampling(span=2), EndToEnd()], ids=str)
def test_an_error_is_in_the_inversions_alone(method: ZSampling) -> None:
    """One draw of noise for each of them; Standard has none, and is unchanged."""
    model, generator, wanted = painter(), seeded(), seeded()
    wrong = Sampler(method, T, 4.0, error=0.5).draw(model, TEXTS, X, generator)
    inverts = sum(isinstance(move, Invert) for move in method.path(T))
    for _ in range(inverts):
        torch.randn(X.shape, generator=wanted)
    assert torch.equal(generator.get_state(), wanted.get_state())
    assert torch.equal(wrong, Sampler(method, T, 4.0).draw(model, TEXTS, X)) == (inverts == 0)


@pytest.mark.parametrize("steps", [2, 4, 10, 25])
@pytest.mark.parametrize("method", METHODS[1:], ids=str)
def test_same_rows_are_the_same_within_half_a_step(method: ZSampling, steps: int) -> None:
    for strong, weak in ((4.0, 0.0), (1.0, 0.0), (4.0, 2.0)):
        try:
            sampler = Sampler(method, steps, strong, weak)
            rows = sampler.rows()
        except ValueError:  # of a method that needs more steps
            continue
        standard = Sampler(Standard(), steps, strong, weak)
        same = baselines(sampler).get("same rows", standard)
        assert same == replace(standard, steps=same.steps)
        assert abs(same.rows() - rows) <= standard.rows() / steps / 2
        assert ("same rows" in baselines(sampler)) == (same.steps != steps)


def test_same_scale_is_that_of_the_method() -> None:
    for method in METHODS[1:]:
        sampler = Sampler(method, T, 4.0, 1.5)
        has_none = isinstance(method, Resampling) or method == ZSampling(released=True)
        wanted = None if has_none else Sampler(Standard(), T, 4.0, 1.5, matched=method)
        assert baselines(sampler).get("matched scale") == wanted
        assert baselines(sampler).keys() <= {"matched scale", "same rows"}


def test_standard_sampling_is_compared_with_nothing() -> None:
    assert baselines(Sampler(Standard(), T, 4.0)) == {}
