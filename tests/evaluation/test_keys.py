"""Verdicts are kept by what decides the samples: the moves, steps and guidance, not what they are called."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
from support.evaluations import asked, moody
from zigzag import Denoise, Invert, Polaris, Standard, Z2Sampling, ZSampling
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.keys import decides
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.studies.gaps import WithLora
from zigzag.moves import Move
from zigzag.zoo.shapes import CATEGORIES

T = 3
TRIAL = Trial(6)
Path_ = Callable[[int], tuple[Move, ...]]


def plain_path(steps: int) -> tuple[Move, ...]:
    return tuple(Denoise(i, i + 1) for i in range(steps))


def twice(steps: int) -> tuple[Move, ...]:
    return Denoise(0, 1), Invert(1, 0), *plain_path(steps)


def data_method(path: Path_) -> Any:
    """A user's dataclass; made again with another path, it is called what it was called."""

    @dataclass(frozen=True)
    class Mine:
        """A method."""

        def path(self, steps: int) -> tuple[Move, ...]:
            return path(steps)

    return Mine()


class Plain:
    """A user's class, with an address in its repr."""

    def path(self, steps: int) -> tuple[Move, ...]:
        return twice(steps)


def rows_of(folder: Path, sampler: Sampler) -> int:
    model = moody()
    Evaluation(model, folder).run([sampler], [TRIAL])
    return asked(model)


def test_a_method_whose_path_was_edited_is_sampled_anew(tmp_path: Path) -> None:
    first, edited = (Sampler(data_method(path), T, 2.0) for path in (plain_path, twice))
    assert repr(first) == repr(edited)
    assert rows_of(tmp_path, first) == 6 * 2 * T
    assert rows_of(tmp_path, edited) == 6 * (2 * T + 1 + 2)
    assert rows_of(tmp_path, first) == rows_of(tmp_path, edited) == 0
    assert len(list((tmp_path / "verdicts").iterdir())) == 2 * len(CATEGORIES)


def test_a_method_with_an_address_in_its_repr_goes_on(tmp_path: Path) -> None:
    first, again = Sampler(Plain(), T, 2.0), Sampler(Plain(), T, 2.0)
    assert repr(first) != repr(again)
    assert rows_of(tmp_path, first) > 0 and rows_of(tmp_path, again) == 0
    for path in (tmp_path / "verdicts").iterdir():
        assert "0x" not in path.read_text() and "Plain" in path.read_text().splitlines()[0]


def test_samplers_that_make_the_same_moves_are_sampled_once(tmp_path: Path) -> None:
    """Z² without a warm-up has no gap before its first step: it makes the moves of a warm-up of 1."""
    model, samplers = moody(), [Sampler(Z2Sampling(warmup=n), T, 2.0) for n in (0, 1)]
    found = Evaluation(model, tmp_path).run(samplers, [TRIAL])
    assert asked(model) == 6 * samplers[0].rows()
    assert found[samplers[0]] == found[samplers[1]]


@pytest.mark.parametrize("version", [1, 2, 3, 5, None])
def test_files_of_another_version_are_said_in_one_line_and_left(tmp_path: Path, version: int | None) -> None:
    sampler = Sampler(ZSampling(), T, 2.0)
    rows = rows_of(tmp_path, sampler)
    files = list((tmp_path / "verdicts").iterdir())
    head, *lines = files[0].read_text().splitlines()
    old = files[0].with_name("shapes-dit-z-sampling-3-0123456789ab.jsonl")
    old.write_text("\n".join([json.dumps({**json.loads(head), "version": version}), *lines]) + "\n")
    for path in files:
        path.unlink()
    before = old.read_bytes()
    with pytest.warns(UserWarning, match="another version") as said:
        assert rows_of(tmp_path, sampler) == rows
    assert len(said) == 1 and "\n" not in str(said[0].message) and str(tmp_path) in str(said[0].message)
    assert old.read_bytes() == before


