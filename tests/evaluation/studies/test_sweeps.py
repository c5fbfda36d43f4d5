"""The studies can be sampled as they are written down, and one of them is."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from support.evaluations import asked, made, moody, results
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.evaluation.compare import Results, duels, figures, table
from zigzag.evaluation.evaluation import Evaluation, Result
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.evaluation.studies import __main__ as command
from zigzag.evaluation.studies.picture import draw_study
from zigzag.evaluation.studies.solvers import SOLVERS
from zigzag.evaluation.studies.study import STRONG
from zigzag.evaluation.studies.sweeps import HEADLINE, STUDIES, Study
from zigzag.zoo import learned
from zigzag.zoo.learned import MODELS, LearnedModel

WANTED = {
    "gap",
    "lambda",
    "span",
    "scale",
    "cost",
    "warmup",
    "inversion",
    "error",
    "ancestral",
    "released",
    "headline",
    "budget",
    "strengths",
    "partial",
    "weak-scales",
    "weak-scales-implicit",
    "weak-scales-solvers",
    "weak-scales-end-to-end",
    "weak-scales-end-to-end-solvers",
    "w2sd",
}
WANTED |= {f"{kind}{steps}" for kind in ("solvers", "methods", "matched") for steps in ("", "-20")}
BUILT = {name: make() for name, make in STUDIES.items()}
studies = pytest.mark.parametrize("study", BUILT.values(), ids=BUILT)


def samplers(study: Study) -> set[Sampler]:
    return {line.sampler for line in study.lines}


def test_every_study_of_the_issue_is_there() -> None:
    assert set(STUDIES) == WANTED
    assert len({study.title for study in BUILT.values()}) == len(STUDIES)
    assert all(study.title and study.source and (study.axis or not study.points) for study in BUILT.values())


@studies
def test_every_sampler_can_be_sampled(study: Study) -> None:
    """On the solver of either model."""
    for sampler in samplers(study):
        assert sampler.rows() >= sampler.steps
        for name in MODELS:
            sampler.guidance(sampler.solver_of(moody(name)))


@studies
def test_points_and_rivals_are_in_the_table(study: Study) -> None:
    known = samplers(study)
    first = study.lines[0].sampler
    assert first == Sampler(Standard(), first.steps, first.strong, solver=first.solver)
    assert study.lines[0].against == ()
    for point in study.points:
        assert point.sampler in known and math.isfinite(point.x)
    for line in study.lines:
        assert set(line.against) <= known - {line.sampler}
    assert len({line.label for line in study.lines}) == len(study.lines)
    if study.points:
        assert known == {point.sampler for point in study.points} | {first}
        assert len({point[:2] for point in study.points}) == len(study.points)


def test_the_weak_scale_is_swept_for_every_zigzag_on_every_solver() -> None:
    """Six scales and rules each, against standard sampling on the solver, w = 0, and plain CFG with as many rows."""
    swept = [line for name, study in BUILT.items() if name.startswith("weak-scales") for line in study.lines]
    found = Counter((line.sampler.method, line.sampler.solver) for line in swept)
    zigzags = (ZSampling(), ImplicitZ(), Z2Sampling(warmup=2), EndToEnd())
    assert {key: n for key, n in found.items() if key[0] in zigzags} == dict.fromkeys(product(zigzags, SOLVERS), 6)
    for line in swept:
        if (sampler := line.sampler).method in zigzags:
            plain, *rest = line.against
            assert plain == Sampler(Standard(), 10, STRONG, solver=sampler.solver)
            assert sampler.weak == 0 or rest.pop(0) == replace(sampler, weak=0.0)
            assert [rival.standard for rival in rest] == rest and len(rest) == (sampler.rows() > plain.rows())
            assert all(sampler.rows() <= rival.rows() for rival in rest)


def test_every_method_is_tried_at_every_budget_in_as_many_steps_as_it_allows() -> None:
    """At about the rows that the line is named by; Z-Sampling has no room at 20."""
    for line in BUILT["budget"].lines:
        assert int(line.label.split()[0]) - 4 < line.sampler.rows() <= int(line.label.split()[0]), line.label
    found = Counter((line.label.split()[0], type(line.sampler.method)) for line in BUILT["budget"].lines)
    methods = (Standard, Z2Sampling, ImplicitZ, Resampling, ZSampling)
    wanted = dict.fromkeys(product(("20", "40", "50"), methods), len(SOLVERS)) | {("20", ZSampling): 0}
    assert found == Counter(wanted)


def test_a_part_of_a_gap_is_held_against_plain_guidance_of_its_strength_and_its_rows() -> None:
    for name in ("strengths", "partial"):
        for line in BUILT[name].lines:
            if isinstance(line.sampler.method, Standard):
                continue
            fair = set(baselines(line.sampler).values())
            assert fair <= set(line.against) and fair <= samplers(BUILT[name])
            number = isinstance(getattr(line.sampler.method, "strength", 1.0), float)
            assert number == any(rival.matched == line.sampler.method for rival in fair)


def test_w2sd_has_the_published_networks_and_as_many_rows_beside_it() -> None:
    """Rows of a step: 2 of the strong network, 1 of the weak, 2 of the plain one; of the last one 2."""
    *_, longer, zigzag, roles = (line.sampler for line in BUILT["w2sd"].lines)
    strengths = [getattr(roles, f"{role}_fn").strength for role in ("strong", "weak", "plain")]
    assert strengths == [1.5, -1.5, 0.8] and (roles.strong, roles.weak) == (STRONG, 1.0)
    assert roles.method == zigzag.method == ZSampling(plain=True)
    assert zigzag == replace(roles, strong_fn=longer.strong_fn, weak_fn=None, plain_fn=None)
    assert roles.rows() == zigzag.rows() == 9 * 5 + 2 <= longer.rows() < roles.rows() + 2
    assert longer == replace(longer.standard, steps=24) and longer.strong_fn == roles.plain_fn


@studies
def test_every_line_but_standard_sampling_has_a_rival(study: Study) -> None:
    for line in study.lines:
        plain = isinstance(line.sampler.method, Standard) and line.sampler.matched is None
        assert line.against or plain or study.by_cost  # whose lines cost all kinds of rows


@studies
def test_tables_can_be_made(study: Study) -> None:
    some = results(study.lines)
    assert len(table(study.lines, some).splitlines()) == 2 + len(study.lines)
    assert len(figures(study.lines, some)) == len(study.lines)
    assert len(duels(study.lines, some).splitlines()) in (0, 2 + sum(len(line.against[1:]) for line in study.lines))


def test_samplers_of_all_studies_that_are_equal_have_the_same_verdicts(tmp_path: Path) -> None:
    """So that what two studies share is sampled once."""
    evaluation, heads = Evaluation(moody("shapes-unet"), tmp_path), {}
    for name, study in BUILT.items():
        for sampler in [line.sampler for line in study.lines]:
            head = json.dumps(evaluation.head(sampler))
            first, known = heads.setdefault(sampler, (name, head))
            assert head == known, f"{name} and {first}: {sampler}"


def swept(name: str, series: str) -> list[tuple[float, Sampler]]:
    found = [(point.x, point.sampler) for point in BUILT[name].points if point.series == series]
    assert len(found) > 1
    return found


def test_what_is_swept_is_what_x_says() -> None:
    def z(sampler: Sampler) -> ZSampling:
        method = sampler.matched or sampler.method
        assert isinstance(method, ZSampling)
        return method

    for series in ("Z-Sampling", "Z²-Sampling", "CFG at the matched scale of Z"):
        assert all(s.weak == x for x, s in swept("gap", series))
        assert all(s.strong == x for x, s in swept("scale", series))
    assert any(s.weak == s.strong for _, s in swept("gap", "Z-Sampling"))
    assert all(z(s).steps == x for x, s in swept("lambda", "Z-Sampling"))
    assert all(z(s).span == x for x, s in swept("span", "Z-Sampling") + swept("span", "CFG at the matched scale of Z"))
    assert all(s.method == Z2Sampling(warmup=int(x)) for x, s in swept("warmup", "Z²-Sampling"))
    assert all(s.error == x and s.weak == 0 for x, s in swept("error", "Z-Sampling, gap"))
    assert all(s.error == x and s.weak == s.strong for x, s in swept("error", "Z-Sampling, no gap"))
    assert all(z(s).released == bool(x) for x, s in swept("released", "Z-Sampling"))
    assert all(s.steps == x for x, s in swept("cost", "Standard") + swept("cost", "Implicit Z"))
    for gap, weak in (("gap", 0.0), ("no gap", None)):
        for x, s in swept("inversion", f"Z-Sampling, {gap}") + swept("inversion", f"End-to-End, {gap}"):
            assert s.method.refine == x and s.weak == (s.strong if weak is None else weak)  # type: ignore[attr-defined]


def test_the_study_of_ancestral_steps_pairs_each_with_standard_sampling_on_the_same_steps() -> None:
    """Zigzags with fresh noise have none of their own: without a way back there is nothing to draw anew."""
    for line in BUILT["ancestral"].lines:
        solver = line.sampler.solver.removesuffix(",fresh")
        if not isinstance(line.sampler.method, Standard):
            assert line.against[0] == Sampler(Standard(), line.sampler.steps, line.sampler.strong, solver=solver)
    assert {line.sampler.solver for line in BUILT["ancestral"].lines} == {"ddim", "ddim:eta=1", "ddim:eta=1,fresh"}


def test_the_studies_of_solvers_have_every_method_on_every_solver() -> None:
    for name, T in (("methods", 10), ("methods-20", 20)):
        found = {(line.sampler.solver, type(line.sampler.method)) for line in BUILT[name].lines}
        kinds = {Standard, Resampling, ZSampling, ImplicitZ, Z2Sampling}
        assert found == {(s, kind) for s in ("ddim", "ddim:eta=1", "2m", "sde-2m") for kind in kinds}
        assert {line.sampler.steps for line in BUILT[name].lines} == {T}
        beside = BUILT[name.replace("methods", "matched")]
        assert samplers(BUILT[name]) < samplers(beside)
        assert {line.sampler.matched for line in beside.lines} > {None, ZSampling()}


def test_the_headline_has_every_method_beside_its_baselines() -> None:
    assert {type(method) for method in HEADLINE} == {Resampling, EndToEnd, ZSampling, ImplicitZ, Z2Sampling}
    assert {line.sampler.method for line in BUILT["headline"].lines} == {Standard(), *HEADLINE}
    assert command.SEEDS["headline"] == (0, 1, 2)


@pytest.mark.parametrize("name", ["warmup", "cost", "headline"])
def test_a_picture_is_drawn_of_each_kind(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study = BUILT[name]
    draw_study(tmp_path / "new" / "a.png", study, results(study.lines), "shapes-unet")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize(("right", "prompts"), [(0.0, 60), (0.0, 600), (1.0, 60), (1.0, 600)])
def test_a_picture_is_drawn_where_all_are_right_or_none(right: float, prompts: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    some: Results = {line.sampler: Result(made(0, right, prompts=prompts), 0.001) for line in BUILT["released"].lines}
    draw_study(tmp_path / "a.png", BUILT["released"], some, "shapes-unet")
    assert (tmp_path / "a.png").exists()


def run(monkeypatch: pytest.MonkeyPatch, model: LearnedModel, *words: str) -> None:
    monkeypatch.setattr(learned, "load", lambda name, weights, device: model)
    monkeypatch.setattr(sys, "argv", ["studies", *words])
    command.main()


def test_a_study_ends_in_a_table_figures_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("diffusers")
    model, study = moody(), BUILT["released"]
    words = ("released", "--model", "shapes-dit", "--prompts", "6", "--out", str(tmp_path))
    run(monkeypatch, model, *words)
    text = capsys.readouterr().out
    names = {f"released-shapes-dit.{kind}" for kind in ("txt", "json", "png")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"verdicts", "timings"}
    written = (tmp_path / "released-shapes-dit.txt").read_text(encoding="utf-8")
    assert written in text + "\n" and study.title in written and study.source in written
    assert all(line.label in written for line in study.lines) and "delta" in written
    content = json.loads((tmp_path / "released-shapes-dit.json").read_text())["lines"]
    assert [figure["rows"] for figure in content] == [line.sampler.rows() for line in study.lines]
    assert (tmp_path / "released-shapes-dit.png").read_bytes().startswith(b"\x89PNG")
    rows = asked(model)
    assert rows == 6 * sum(sampler.rows() for sampler in samplers(study))
    run(monkeypatch, model, *words)
    assert asked(model) == rows


def test_shards_of_a_study_leave_its_table_to_whoever_comes_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("diffusers")
    model = moody()
    words = ("released", "--model", "shapes-dit", "--prompts", "6", "--out", str(tmp_path))
    for shard in ("0/2", "1/2"):
        run(monkeypatch, model, *words, "--shard", shard)
        assert "the same command without --shard: the table" in capsys.readouterr().out
    assert not [*tmp_path.glob("*.txt")]
    rows = asked(model)
    run(monkeypatch, model, *words)
    assert asked(model) == rows and (tmp_path / "released-shapes-dit.txt").exists()


@pytest.mark.parametrize(
    "words", [("released", "--prompts", "3"), ("released", "--prompts", "6", "--out", "/dev/null/x")], ids=" ".join
)
def test_bad_input_is_one_line_and_exit_code_2_before_a_model_call(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = moody()
    with pytest.raises(SystemExit) as exit:
        run(monkeypatch, model, "released", *words)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and asked(model) == 0


def test_a_missing_matplotlib_is_named_before_the_first_model_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = moody()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit) as exit:
        run(monkeypatch, model, "released", "--model", "shapes-dit", "--prompts", "6", "--out", str(tmp_path))
    assert exit.value.code == 2 and "zigzag-diffusion[plots]" in capsys.readouterr().err
    assert asked(model) == 0
