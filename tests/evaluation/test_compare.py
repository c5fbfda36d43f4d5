"""The tables say what the verdicts say: their numbers are read back from the text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("scipy")
from support.evaluations import asked, made, moody, results
from zigzag import EndToEnd, ImplicitZ, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.evaluation.accuracy import wilson
from zigzag.evaluation.compare import Line, duels, errors, figures, lines, rows, table
from zigzag.evaluation.evaluation import Evaluation, Result, Trial
from zigzag.evaluation.report import report
from zigzag.evaluation.samplers import Sampler, baselines
from zigzag.evaluation.verdicts import Paired, overall, paired, scores
from zigzag.zoo.shapes import CATEGORIES

T = 10
METHODS = [Resampling(), EndToEnd(), ZSampling(), ZSampling(released=True), ImplicitZ(), Z2Sampling(warmup=2)]
LINES = lines(METHODS, T, 4.0)
RESULTS = results(LINES)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def numbers(text: str) -> list[float]:
    return [float(word) for word in NUMBER.findall(text)]


def body(text: str) -> list[str]:
    """The lines under the head and the rule."""
    head, rule, *rest = text.splitlines()
    assert set(rule) == {"-"} and len(rule) == len(head)
    return rest


def check_pair(text: str, pair: Paired) -> None:
    found = numbers(text)
    low, high = pair.interval()
    wanted = [pair.wins, pair.losses, 100 * pair.difference, 100 * low, 100 * high]
    assert found[:2] == wanted[:2]
    assert found[2:5] == pytest.approx(wanted[2:], abs=0.051)
    if pair.p < 1e-4:
        assert text.endswith(" <0.0001")
    else:
        assert found[5] == pytest.approx(pair.p, abs=0.000051) and "<" not in text


def test_standard_sampling_comes_first_and_each_method_before_its_baselines() -> None:
    standard = Sampler(Standard(), T, 4.0)
    assert LINES[0] == Line("Standard", standard) and LINES[0].against == ()
    wanted = [standard]
    for method in METHODS:
        sampler = Sampler(method, T, 4.0)
        wanted += [sampler, *baselines(sampler).values()]
    assert [line.sampler for line in LINES] == wanted
    for line in LINES[1:]:
        plain = isinstance(line.sampler.method, Standard)
        assert line.baseline == plain
        assert line.against == ((standard,) if plain else (standard, *baselines(line.sampler).values()))
    assert not LINES[0].baseline
    assert len({line.label for line in LINES}) == len(LINES)


def test_standard_sampling_is_not_compared_with_itself() -> None:
    assert lines([Standard()], T, 4.0) == lines([], T, 4.0) == [LINES[0]]


def test_lines_of_what_cannot_be_sampled_are_refused() -> None:
    for method, steps, strong in ((Z2Sampling(), 5, 4.0), (ZSampling(), 0, 4.0), (ZSampling(), 4, float("nan"))):
        with pytest.raises(ValueError, match=r"warmup|steps|T|scale|strong"):
            lines([method], steps, strong)


def test_the_table_says_what_the_verdicts_say() -> None:
    text = body(table(LINES, RESULTS))
    assert len(text) == len(LINES)
    for line, shown in zip(LINES, text, strict=True):
        assert shown.startswith(line.label + " ")
        result = RESULTS[line.sampler]
        found = numbers(shown[max(len(other.label) for other in LINES) :])
        by, every = scores(result.verdicts), overall(result.verdicts)
        assert found[:3] == [line.sampler.steps, rows(result), round(1000 * result.seconds)]
        assert found[3:9] == pytest.approx([100 * by[c].share for c in CATEGORIES], abs=0.051)
        interval = [100 * bound for bound in wilson(every)]
        assert found[9:12] == pytest.approx([100 * every.share, *interval], abs=0.051)
        if line.against:
            pair = paired(result.verdicts, RESULTS[line.against[0]].verdicts)
            check_pair(shown[len(shown) - len(_tail(shown)) :], pair)
        else:
            assert len(found) == 12


def _tail(shown: str) -> str:
    """What comes after Wilson's interval."""
    match = re.search(r" to \d+\.\d(?= )(.*)$", shown)
    assert match is not None
    return match[1]


