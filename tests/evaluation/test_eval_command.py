"""`zigzag eval`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
from support.evaluations import asked, moody
from zigzag import ZSampling
from zigzag.cli import main
from zigzag.evaluation.cells import digest
from zigzag.zoo import learned
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import CATEGORIES

SMALL = ["eval", "--model", "shapes-dit", "--prompts", "6", "--steps", "2", "--methods", "z", "z2:warmup=1"]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> LearnedModel:
    """In the place of the trained one."""
    made = moody()
    monkeypatch.setattr(learned, "load", lambda name, weights, device: made)
    return made


def heads(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text().splitlines()[0]) for path in sorted((out / "verdicts").iterdir())]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "zz"], ["zz", "standard", "resampling", "end-to-end", "implicit", "z2"]),
        (["--methods", "z", "z:spam=2"], ["spam", "span"]),
        (["--methods", "z2:warmup=2"], ["warmup", "2"]),
        (["--methods", "z:span=x"], ["span", "integer"]),
        (["--methods"], ["--methods"]),
        (["--steps", "0"], ["0"]),
        (["--steps", "1"], ["warmup"]),
        (["--steps", "x"], ["--steps"]),
        (["--prompts", "3"], ["prompts", "at least 6", "3"]),
        (["--strong", "nan"], ["nan"]),
        (["--weak", "inf"], ["inf"]),
        (["--weak", "1", "--weak-prompt", "a red cat"], ["cat"]),
        (["--weak-prompt", "a red circle"], ["weak_prompt", "weak=0"]),
        (["--weak", "1", "--weak-negative-prompt", "a red circle"], ["weak_negative_prompt", "weak=1"]),
        (["--methods", "z:plain", "--plain-prompt", "a red cat"], ["cat"]),
        (["--methods", "z", "--plain", "2"], ["plain", "ZSampling"]),
        (["--model", "shapes"], ["shapes-unet", "shapes-dit"]),
        (["--device", "gpux"], ["gpux"]),
        (["--span", "2"], ["--span"]),
        (["--out", "/dev/null/x"], ["/dev/null"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2_before_a_model_call(
    more: list[str], said: list[str], model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main([*SMALL, "--out", str(tmp_path / "new"), *more])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and ": error: " in error
    assert [word for word in said if word not in error] == []
    assert asked(model) == 0 and list(tmp_path.iterdir()) == []


def test_shards_leave_the_table_to_whoever_comes_without_one(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SMALL, "--out", str(tmp_path / "one")])
    for shard in ("1/2", "0/2"):
        capsys.readouterr()
        main([*SMALL, "--out", str(tmp_path / "two"), "--shard", shard])
        assert capsys.readouterr().out.endswith("the same command without --shard: the table\n")
        assert not (tmp_path / "two/table.txt").exists()
    rows = asked(model)
    main([*SMALL, "--out", str(tmp_path / "two")])
    assert asked(model) == rows and digest(tmp_path / "two") == digest(tmp_path / "one")
    lines = [json.loads((tmp_path / out / "table.json").read_text())["lines"] for out in ("one", "two")]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("kind", ["verdicts", "timings"])
def test_a_damaged_file_is_one_line_that_names_it(
    kind: str, model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*SMALL, "--out", str(tmp_path)])
    path = next((tmp_path / kind).iterdir())
    path.write_text("{")
    rows = asked(model)
    with pytest.raises(SystemExit) as exit:
        main([*SMALL, "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and path.name in error
    assert asked(model) == rows


def test_weights_that_are_not_there_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([*SMALL, "--weights", str(tmp_path / "none.safetensors"), "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and "none.safetensors" in error


def test_every_option_reaches_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[tuple[object, ...]] = []

    def load(*given: object) -> LearnedModel:
        loaded.append(given)
        return moody()

    monkeypatch.setattr(learned, "load", load)
    out, weights = tmp_path / "a" / "b", tmp_path / "w.safetensors"
    given = ["--weights", str(weights), "--methods", "z:rounds=2", "--steps", "3", "--prompts", "7", "--device", "cpu"]
    given += ["--strong", "3", "--weak", "1", "--seed", "4", "5", "--amp", "--out", str(out)]
    main(["eval", "--model", "shapes-dit", *given])
    assert loaded == [("shapes-dit", weights, "cpu")]
    found = heads(out)
    assert all(head["amp"] for head in found)
    assert {head["block"]["seed"] for head in found} == {4, 5}
    assert sum(len(head["block"]["prompts"]) for head in found) == 4 * 2 * 7
    # A head of each seed and sampler: those of the last category.
    samplers = [head["sampler"] for head in found if head["block"]["category"] == CATEGORIES[-1]]
    assert all((s["strong"], s["weak"]) == (3, 1) for s in samplers)
    z = repr(ZSampling(rounds=2))
    by = sorted((s["method"], s["steps"], s["matched"] or "") for s in samplers)
    # Of 3 steps of two rows, two zigzag twice, w = 1 inverting by one branch: 6 + 2·2·3 rows, so 9 plain steps.
    assert by == sorted(2 * [("Standard()", 3, ""), (z, 3, ""), ("Standard()", 3, z), ("Standard()", 9, "")])
    text = capsys.readouterr().out
    for said in ("shapes-dit", "w = 3", "w = 1", "14 prompts", "seed 4, 5", "bfloat16", "Z-Sampling (rounds 2)"):
        assert said in text


def test_another_prompt_of_the_inversions(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the methods alone: standard sampling, and what is compared with it, have no weak prediction."""
    main([*SMALL, "--weak", "1", "--weak-prompt", "two circles", "--out", str(tmp_path)])
    given = {(head["sampler"]["method"].partition("(")[0], head["sampler"]["weak_prompt"]) for head in heads(tmp_path)}
    assert given == {("Standard", None), ("ZSampling", "two circles"), ("Z2Sampling", "two circles")}
    assert "weak w = 1, weak prompt 'two circles'" in capsys.readouterr().out
    assert not any(head["sampler"]["matched"] for head in heads(tmp_path))


