"""`zigzag bench` of a pipeline says in one line what it cannot do, before the model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")

from support.benches import STRONG, TEXTS, T, bed, bench
from zigzag import ImplicitZ
from zigzag.cli import main
from zigzag.evaluation import beds, image_cells
from zigzag.evaluation.bench import Plan, Tried, measure


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Of what was said on standard error, where other libraries may have had their say before; the one error of all."""
    lines = capsys.readouterr().err.splitlines()
    assert [": error: " in line for line in lines].count(True) == 1 and ": error: " in lines[-1]
    return lines[-1]


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "no such score": (["--scores", "beauty"], ["score must be one of", "pickscore", "beauty"]),
    "weights that are missing": (["--scores", "support.scores:Missing"], ["missing", "fetch them first"]),
    "two scores of a name": (
        ["--scores", "support.scores:Red", "support.scores:Redder"],
        ["names of their own", "red"],
    ),
    "no such file": (["--prompts", "nowhere.txt"], ["nowhere.txt"]),
    "no such baseline": (["--baselines", "none"], ["baselines", "none"]),
    "size": (["--image-size", "17"], ["image-size"]),
    "batch": (["--batch", "0"], ["batch"]),
    "steps": (["--methods", "z2:warmup=3"], ["warmup"]),
    "dtype": (["--dtype", "int8"], ["dtype"]),
    "scheduler": (["--scheduler", "euler"], ["scheduler"]),
    "folder": (["--out", "/dev/null/x"], ["/dev/null"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line_before_the_model_is_loaded(
    name: str, folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_cells, "load_pipeline", lambda *_: pytest.fail("too late"))
    more, said = REFUSED[name]
    with pytest.raises(SystemExit) as exit:
        bench(folders("stable_diffusion_xl"), tmp_path / "out", *more)
    error = last_line(capsys)
    assert exit.value.code == 2
    assert [word for word in said if word not in error] == []


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("p.txt", b"a dog\n\na cat\n", "line 2"),
        ("p.txt", "a café\n".encode("latin-1"), "UTF-8"),
        ("p.txt", b"", "p.txt"),
        ("p.doc", b"a dog\n", ".jsonl"),
    ],
)
def test_bad_prompts_are_one_line_before_the_model_is_loaded(
    file: str, content: bytes, said: str, folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(image_cells, "load_pipeline", lambda *_: pytest.fail("too late"))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(SystemExit):
        bench(folders("stable_diffusion_xl"), tmp_path / "out", "--prompts", str(tmp_path / file))
    error = last_line(capsys)
    assert said in error and file in error


def test_a_number_of_prompts_is_refused_where_a_file_is_wanted(
    folders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--model", str(folders("stable_diffusion_xl")), "--count", "6", "--out", str(tmp_path / "out")])
    error = last_line(capsys)
    assert "--count means nothing to" in error and error.endswith("pass --prompts FILE")


def test_too_little_space_is_said_before_the_model_is_loaded(
    folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_cells, "load_pipeline", lambda *_: pytest.fail("too late"))
    monkeypatch.setattr(beds, "_free", lambda folder: 1000)
    with pytest.raises(SystemExit):
        bench(folders("stable_diffusion_xl"), tmp_path / "out")
    assert "GB" in (error := last_line(capsys)) and "--out" in error


def test_a_score_that_is_no_number_is_refused_and_the_images_stay(
    folders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (folders("stable_diffusion_xl"), tmp_path / "out", "--baselines", "standard")
    with pytest.raises(SystemExit):
        bench(*words, scored="support.scores:Nan")
    assert "finite" in capsys.readouterr().err and len(list((tmp_path / "out/images").glob("*.png"))) == 6
    assert bench(*words) == 0


def test_without_scores_there_are_images_and_their_cost(folders: Any, tmp_path: Path) -> None:
    one = bed(folders("stable_diffusion_xl"), tmp_path, texts=TEXTS[:1])
    every, outcomes = measure(one, Plan((Tried(ImplicitZ(), T),), STRONG))
    assert all(outcomes[line.sampler].seconds > 0 for line in every)
    # The effective scale is the matched one here, or a hundredth more: as it rounds, both are one cell, or two.
    cells = {cell.digest for line in every for cell in one.cells(line.sampler)}
    assert len(list((tmp_path / "images").glob("*.png"))) == len(cells) >= len(every) - 1 == 4