def test_columns_stand_under_their_heads() -> None:
    head = table(LINES, RESULTS).splitlines()[0]
    assert head.split()[:9] == ["steps", "rows", "ms", "single", "two", "count", "colour", "place", "attrib"]
    first = body(table(LINES[:1], RESULTS))[0]
    head = table(LINES[:1], RESULTS).splitlines()[0]
    ends = [match.end() for match in re.finditer(r"\S+", head)][:9]
    assert [match.end() for match in re.finditer(r"\S+", first)][1:10] == ends


def test_the_mean_beta_stands_beside_the_methods_that_have_one() -> None:
    """Over the samples that have one; where nothing has, there is no column."""
    two = [Line("Standard", LINES[0].sampler), Line("Z", LINES[1].sampler, (LINES[0].sampler,))]
    verdicts = [replace(v, beta=None if k % 3 == 0 else k / 7) for k, v in enumerate(made(0, 0.5))]
    some = {two[0].sampler: Result(made(1, 0.5), 0.001), two[1].sampler: Result(verdicts, 0.001)}
    known = [v.beta for v in verdicts if v.beta is not None]
    head, _, standard, z = table(two, some).splitlines()
    at = re.search(r"\bbeta", head)
    assert at is not None and head.split()[:5] == ["steps", "rows", "ms", "beta", "single"]
    assert float(z[: at.end()].split()[-1]) == pytest.approx(sum(known) / len(known), abs=0.0051)
    assert standard[at.start() : at.end()].strip() == "" and len(z) == len(head)
    assert [figure["beta"] for figure in figures(two, some)] == [None, pytest.approx(sum(known) / len(known))]
    assert "beta" not in table(LINES, RESULTS)


def test_only_the_line_of_standard_sampling_has_no_pairs() -> None:
    paired_lines = [bool(re.search(r"\([+-]\d", text)) for text in body(table(LINES, RESULTS))]
    assert paired_lines == [False] + [True] * (len(LINES) - 1)


def test_a_small_p_is_not_nothing() -> None:
    two = [Line("Standard", LINES[0].sampler), Line("Z", LINES[1].sampler, (LINES[0].sampler,))]
    some = {two[0].sampler: Result(made(0, 0.0), 0.001), two[1].sampler: Result(made(0, 1.0), 0.001)}
    check_pair(_tail(body(table(two, some))[1]), Paired(60, 0, 60))
    assert body(table(two, some))[1].endswith(" <0.0001")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_columns_stand_under_each_other_whatever_the_shares(share: float) -> None:
    """At 0 an interval is shorter, at 1 longer, than at a half; with pairs a line ends where the rule does."""
    two = [Line("Standard", LINES[0].sampler), Line("Z", LINES[1].sampler, (LINES[0].sampler,))]
    some = {two[0].sampler: Result(made(0, 0.5), 0.001), two[1].sampler: Result(made(1, share), 0.001)}
    _, rule, _, shown = table(two, some).splitlines()
    assert len(shown) == len(rule)


@pytest.mark.parametrize("prompts", [6, 18, 36, 60, 600])
def test_an_interval_has_no_minus_at_nothing_right(prompts: int) -> None:
    some = {LINES[0].sampler: Result(made(0, 0.0, prompts=prompts), 0.001)}
    assert " 0.0 to " in table(LINES[:1], some)


def test_duels_have_every_rival_but_the_first() -> None:
    text = body(duels(LINES, RESULTS))
    labels = {line.sampler: line.label.strip() for line in reversed(LINES)}
    wanted = [(line, other) for line in LINES for other in line.against[1:]]
    assert len(text) == len(wanted) == 9  # "matched scale" of four methods, "same rows" of five
    for (line, other), shown in zip(wanted, text, strict=True):
        first, second = shown.split(" against ")
        assert first.strip() == line.label.strip() and second.startswith(labels[other] + " ")
        pair = paired(RESULTS[line.sampler].verdicts, RESULTS[other].verdicts)
        check_pair(second.removeprefix(labels[other]), pair)
    assert duels(LINES[:1], RESULTS) == ""


