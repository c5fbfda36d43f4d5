"""`zigzag generate` in shards, and with images that fail."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("diffusers")
pytest.importorskip("PIL")
from support.painters import painter
from zigzag import Standard, Z2Sampling, count_rows
from zigzag.cli import generate_learned as module
from zigzag.cli import main
from zigzag.cli.drawing_cells import cells_of
from zigzag.cli.jobs import plan
from zigzag.zoo import learned

PROMPTS = ("a red circle", "a blue square", "a green circle")


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> learned.LearnedModel:
    """In the place of the trained one, with which nothing here has to do."""
    made = painter()
    monkeypatch.setattr(module, "load", lambda name, device: made)
    return made


def generate(out: Path, *more: str) -> int:
    given = [f"--prompt={prompt}" for prompt in PROMPTS]
    return main(
        ["generate", "--model", "shapes-dit", *given, "--method", "z2", "--steps", "3", "--out", str(out), *more]
    )


def files(out: Path) -> dict[str, bytes]:
    """Images and sidecars, but for the places in them."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_shards_draw_what_one_process_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path / "one")
    capsys.readouterr()
    generate(tmp_path / "two", "--shard", "0/2")
    said = capsys.readouterr().out.splitlines()
    assert len(files(tmp_path / "two")) == 6 and sum(line.startswith("wrote ") for line in said) == 3
    assert said[-1].startswith("shard 0/2: all of its 3 cells are done; 3 of 6 are left")
    generate(tmp_path / "two", "--shard", "1/2")
    assert "and so are all 6" in capsys.readouterr().out
    generate(tmp_path / "two")
    assert capsys.readouterr().out.count("skipped ") == 6
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_an_image_that_fails_is_told_by_method_and_prompt_and_the_others_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = module.draw

    def failing(model: Any, job: Any) -> Any:
        if job.prompt == PROMPTS[1] and job.method == Standard():
            raise RuntimeError("an illegal\ninstruction")
        return draw(model, job)

    monkeypatch.setattr(module, "draw", failing)
    with pytest.raises(SystemExit) as exit:
        generate(tmp_path)
    line, last = capsys.readouterr().err.splitlines()
    assert exit.value.code == 2 and len(files(tmp_path)) == 10
    assert line.startswith(f"Standard, '{PROMPTS[1]}': RuntimeError at ") and line.endswith(": an illegal instruction")
    assert last.startswith("zigzag generate: error: 1 of 6 cells failed 3 times each")


def test_what_fits_no_image_ends_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []

    def refusing(model: Any, job: Any) -> Any:
        calls.append(job)
        raise ValueError("scheduler: cannot be led")

    monkeypatch.setattr(module, "draw", refusing)
    with pytest.raises(SystemExit):
        generate(tmp_path)
    assert capsys.readouterr().err.splitlines() == ["zigzag generate: error: scheduler: cannot be led"]
    assert len(calls) == 1


def test_a_job_that_travelled_is_drawn_alike(tmp_path: Path) -> None:
    settings = module.Settings("shapes-dit", 2.0, 0.0, 3, 42, "cpu")
    drawn = []
    for place in ("here", "there"):
        jobs = plan(settings, PROMPTS[:1], Z2Sampling(warmup=1), tmp_path / place, [])
        cells = cells_of(jobs, module.__name__)
        cells = pickle.loads(pickle.dumps(cells)) if place == "there" else cells
        assert [cell.cost for cell in cells] == [count_rows(job.method, 3, 2.0, 0.0) for job in jobs]
        assert len({cell.worker for cell in cells}) == 1
        for cell in cells:
            cell.run(cell.worker.load())
            assert cell.done()
        drawn.append(files(tmp_path / place))
    assert drawn[0] == drawn[1] and len(drawn[0]) == 4
