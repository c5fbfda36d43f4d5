"""An evaluation samples each batch once, whatever happens, and keeps what came of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

pytest.importorskip("scipy")
from support.evaluations import PLAIN, TRIAL, ZIGZAG, T, asked, moody, result
from zigzag import Resampling, ZSampling
from zigzag.evaluation.evaluation import Evaluation, Trial, fingerprint
from zigzag.evaluation.samplers import Sampler
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import CATEGORIES

CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
from support.evaluations import Moody, moody
from zigzag import Resampling, ZSampling
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler

class Killed(Moody):
    def forward(self, x, t, tokens):
        if self.rows == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, t, tokens)

model = moody()
model.network = Killed()
Evaluation(model, Path(sys.argv[2])).run([Sampler(m, 3, 2.0) for m in (Resampling(), ZSampling())], [Trial(12, seed=4)])
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "verdicts").iterdir())}


def runs(folder: Path) -> int:
    """Of how many settings there are files: of six batches each, one a category."""
    assert len(contents(folder)) % len(CATEGORIES) == 0
    return len(contents(folder)) // len(CATEGORIES)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("batches", [1, 7])
def test_an_evaluation_that_was_killed_goes_on_to_the_same_verdicts(tmp_path: Path, batches: int) -> None:
    """Killed at a model call in the batch after so many, of 6 a sampler: in the first's files, or in the second's."""
    samplers = [Sampler(method, T, 2.0) for method in (Resampling(), ZSampling())]
    whole, again = moody(), moody()
    Evaluation(whole, tmp_path / "whole").run(samplers, [TRIAL])
    first, second = (sampler.rows() * 2 for sampler in samplers)  # of a batch of two
    rows = first * min(batches, 6) + second * max(batches - 6, 0)
    folder = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", CHILD, str(Path(__file__).parents[1]), str(folder), str(rows + 4)])
    assert done.returncode == -signal.SIGKILL
    left = contents(folder)
    assert sum(len(text.splitlines()) - 1 for text in left.values()) == 2 * batches
    Evaluation(again, folder).run(samplers, [TRIAL])
    assert contents(folder) == contents(tmp_path / "whole")
    assert asked(again) == asked(whole) - rows


def test_an_interrupted_evaluation_samples_the_rest_only(tmp_path: Path) -> None:
    """Interrupted in the fourth batch of six, of T calls each."""
    model, calls = moody(), count()

    def interrupt(*_: object) -> None:
        if next(calls) == 3 * T + 1:
            raise KeyboardInterrupt

    handle = model.network.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        result(Evaluation(model, tmp_path), PLAIN)
    handle.remove()
    before = asked(model)
    verdicts = result(Evaluation(model, tmp_path), PLAIN)
    assert asked(model) - before == 6 * PLAIN.rows()
    assert Counter(v.key for v in verdicts) == {(4, c, k): 1 for c in CATEGORIES for k in range(2)}


def test_what_is_finished_is_not_sampled_again(tmp_path: Path) -> None:
    model = moody()
    first = Evaluation(model, tmp_path).run([PLAIN, ZIGZAG], [TRIAL, Trial(6, seed=1)])
    rows, files = asked(model), contents(tmp_path)
    assert rows == (12 + 6) * (PLAIN.rows() + ZIGZAG.rows())
    again = Evaluation(model, tmp_path).run([ZIGZAG, PLAIN], [TRIAL, Trial(6, seed=1)])
    assert asked(model) == rows and contents(tmp_path) == files
    assert again == first
    assert {path.name for path in tmp_path.iterdir()} == {"verdicts", "timings"}


def test_another_method_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    model = moody()
    evaluation = Evaluation(model, tmp_path)
    result(evaluation, PLAIN)
    rows, files = asked(model), contents(tmp_path)
    evaluation.run([PLAIN, ZIGZAG], [TRIAL])
    assert asked(model) - rows == 12 * ZIGZAG.rows()
    assert files.items() < contents(tmp_path).items()


def test_a_further_seed_is_sampled_alone_and_counted_with_the_first(tmp_path: Path) -> None:
    model = moody()
    evaluation = Evaluation(model, tmp_path)
    first, rows = result(evaluation, PLAIN), asked(model)
    both = evaluation.run([PLAIN], [TRIAL, replace(TRIAL, seed=5)])[PLAIN].verdicts
    assert asked(model) == 2 * rows
    assert both[:12] == first and Counter(v.seed for v in both) == {4: 12, 5: 12}


@pytest.mark.parametrize("amp", [False, True])
def test_nothing_is_counted_twice(tmp_path: Path, amp: bool) -> None:
    model, trial = moody(), replace(TRIAL, amp=amp)
    verdicts = Evaluation(model, tmp_path).run([PLAIN, PLAIN], [trial, trial])[PLAIN].verdicts
    assert set(Counter(v.key for v in verdicts).values()) == {1}
    assert asked(model) == 12 * PLAIN.rows()


@pytest.mark.parametrize("amp", [False, True])
def test_products_are_in_bfloat16_where_that_was_asked(tmp_path: Path, amp: bool) -> None:
    model, seen = moody(), set()
    model.network.register_forward_pre_hook(lambda *_: seen.add((torch.ones(1, 1) @ torch.ones(1, 1)).dtype))
    result(Evaluation(model, tmp_path), PLAIN, replace(TRIAL, amp=amp))
    assert seen == {torch.bfloat16 if amp else torch.float32}


OTHERS: dict[str, Callable[[], tuple[LearnedModel, Sampler, Trial]]] = {
    "seed": lambda: (moody(), ZIGZAG, replace(TRIAL, seed=5)),
    "amp": lambda: (moody(), ZIGZAG, replace(TRIAL, amp=True)),
    "steps": lambda: (moody(), replace(ZIGZAG, steps=4), TRIAL),
    "strong": lambda: (moody(), replace(ZIGZAG, strong=2.0000001), TRIAL),
    "weak": lambda: (moody(), replace(ZIGZAG, weak=0.5), TRIAL),
    "error": lambda: (moody(), replace(ZIGZAG, error=0.5), TRIAL),
    "method": lambda: (moody(), replace(ZIGZAG, method=ZSampling(rounds=2)), TRIAL),
    "released": lambda: (moody(), replace(ZIGZAG, method=ZSampling(released=True)), TRIAL),
    "matched": lambda: (moody(), replace(PLAIN, matched=ZSampling()), TRIAL),
    "matched span": lambda: (moody(), replace(PLAIN, matched=ZSampling(span=2)), TRIAL),
    "weights": lambda: (other_weights(), ZIGZAG, TRIAL),
}


def other_weights() -> LearnedModel:
    model = moody()
    torch.nn.init.ones_(model.network.anchor)  # type: ignore[arg-type]
    return model


def test_other_settings_have_other_files(tmp_path: Path) -> None:
    """As many as there are: none is taken for another, though all but one setting is the same."""
    for sampler in (PLAIN, ZIGZAG):
        result(Evaluation(moody(), tmp_path), sampler)
    for files, (name, make) in enumerate(OTHERS.items(), 3):
        model, sampler, trial = make()
        result(Evaluation(model, tmp_path), sampler, trial)
        assert runs(tmp_path) == files, name
        assert asked(model) == trial.prompts * sampler.rows(), name


def test_another_model_and_another_solver_have_other_files(tmp_path: Path) -> None:
    result(Evaluation(moody(), tmp_path), PLAIN)
    result(Evaluation(moody("shapes-unet"), tmp_path), PLAIN)
    result(Evaluation(moody("shapes-unet"), tmp_path), replace(PLAIN, solver="2m"))
    assert runs(tmp_path) == 3


def test_more_prompts_go_on_from_the_batches_of_fewer(tmp_path: Path) -> None:
    """Of 13 prompts one category has three, in a batch that is another; the five others are on record."""
    model = moody()
    result(Evaluation(model, tmp_path), PLAIN)
    rows, files = asked(model), contents(tmp_path)
    verdicts = result(Evaluation(model, tmp_path), PLAIN, replace(TRIAL, prompts=13))
    assert asked(model) - rows == 3 * PLAIN.rows() and len(verdicts) == 13
    assert files.items() < contents(tmp_path).items() and len(contents(tmp_path)) == len(files) + 1


@pytest.mark.parametrize("same", [{"strong": 2}, {"weak": 0}, {"error": 0}])
def test_samplers_that_are_equal_have_the_same_files(tmp_path: Path, same: dict[str, int]) -> None:
    """2 == 2.0: a baseline is sampled once, however its numbers were written."""
    model = moody()
    result(Evaluation(model, tmp_path), PLAIN)
    assert replace(PLAIN, **same) == PLAIN  # type: ignore[arg-type]
    result(Evaluation(model, tmp_path), replace(PLAIN, **same))  # type: ignore[arg-type]
    assert runs(tmp_path) == 1 and asked(model) == 12 * PLAIN.rows()


def test_the_fingerprint_is_that_of_the_parameters() -> None:
    assert fingerprint(moody().network) == fingerprint(moody().network) != fingerprint(other_weights().network)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)


def test_verdicts_without_timings_still_count(tmp_path: Path) -> None:
    """Timings are what no rerun reproduces; whoever is given the verdicts alone has all that the table says of them."""
    model = moody()
    verdicts, rows = result(Evaluation(model, tmp_path), PLAIN), asked(model)
    for path in (tmp_path / "timings").iterdir():
        path.unlink()
    assert result(Evaluation(model, tmp_path), PLAIN) == verdicts
    assert asked(model) == rows
