"""Cells are named by what they depend on, travel, share a model, and leave the same bytes wherever they ran."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("scipy")
from support.evaluations import moody
from zigzag import Standard, ZSampling
from zigzag.evaluation.cells import Cell, Loaded, digest, hashed
from zigzag.evaluation.engines import run
from zigzag.evaluation.evaluation import Evaluation, Trial
from zigzag.evaluation.samplers import Sampler
from zigzag.evaluation.verdict_cells import LearnedWorker, VerdictCell
from zigzag.moves import Move
from zigzag.zoo import learned

PLAIN = Sampler(Standard(), 2, 2.0)
ZIGZAG = Sampler(ZSampling(), 2, 2.0)
TRIAL = Trial(7, seed=4)


def cells_of(folder: Path, *samplers: Sampler) -> list[VerdictCell]:
    found = Evaluation(moody(), folder).cells(samplers or [PLAIN, ZIGZAG], [TRIAL])
    return [cell for cells in found.values() for cell in cells]


@dataclass(frozen=True)
class Counting:
    """A worker that counts how often it loaded."""

    name: str
    loads: list[str] = field(default_factory=list, compare=False)

    def load(self) -> str:
        self.loads.append(self.name)
        return self.name


@dataclass
class Note:
    """A cell that notes the model it ran on."""

    worker: Counting
    digest: str = ""
    cost: int = 3
    about: str = ""
    ran: list[str] = field(default_factory=list)

    def done(self) -> bool:
        return bool(self.ran)

    def run(self, model: Any) -> None:
        self.ran.append(model)


def test_cells_with_equal_workers_share_a_model_and_those_that_are_done_are_left_out() -> None:
    loads: list[str] = []
    cells = [Note(Counting(name, loads), str(k)) for k, name in enumerate(("a", "b", "a", "a"))]
    cells[1].ran.append("before")
    ticks: list[int] = []
    run(cells, tick=ticks.append)
    assert loads == ["a"] and ticks == [3, 3, 3]
    assert [cell.ran for cell in cells] == [["a"], ["before"], ["a"], ["a"]]


def test_cells_are_named_by_what_they_depend_on(tmp_path: Path) -> None:
    """By the block and the settings; by nothing of the folder, the worker or the names."""
    cells = cells_of(tmp_path)
    assert len({cell.digest for cell in cells}) == len({cell.stem for cell in cells}) == len(cells) == 12
    assert [cell.digest for cell in cells_of(tmp_path / "other")] == [cell.digest for cell in cells]
    named = replace(cells[0], head={**cells[0].head, "sampler": {}}, worker=Loaded(None))
    assert named.digest == cells[0].digest
    block = cells[0].block
    for other in (block._replace(seed=5), block._replace(start=2), block._replace(prompts=("a circle",))):
        assert replace(cells[0], block=other).digest != cells[0].digest
    assert hashed({"a": 1, "b": 2}) == hashed({"b": 2, "a": 1}) != hashed({"a": 1, "b": 3})


@dataclass(frozen=True)
class Twin:
    """Z-Sampling by another name."""

    def path(self, steps: int) -> tuple[Move, ...]:
        return tuple(ZSampling().path(steps))


def test_methods_that_differ_in_name_alone_share_their_cells(tmp_path: Path) -> None:
    evaluation, twin = Evaluation(moody(), tmp_path), replace(ZIGZAG, method=Twin())
    results = evaluation.run([ZIGZAG, twin], [TRIAL])
    assert results[ZIGZAG].verdicts == results[twin].verdicts and len(results[twin].verdicts) == TRIAL.prompts
    assert len(list((tmp_path / "verdicts").iterdir())) == 6


def test_the_cost_is_the_rows_that_run(tmp_path: Path) -> None:
    cells: Iterable[Cell] = cells_of(tmp_path)
    for cell in cells:
        model = moody()
        cell.run(model)
        assert model.network.rows == cell.cost and cell.done()  # type: ignore[union-attr]
        assert isinstance(cell, VerdictCell) and cell.block.prompts[0] in cell.about


def test_a_cell_that_travelled_leaves_the_same_bytes(tmp_path: Path) -> None:
    """Pickled, in any order, on a model that was loaded elsewhere."""
    here, there = cells_of(tmp_path / "here"), cells_of(tmp_path / "there")
    run(here)
    Random(0).shuffle(there)
    run(pickle.loads(pickle.dumps(there)))
    assert digest(tmp_path / "here") == digest(tmp_path / "there") != digest(tmp_path / "none")
    rooms = [tmp_path / place / "verdicts" for place in ("here", "there")]
    files = [{path.name: path.read_bytes() for path in room.iterdir()} for room in rooms]
    assert files[0] == files[1] and len(files[0]) == 12


def test_the_digest_is_of_images_and_verdicts_by_name_and_content(tmp_path: Path) -> None:
    assert digest(tmp_path) == hashlib.sha256().hexdigest()
    seen = [digest(tmp_path)]
    for name, content in (("images/a.png", b"1"), ("images/a.png", b"2"), ("images/b.png", b"2"), ("verdicts/c", b"")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        seen.append(digest(tmp_path))
    assert len(set(seen)) == len(seen)
    for name in ("timings/a.json", "scores/a.json", "images/.b.png.17.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"3")
    assert digest(tmp_path) == seen[-1]


def test_a_worker_loads_its_model_and_leaves_a_held_one_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    held = moody()
    monkeypatch.setattr(learned, "load", lambda *given: given)
    worker = LearnedWorker("shapes-dit", Path("w"), "cpu")
    holding = replace(worker, held=held)
    assert holding == worker and hash(holding) == hash(worker)
    assert worker.load() == ("shapes-dit", Path("w"), "cpu") and holding.load() is held
    assert pickle.loads(pickle.dumps(holding)).load() == ("shapes-dit", Path("w"), "cpu")


def test_a_file_without_all_of_its_block_is_refused_by_name(tmp_path: Path) -> None:
    cell = next(cell for cell in cells_of(tmp_path, PLAIN) if len(cell.block.prompts) > 1)
    cell.run(moody())
    cell.path.write_text("".join(cell.path.read_text(encoding="utf-8").splitlines(True)[:-1]), encoding="utf-8")
    with pytest.raises(ValueError, match=cell.path.name):
        cell.done()