def test_errors_are_means_over_the_samples_that_have_them() -> None:
    s = [line.sampler for line in LINES]
    some = dict(RESULTS)
    verdicts = made(0, 0.5, delta=2.0, tau1=10.0, tau2=0.5)
    given = [replace(v, delta=float(k), tau1=None if k % 2 else 2.0 * k) for k, v in enumerate(verdicts)]
    some[s[1]] = Result(given, 0.1)
    some[s[2]] = Result(made(0, 0.5, delta=7.25), 0.1)
    text = body(errors(LINES[:4], some))
    wide = max(len(line.label) for line in LINES[:4])
    assert [line[:wide].strip() for line in text] == [LINES[1].label.strip(), LINES[2].label.strip()]
    assert [numbers(line[wide:]) for line in text] == [[29.5, 58.0, 0.5], [7.25]]


def test_figures_are_those_of_the_verdicts_and_go_into_json() -> None:
    found = figures(LINES, RESULTS)
    assert [figure["name"] for figure in found] == [line.label.strip() for line in LINES]
    labels = {line.sampler: line.label.strip() for line in reversed(LINES)}
    for line, figure in zip(LINES, found, strict=True):
        result = RESULTS[line.sampler]
        every = overall(result.verdicts)
        assert (figure["overall"], figure["prompts"], figure["rows"]) == (every.right, every.count, rows(result))
        assert figure["right"] == {c: score.right for c, score in scores(result.verdicts).items()}
        assert figure["interval"] == wilson(every)
        pairs = {labels[other]: paired(result.verdicts, RESULTS[other].verdicts) for other in line.against}
        assert figure["against"] == {
            k: {"wins": p.wins, "losses": p.losses, "interval": p.interval(), "p": p.p} for k, p in pairs.items()
        }
        assert figure["sampler"] == repr(line.sampler)
    slower = {sampler: replace(result, seconds=9.0) for sampler, result in RESULTS.items()}
    assert json.dumps(figures(LINES, slower)) == json.dumps(found)


def test_rows_are_the_mean() -> None:
    assert rows(Result([*made(0, 0.5, rows=20), *made(1, 0.5, rows=25)], 1.0)) == 22.5


def test_a_report_is_the_tables_on_disk(tmp_path: Path) -> None:
    few = lines([ZSampling(), Resampling()], 3, 2.0)
    evaluation, trials = Evaluation(moody(), tmp_path), [Trial(6, seed=3), Trial(7, seed=5)]
    text, found = report(evaluation, "z", "The title", few, trials)
    assert set(found) == {line.sampler for line in few}
    assert all(len(result.verdicts) == 13 for result in found.values())
    assert (tmp_path / "z.txt").read_text(encoding="utf-8") == text + "\n"
    record = json.loads((tmp_path / "z.json").read_text())
    assert record["lines"] == json.loads(json.dumps(figures(few, found)))
    assert (record["model"], record["weights"]) == ("shapes-dit", evaluation.weights)
    assert [trial["seed"] for trial in record["trials"]] == [3, 5]
    title, tables, pairs, note = text.split("\n\n")
    assert (title, tables, pairs) == ("The title", table(few, found), duels(few, found))
    seconds = sum(result.seconds for result in found.values()) * 13
    for said in ("shapes-dit", "13 prompts", "seed 3, 5", "float32", f"{seconds:.0f} s of sampling"):
        assert said in note
    rerun = asked(evaluation.model)
    with_terms, _ = report(evaluation, "z", "The title", few, trials, terms=True)
    assert asked(evaluation.model) == rerun
    assert with_terms.split("\n\n") == [title, tables, errors(few, found), pairs, note]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["timings", "verdicts", "z.json", "z.txt"]


def test_a_report_tells_of_all_the_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines of 60 samples, of 1, 2 and 3 s a sample; a sampler that stands in two lines counts once."""
    few = lines([Resampling()], T, 4.0)
    some = {line.sampler: Result(made(0, 0.5), k) for k, line in enumerate(few, 1)}
    monkeypatch.setattr(Evaluation, "run", lambda *given: some)
    text, _ = report(Evaluation(moody(), tmp_path), "z", "Title", [*few, few[0]], [Trial(60)])
    assert " 360 s of sampling" in text


def test_a_report_tells_of_bfloat16(tmp_path: Path) -> None:
    text, _ = report(Evaluation(moody(), tmp_path), "z", "Title", lines([], 2, 2.0), [Trial(6, amp=True)])
    assert "bfloat16 products" in text and "float32" not in text
