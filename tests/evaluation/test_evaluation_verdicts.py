"""What an evaluation keeps of a prompt: its verdict, rows, errors and effective scale; and how long it took."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path

import pytest
import torch

pytest.importorskip("scipy")
from support.evaluations import PLAIN, TRIAL, ZIGZAG, T, asked, moody, result
from support.painters import painter
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Trace, Z2Sampling, ZSampling
from zigzag.evaluation import accuracy
from zigzag.evaluation.accuracy import noise, prompts
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.methods import Method
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import CATEGORIES


def test_beta_is_that_of_the_trace(tmp_path: Path) -> None:
    """And none where nothing is injected, 0 where the branches do not differ (as a moody model's, where it sulks)."""
    trial, model = Trial(6, seed=2), painter()
    found = {v.category: v.beta for v in result(Evaluation(model, tmp_path / "painter"), ZIGZAG, trial)}
    for category, start, texts in trial.batches():
        ZIGZAG.draw(model, texts, noise(category, start, start + len(texts), 2), trace=(trace := Trace()))
        assert trace.beta is not None and [found[category]] == trace.beta.double().tolist()
    assert all(beta is not None and beta > 0 for beta in found.values())
    assert {v.beta for v in result(Evaluation(model, tmp_path / "painter"), PLAIN, trial)} == {None}
    sulking = [v.beta for v in result(Evaluation(moody(), tmp_path / "moody"), ZIGZAG)]
    assert all(beta is not None and isfinite(beta) for beta in sulking) and 0.0 in sulking


@pytest.mark.parametrize(
    "method", [Standard(), ZSampling(), EndToEnd(), Resampling(), ImplicitZ(), Z2Sampling(warmup=1)], ids=str
)
def test_a_verdict_has_the_rows_that_ran_for_it(tmp_path: Path, method: Method) -> None:
    model = moody()
    verdicts = result(Evaluation(model, tmp_path), Sampler(method, T, 2.0))
    assert {v.rows for v in verdicts} == {asked(model) / 12}


def test_verdicts_are_of_the_prompts_and_noise_of_accuracy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batches: noise is that of a prompt's number in its category."""
    model, trial = moody(), Trial(38, seed=3)
    with monkeypatch.context() as patch:
        patch.setattr("zigzag.evaluation.accuracy.BATCH", 4)
        verdicts = result(Evaluation(model, tmp_path), PLAIN, trial)
    right = {c: sum(v.right for v in verdicts if v.category == c) for c in CATEGORIES}
    assert right == {c: s.right for c, s in accuracy.accuracy(model, 38, T, 2.0, seed=3).items()}
    assert 0 < sum(right.values()) < 38 and len({v.key for v in verdicts}) == 38
    assert all(v.prompt == prompts(v.category, v.index + 1, 3)[-1] for v in verdicts)
    assert any(v.seen for v in verdicts) and not all(v.seen for v in verdicts)


def trace_of(model: LearnedModel, sampler: Sampler, category: str) -> Trace:
    trace = Trace()
    sampler.draw(model, prompts(category, 2, 4), noise(category, 0, 2, 4), torch.Generator(), trace)
    return trace


def test_the_errors_of_a_zigzag_are_those_of_the_trace(tmp_path: Path) -> None:
    """δ is the sum over the zigzags; τ the mean over those that have one."""
    model = moody()
    verdicts = result(Evaluation(model, tmp_path), ZIGZAG)
    for category in CATEGORIES:
        records = trace_of(model, ZIGZAG, category).records
        found = [v for v in verdicts if v.category == category]
        for name, share in (("delta", 1), ("tau1", T - 1), ("tau2", T - 1)):
            given = [getattr(r, name).double() for r in records if getattr(r, name) is not None]
            assert len(given) == T - 1
            wanted = [float(value) for value in sum(given) / share]  # type: ignore[arg-type, union-attr]
            assert [getattr(v, name) for v in found] == pytest.approx(wanted, rel=1e-6)
            assert all(value > 0 for value in wanted)


@pytest.mark.parametrize(
    ("method", "known"),
    [
        (Standard(), ()),
        (ZSampling(), ("delta", "tau1", "tau2")),
        (ZSampling(refine=1), ("delta", "tau1", "tau2")),
        (ZSampling(released=True), ("delta",)),
        (EndToEnd(), ("delta",)),
        (Resampling(), ("delta",)),
        (ImplicitZ(), ("delta",)),
        (Z2Sampling(warmup=1), ("delta",)),
    ],
    ids=str,
)
def test_what_is_not_defined_is_none(tmp_path: Path, method: Method, known: tuple[str, ...]) -> None:
    for v in result(Evaluation(moody(), tmp_path), Sampler(method, T, 2.0), Trial(6)):
        assert tuple(name for name in ("delta", "tau1", "tau2") if getattr(v, name) is not None) == known


def test_timings_are_of_every_batch_and_not_among_the_verdicts(tmp_path: Path) -> None:
    evaluation = Evaluation(moody(), tmp_path)
    seconds = evaluation.run([PLAIN], [TRIAL])[PLAIN].seconds
    timings, verdicts = (sorted((tmp_path / room).iterdir()) for room in ("timings", "verdicts"))
    batches = [json.loads(path.read_text()) for path in timings]
    assert [count for count, _ in batches] == [2] * 6
    assert seconds == pytest.approx(sum(spent for _, spent in batches) / 12) and seconds > 0
    assert [path.stem for path in verdicts] == [path.stem for path in timings]
    for path in verdicts:
        head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert head["block"].pop("prompts") == [line["prompt"] for line in lines]
        first = {key: lines[0][key] for key in ("seed", "category")}
        assert head == {**evaluation.head(PLAIN), "block": {**first, "start": 0}}
        assert "seconds" not in {key for line in lines for key in line}
