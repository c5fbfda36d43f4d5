"""One process runs every cell once, whatever fails, and goes on after a stop with what is not done."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from support.cells import Forgets, Kills, Loads, Raises, Unloadable, Writes, begun, digest_of, start, writers
from zigzag.evaluation.engines import Failed, Refused, complete, left_of, running
from zigzag.evaluation.engines.running import run
from zigzag.support.files import replacing


def test_each_is_run_once_in_the_order_given_and_told_of(tmp_path: Path) -> None:
    cells = writers(tmp_path, 5)
    rows: list[int] = []
    told: list[object] = []
    assert run([*cells, *cells], tick=rows.append, each=told.append) == []
    assert begun(tmp_path) == ["prompt-0", "prompt-1", "prompt-2", "prompt-3", "prompt-4"]
    assert rows == [cell.cost for cell in cells]
    assert told == cells


def test_what_is_done_is_not_run_again(tmp_path: Path) -> None:
    cells = writers(tmp_path, 5)
    run(cells[1:3])
    rows: list[int] = []
    run(cells, tick=rows.append)
    assert max(Counter(begun(tmp_path)).values()) == 1
    assert sum(rows) == sum(cells[k].cost for k in (0, 3, 4))


def test_nothing_is_loaded_where_nothing_is_left(tmp_path: Path) -> None:
    run([Writes(tmp_path, "there")])
    assert run([Writes(tmp_path, "there", worker=Unloadable())]) == []


def test_a_model_is_loaded_once(tmp_path: Path) -> None:
    cells = [Writes(tmp_path, str(k), worker=Loads(k % 2, log=tmp_path / "loads")) for k in range(6)]
    run(cells)
    assert (tmp_path / "loads").read_text().split("\n")[:-1] == ["load 0", "load 1"]


def test_one_that_fails_thrice_is_reported_with_its_prompt_and_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    bad = Raises(tmp_path, "bad")
    (failure,) = run([bad, *writers(tmp_path, 3)])
    assert failure.cell == bad
    assert str(failure).startswith("Z, 'bad': ValueError at cells.py:")
    assert str(failure).endswith(": the sky is red")
    assert Counter(begun(tmp_path)) == {"bad": 3, "prompt-0": 1, "prompt-1": 1, "prompt-2": 1}


def test_one_that_fails_twice_is_done(tmp_path: Path) -> None:
    cell = Raises(tmp_path, "flaky", times=2)
    assert run([cell, *writers(tmp_path, 1)]) == []
    assert cell.done()
    assert begun(tmp_path) == ["flaky", "prompt-0", "flaky", "flaky"], "it has to be tried again after the others"


def test_one_that_writes_nothing_is_reported(tmp_path: Path) -> None:
    (failure,) = run([Forgets(tmp_path, "idle")])
    assert str(failure) == "Z, 'idle': it ran, and wrote no file"


def test_a_file_that_another_machine_wrote_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    late, cell = Writes(tmp_path, "late"), Writes(tmp_path, "elsewhere")
    monkeypatch.setattr(running.time, "sleep", lambda seconds: late.file.touch())
    (failure,) = running._unseen([late, cell], patience=0.01)
    assert late.done()
    assert "all must share one folder" in str(failure)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_where_nothing_more_can_be_written_the_run_ends(tmp_path: Path, code: int) -> None:
    full = Raises(tmp_path, "full", error=OSError(code, os.strerror(code), "results"))
    with pytest.raises(OSError, match=os.strerror(code)):
        run([*writers(tmp_path, 2), full, Writes(tmp_path, "after")])
    assert begun(tmp_path) == ["prompt-0", "prompt-1", "full"]


def test_what_no_cell_can_do_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pass another scheduler"):
        run([Raises(tmp_path, "refused", error=Refused("pass another scheduler")), Writes(tmp_path, "after")])
    assert begun(tmp_path) == ["refused"]


def test_another_error_of_the_system_is_of_its_cell(tmp_path: Path) -> None:
    bad = Raises(tmp_path, "bad", error=OSError(errno.ENOENT, "No such file or directory", "mask.png"))
    (failure,) = run([bad, Writes(tmp_path, "after")])
    assert "there is no mask.png" in str(failure)
    assert Writes(tmp_path, "after").done()


def test_a_model_that_is_not_to_be_had_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot load model nowhere"):
        run([Writes(tmp_path, "x", worker=Unloadable())])


def test_a_stop_is_passed_on(tmp_path: Path) -> None:
    def stop(cell: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(writers(tmp_path, 3), each=stop)
    assert begun(tmp_path) == ["prompt-0"]


class TwoHands:
    """Two hands that take turns."""

    count, patience = 2, 0.0

    def __init__(self) -> None:
        self.given: list[tuple[int, Any]] = []

    def give(self, hand: int, cell: Any) -> None:
        self.given.append((hand, cell))

    def wait(self) -> tuple[int, str | None]:
        hand, cell = self.given.pop(0)
        cell.run(0)
        return hand, None


def test_several_hands_take_the_longest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_hands", lambda engine, most: nullcontext(TwoHands()))
    cells = writers(tmp_path, 10)
    run(cells, engine="two")
    costs = {cell.name: cell.cost for cell in cells}
    assert [costs[name] for name in begun(tmp_path)] == sorted(costs.values(), reverse=True) != list(costs.values())


def test_another_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine must be ray or ray=address, got 'dask'"):
        run(writers(tmp_path, 1), engine="dask")


def test_the_shards_make_what_one_process_makes(tmp_path: Path) -> None:
    whole, shared = writers(tmp_path / "whole", 11), writers(tmp_path / "shared", 11)
    run(whole)
    for k in range(3):
        run(shared, shard=(k, 3))
        run(shared, shard=(k, 3))
    assert digest_of(tmp_path / "whole/results") == digest_of(tmp_path / "shared/results")
    assert max(Counter(begun(tmp_path / "shared")).values()) == 1


def test_a_killed_process_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    cells = f"[*writers(Path({str(tmp_path)!r}), 3), Kills(Path({str(tmp_path)!r}), 'killer', times=1)]"
    (child,) = start(cells, tmp_path / "up")
    assert child.wait(60) == -signal.SIGKILL
    killer = Kills(tmp_path, "killer", times=1)
    assert [cell.done() for cell in writers(tmp_path, 3)] == [True] * 3
    assert not killer.done()
    run([*writers(tmp_path, 3), killer])
    assert Counter(begun(tmp_path)) == {"prompt-0": 1, "prompt-1": 1, "prompt-2": 1, "killer": 2}


def test_two_processes_with_the_same_shard_write_whole_files(tmp_path: Path) -> None:
    cells = f"writers(Path({str(tmp_path / 'twice')!r}), 20, seconds=0.02)"
    assert [child.wait(60) for child in start(cells, tmp_path / "up", 2)] == [0, 0]
    assert max(Counter(begun(tmp_path / "twice")).values()) == 2, "they never met"
    run(writers(tmp_path / "once", 20))
    assert digest_of(tmp_path / "twice/results") == digest_of(tmp_path / "once/results")


def test_two_writers_of_a_file_share_no_half_of_it(tmp_path: Path) -> None:
    # With one process number, as on two machines of a cluster.
    path = tmp_path / "result"
    with replacing(path) as first:
        first.write_text("half")
        with replacing(path) as second:
            second.write_text("whole")
        assert path.read_text() == "whole"
        first.write_text("whole")
    assert path.read_text() == "whole"
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def test_what_failed_is_raised_in_the_end_a_line_each(tmp_path: Path) -> None:
    cells = [Raises(tmp_path, "bad"), *writers(tmp_path, 3), Forgets(tmp_path, "idle")]
    with pytest.raises(Failed) as failed:
        complete(cells)
    assert failed.value.said.startswith("2 of 5 cells failed 3 times each")
    assert [line.split(":")[0] for line in failed.value.lines] == ["Z, 'bad'", "Z, 'idle'"]
    assert all(cell.done() for cell in cells[1:4])


def test_a_shard_says_what_is_left_to_others(tmp_path: Path) -> None:
    cells = writers(tmp_path, 5)
    complete(cells, shard=(0, 2))
    said = left_of(cells, (0, 2), "the table")
    assert said.startswith("shard 0/2: all of its 3 cells are done; 2 of 5 are left") and said.endswith("the table")
    complete(cells, shard=(1, 2))
    assert "2 cells are done, and so are all 5. Now the same" in left_of(cells, (1, 2), "the table")


def test_without_ray_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"zigzag-diffusion\[ray\]"):
        run(writers(tmp_path, 1), engine="ray")