def test_a_plain_role_of_the_methods(model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([
        *SMALL, "--methods", "z:plain", "--weak-negative-prompt", "a square", "--plain", "2", "--plain-prompt",
        "two circles", "--plain-negative-prompt", "a circle", "--out", str(tmp_path),
    ])  # fmt: skip
    names = ("weak_negative_prompt", "plain", "plain_prompt", "plain_negative_prompt")
    given = {tuple(head["sampler"][name] for name in names) for head in heads(tmp_path)}
    assert given == {(None, None, None, None), ("a square", 2, "two circles", "a circle")}
    out = capsys.readouterr().out
    assert "weak negative prompt 'a square', plain w = 2, plain prompt 'two circles'" in out


def test_all_methods_are_measured_unless_some_are_named(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["eval", "--model", "shapes-dit", "--prompts", "6", "--steps", "2", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    for name in ("Standard", "Resampling", "End-to-End", "Z-Sampling", "Implicit Z", "Z²-Sampling"):
        assert f"\n{name} " in text
    # Unless told otherwise, at the scale that is on record of this model.
    assert {head["sampler"]["strong"] for head in heads(tmp_path) if not head["sampler"]["matched"]} == {2.0}


def test_a_method_or_seed_named_twice_is_measured_once(model: LearnedModel, tmp_path: Path) -> None:
    words = ["--methods", "z", "z", "standard", "z:rounds=1", "--seed", "3", "3"]
    main([*SMALL, *words, "--out", str(tmp_path)])
    figures = json.loads((tmp_path / "table.json").read_text())["lines"]
    assert [f["prompts"] for f in figures] == [6] * len(figures)
    names = [f["name"] for f in figures]
    assert len(set(names)) == len(names)


def test_an_interrupt_says_how_to_go_on(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        if asked(model) > 20:
            raise KeyboardInterrupt

    handle = model.network.register_forward_pre_hook(interrupt)
    with pytest.raises(SystemExit) as exit:
        main([*SMALL, "--out", str(tmp_path)])
    assert exit.value.code == 130 and str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "table.txt").exists()
    handle.remove()
    assert main([*SMALL, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "table.txt").exists()


def test_the_shipped_model_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 2 steps: standard 4 rows, z 7, its scale 4, 4 steps of as many rows 8, z2 4, its scale 4."""
    pytest.importorskip("safetensors")
    rows: list[int] = []
    eps_fn = LearnedModel.eps_fn

    def counted(self: LearnedModel, x: Any, t: Any, cond: Any) -> Any:
        rows.append(len(x))
        return eps_fn(self, x, t, cond)

    monkeypatch.setattr(LearnedModel, "eps_fn", counted)
    words = ["eval", "--prompts", "6", "--steps", "2", "--methods", "z", "z2:warmup=1", "--out", str(tmp_path)]
    assert main(words) == 0
    first = capsys.readouterr()
    figures = json.loads((tmp_path / "table.json").read_text())["lines"]
    assert first.err == ""
    assert sum(rows) == 6 * sum(figure["rows"] for figure in figures) == 6 * (4 + 7 + 4 + 8 + 4 + 4)
    assert len(heads(tmp_path)) == len(list((tmp_path / "timings").iterdir())) == 6 * len(CATEGORIES)
    assert {head["model"] for head in heads(tmp_path)} == {"shapes-unet"}
    rows.clear()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(words) == 0
    assert rows == [] and capsys.readouterr().out == first.out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") in first.out
    assert "wrote" in first.out and str(tmp_path / "table.txt") in first.out
