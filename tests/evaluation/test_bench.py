"""A bench on a learned model: the lines, their figures, and what waits for what."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
from support.evaluations import asked, moody
from zigzag import EndToEnd, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.cli import main
from zigzag.evaluation.bench import BASELINES, Plan, Tried, Unfinished, betas, effective, first_lines, measure
from zigzag.evaluation.bench_report import bench_report
from zigzag.evaluation.cells import Cell, digest
from zigzag.evaluation.compare import figures, lines
from zigzag.evaluation.engines import run
from zigzag.evaluation.estimate import estimate
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.learned_bed import LearnedBed
from zigzag.evaluation.samplers import Sampler
from zigzag.methods import Method
from zigzag.zoo import learned
from zigzag.zoo.learned import LearnedModel

T = 3
TRIALS = [Trial(7, seed=4), Trial(6, seed=5)]
METHODS = (ZSampling(), Z2Sampling(warmup=1), Resampling())


def plan(*methods: Method, baselines: tuple[str, ...] = BASELINES) -> Plan:
    return Plan(tuple(Tried(method, T) for method in methods), 2.0, baselines=baselines)


PLAN = plan(*METHODS)


def bed(folder: Path, model: LearnedModel | None = None) -> LearnedBed:
    return LearnedBed(Evaluation(model or moody(), folder), TRIALS)


def test_it_gives_the_figures_of_an_evaluation(tmp_path: Path) -> None:
    """Of the same samplers on the same prompts: verdicts, intervals, wins, losses and p; and it samples none twice."""
    model, same = moody(), lines(METHODS, T, 2.0, own=moody().solver)
    results = Evaluation(model, tmp_path).run([line.sampler for line in same], TRIALS)
    rows = asked(model)
    every, outcomes = measure(bed(tmp_path, model), plan(*METHODS, baselines=("standard", "matched", "rows")))
    assert asked(model) == rows
    assert [line.sampler for line in every] == [line.sampler for line in same]
    bench_report(bed(tmp_path, model), plan(*METHODS, baselines=("standard", "matched", "rows")), "title")
    content = json.loads((tmp_path / "bench.json").read_text())
    for ours, theirs in zip(content["lines"], figures(same, results), strict=True):
        means = ours["scores"]["shapes"]["mean"]
        assert (ours["name"], ours["rows"], ours["beta"]) == (theirs["name"], theirs["rows"], theirs["beta"])
        assert means["all"]["value"] == theirs["overall"] / theirs["prompts"] and means["all"]["items"] == 13
        assert [means["all"]["low"], means["all"]["high"]] == list(theirs["interval"])
        for category, right in theirs["right"].items():
            assert means[category]["value"] * means[category]["items"] == pytest.approx(right)
        for rival, duel in ours["scores"]["shapes"]["against"].items():
            pair = theirs["against"][rival]
            assert (duel["all"]["wins"], duel["all"]["losses"]) == (pair["wins"], pair["losses"])
            assert duel["all"]["p"] == pair["p"] and duel["all"]["difference"][1:] == list(pair["interval"])
    assert outcomes[same[1].sampler].seconds == results[same[1].sampler].seconds


def test_the_effective_scale_is_the_strong_one_and_the_mean_beta(tmp_path: Path) -> None:
    """Of all prompts and seeds; none of what adds fresh noise; beside the method, and in its duels."""
    model = moody()
    every, outcomes = measure(bed(tmp_path, model), PLAN)
    by = {line.label: line for line in every}
    for method in METHODS[:2]:
        sampler = Sampler(method, T, 2.0)
        verdicts = Evaluation(model, tmp_path).run([sampler], TRIALS)[sampler].verdicts
        known = [v.beta for v in verdicts if v.beta is not None]
        line = next(line for line in every if line.sampler == sampler)
        wanted = Sampler(Standard(), T, round(2.0 + sum(known) / len(known), 2))
        assert by[f"  CFG at the effective scale of {line.label}"].sampler == wanted
        assert wanted in line.against and wanted in outcomes and wanted.strong != 2.0
    assert "  CFG at the effective scale of Resampling" not in by
    assert asked(model) == 13 * sum(s.rows() for s in {line.sampler for line in every})


@pytest.mark.parametrize("kept", [("standard",), ("rows",), ("matched", "rows"), ("effective", "standard"), ()])
def test_only_the_baselines_that_were_asked_for_are_sampled(tmp_path: Path, kept: tuple[str, ...]) -> None:
    every, _ = measure(bed(tmp_path), plan(ZSampling(), baselines=kept))
    words = {"matched": "matched", "effective": "effective", "rows": "rows", "standard": "Standard"}
    wanted = {name for name in words if name in kept}
    found = {name for name, word in words.items() if any(word in line.label for line in every)}
    assert found == wanted and any(line.label == "Z-Sampling" for line in every)
    there = {line.sampler for line in every}
    assert all(set(line.against) <= there - {line.sampler} for line in every)


def test_a_plan_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="baselines must be of standard"):
        plan(*METHODS, baselines=("mached",))
    with pytest.raises(ValueError, match="methods"):
        plan()


def test_standard_sampling_alone_is_a_bench(tmp_path: Path) -> None:
    every, outcomes = measure(bed(tmp_path), plan(Standard()))
    assert [line.label for line in every] == ["Standard"] and len(outcomes) == 1


def test_a_picture_that_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zigzag.evaluation.bench_report.find_spec", lambda name: None)
    said = bench_report(bed(tmp_path), plan(*METHODS, baselines=("standard",)), "title")
    assert "no bench.png: it needs matplotlib (pip install 'zigzag-diffusion[plots]')" in said
    assert (tmp_path / "bench.txt").exists() and not (tmp_path / "bench.png").exists()


def test_shards_that_go_on_by_turns_do_what_one_process_does(tmp_path: Path) -> None:
    """Of three shards each runs every third cell of a stage, and stops where the next one waits for the others."""

    def shard(k: int) -> Any:
        return lambda cells: run(cells[k::3])

    stops = 0
    for _ in range(2):  # the first stage, and that of the effective scales
        for k in range(3):
            try:
                measure(bed(tmp_path / "three"), PLAN, shard(k))
            except Unfinished as stop:
                stops += 1
                assert "cells are not done, the first of" in str(stop)
    assert stops == 4  # the last shard finds all of the first stage done, and goes on to the second
    assert digest(tmp_path / "three") != digest(tmp_path / "none")
    measure(bed(tmp_path / "one"), PLAN)
    assert digest(tmp_path / "one") == digest(tmp_path / "three")


def test_an_estimate_counts_what_will_run(tmp_path: Path) -> None:
    """Before, nothing is timed; then, by what was; and what waits for β is counted at the rows that it will have."""
    model = moody()
    both = plan(ZSampling(), EndToEnd())
    text = estimate(bed(tmp_path, model), both)
    assert asked(model) == 0 and "nothing is said of hours" in text
    *_, cells, left, rows_left = (last := text.splitlines()[-3]).split()
    assert last.startswith("in all, each once") and cells == left
    rows = int(rows_left.replace(",", ""))
    ran: list[Cell] = []

    def some(cells: Sequence[Cell]) -> None:
        ran.extend(cells[:5])
        run(cells[:5])

    with pytest.raises(Unfinished):
        measure(bed(tmp_path, model), both, some)
    text = estimate(bed(tmp_path, model), both)
    assert f"{rows - sum(cell.cost for cell in ran):,} rows left" in text and "hours of one such device" in text
    measure(bed(tmp_path, model), both)
    assert asked(model) == rows
    text = estimate(bed(tmp_path, model), both)
    assert "0 rows left" in text and "not known yet" not in text


def test_betas_are_of_what_is_sampled(tmp_path: Path) -> None:
    one = bed(tmp_path)
    every = first_lines(one, PLAN)
    assert betas(one, every) == {} and effective(every, {}) == every
    run(one.cells(Sampler(ZSampling(), T, 2.0)))
    assert set(betas(one, every)) == {Sampler(ZSampling(), T, 2.0)}


def test_methods_on_several_numbers_of_steps_stand_in_one_table(tmp_path: Path) -> None:
    """Each beside the baselines on its own steps; what two of them share is one sampler."""
    tried = (Tried(ZSampling(steps=1), 2), Tried(ZSampling(steps=2), 4), Tried(Standard(), 4))
    every = first_lines(bed(tmp_path), Plan(tried, 2.0, baselines=("rows",)))
    assert [(line.label.strip(), line.sampler.steps) for line in every] == [
        ("Z-Sampling (λ 1), 2 steps", 2), ("CFG with the rows of Z-Sampling (λ 1), 2 steps", 4),
        ("Standard, 4 steps", 4),
        ("Z-Sampling (λ 2), 4 steps", 4), ("CFG with the rows of Z-Sampling (λ 2), 4 steps", 7),
    ]  # fmt: skip
    assert every[1].sampler == every[2].sampler
    _, outcomes = measure(bed(tmp_path), Plan(tried, 2.0, baselines=("rows",)))
    assert len(outcomes) == 4


PAGE = (Path(__file__).parents[2] / "docs/howto/bench.md").read_text(encoding="utf-8")
COMMANDS = [text.replace("\\\n", "") for text in re.findall(r"^zigzag (bench (?:.*\\\n)*.*)$", PAGE, re.MULTILINE)]


def test_the_commands_of_the_page_can_be_given() -> None:
    """Every option, method, baseline and number of steps."""
    from zigzag.cli import _parser
    from zigzag.cli.bench import _tried
    from zigzag.cli.options import take_by_model

    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        args = _parser().parse_args(shlex.split(command))
        take_by_model(args)
        Plan(
            tuple(_tried(text, args.steps) for text in args.methods), args.strong, 0.0, tuple(args.baselines.split(","))
        )


def test_the_page_has_what_the_dry_run_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pickapic.csv").write_text("caption\n" + "".join(f"prompt {k}\n" for k in range(1, 101)))
    (command,) = (text for text in COMMANDS if "--dry-run" in text and "pickapic" in text)
    assert main(shlex.split(command)) == 0
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert capsys.readouterr().out.startswith(shown)


SMALL = ["bench", "--model", "shapes-dit", "--count", "6", "--steps", "2", "--methods", "z", "z2:warmup=1"]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> LearnedModel:
    """In the place of the trained one."""
    made = moody()
    monkeypatch.setattr(learned, "load", lambda name, weights, device: made)
    return made


def test_the_command_writes_tables_and_goes_on(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--seeds", "0", "1", "--out", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    assert asked(model) == 0 and list(tmp_path.iterdir()) == []
    assert main(words) == 0
    first = capsys.readouterr().out
    rows = asked(model)
    assert main(words) == 0 and asked(model) == rows
    assert (tmp_path / "bench.txt").read_text(encoding="utf-8") in capsys.readouterr().out
    assert f"digest of all images and verdicts in {tmp_path}: {digest(tmp_path)}" in first
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["digest"] == digest(tmp_path) and [t["seed"] for t in content["trials"]] == [0, 1]
    assert BASELINES == ("standard", "matched", "effective", "rows")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--prompts", "prompts.txt"], ["--prompts", "not allowed", "--count"]),
        (["--count", "5"], ["prompts", "at least 6", "5"]),
        (["--scores", "pickscore"], ["scores", "checker"]),
        (["--baselines", "standard,odd"], ["baselines", "odd", "effective"]),
        (["--image-size", "64"], ["--image-size means nothing"]),
        (["--batch", "2"], ["batch means nothing"]),
        (["--methods", "zz"], ["method", "zz"]),
        (["--methods", "z@x"], ["method", "z@x", "steps"]),
        (["--methods", "z2:warmup=1@1"], ["warmup"]),
        (["--out", "/dev/null/x"], ["/dev/null"]),
        (["--device", "gpux"], ["gpux"]),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_before_a_model_call(
    more: list[str], said: list[str], model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main([*SMALL, "--out", str(tmp_path), *more])
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and [word for word in said if word not in error] == []
    assert asked(model) == 0


def test_a_number_of_prompts_is_taken_by_the_older_word_too(
    model: LearnedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the same evaluation; but a file is refused, and so is neither."""
    rest = ["--steps", "2", "--methods", "z", "--baselines", "standard", "--out", str(tmp_path)]
    assert main(["bench", "--model", "shapes-dit", "--count", "6", *rest]) == 0
    rows = asked(model)
    assert main(["bench", "--model", "shapes-dit", "--prompts", "6", *rest]) == 0
    assert 0 < rows == asked(model)
    wrong = {("--prompts", "p.txt"): "its grammar: pass how many by --count", (): "--prompts --count is required"}
    for given, said in wrong.items():
        with pytest.raises(SystemExit):
            main(["bench", "--model", "shapes-dit", *given, *rest])
        assert said in capsys.readouterr().err