def test_files_of_this_version_are_not_warned_of(tmp_path: Path) -> None:
    rows_of(tmp_path, Sampler(Standard(), T, 2.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_of(tmp_path, replace(Sampler(Standard(), T, 2.0), strong=2)) == 0


def test_what_a_walk_leaves_in_a_rule_with_state_is_no_part_of_it(tmp_path: Path) -> None:
    model, sampler = moody(), Sampler(ZSampling(), T, 2.0, Polaris())
    evaluation = Evaluation(model, tmp_path)
    first = evaluation.run([sampler], [TRIAL])
    rows = asked(model)
    assert evaluation.run([sampler], [TRIAL]) == first and asked(model) == rows
    evaluation.run([replace(sampler, weak=Polaris(1.0))], [TRIAL])
    assert asked(model) > rows


def test_another_weak_role_is_sampled_anew_and_found_again(tmp_path: Path) -> None:
    """Told apart by the text, and by the code of the function; without one the key is what it has always been."""
    plain = Sampler(ZSampling(), T, 2.0)
    texts = [replace(plain, weak=1.0, weak_prompt=text) for text in ("a circle", "a square")]
    made = [replace(plain, weak_fn=lambda model: model.eps_fn), replace(plain, weak_fn=lambda model: opposite(model))]
    made += [replace(plain, strong_fn=lambda model: opposite(model))]
    made += [replace(plain, method=ZSampling(plain=True), plain_fn=made[k].weak_fn) for k in (0, 1)]
    texts += [replace(plain, weak_negative_prompt=text) for text in ("a circle", "a square")]
    steps = replace(plain, method=ZSampling(plain=True))
    texts += [steps, *(replace(steps, plain=scale) for scale in (0.5, 1.0))]
    texts += [replace(steps, **{name: "a circle"}) for name in ("plain_prompt", "plain_negative_prompt")]
    for sampler in (plain, *texts, *made):
        assert rows_of(tmp_path, sampler) > 0 and rows_of(tmp_path, sampler) == 0
    assert rows_of(tmp_path, replace(plain, weak_fn=lambda model: model.eps_fn)) == 0
    assert (
        not {"weak role", "weak negative prompt", "plain", "plain prompts", "networks"}
        & Evaluation(moody(), tmp_path).head(plain)["decides"].keys()
    )


def test_a_network_with_another_lora_is_another(tmp_path: Path) -> None:
    """By strength, and by file."""
    plain = Sampler(Standard(), T, 2.0, strong_fn=WithLora(0.8))
    others = [plain, replace(plain, strong_fn=WithLora(1.5)), replace(plain, strong_fn=WithLora(0.8, ("new", "new")))]
    grid = moody().solver(T)
    assert len({json.dumps(decides(sampler, grid), sort_keys=True) for sampler in others}) == 3
    assert decides(replace(plain, strong_fn=WithLora(0.8)), grid) == decides(plain, grid)


@pytest.mark.parametrize("role", ["strong_fn", "weak_fn", "plain_fn"])
def test_functions_with_arguments_filled_in_are_known_by_them(role: str) -> None:
    """By function, place and name: what `functools.partial` holds is nowhere else."""
    grid, plain = moody().solver(T), Sampler(ZSampling(plain=True), T, 2.0)
    made = [partial(at, 1.5), partial(at, -1.5), partial(at, strength=1.5), partial(opposite), partial(at, 1.5)]
    keys = [json.dumps(decides(replace(plain, **{role: fn}), grid), sort_keys=True) for fn in made]  # type: ignore[arg-type]
    assert len(set(keys)) == 4 and keys[0] == keys[4]


def at(strength: float, model: Any = None) -> Any:
    return lambda x, t, cond: strength * model.eps_fn(x, t, cond)


def opposite(model: Any) -> Any:
    return lambda x, t, cond: -model.eps_fn(x, t, cond)
