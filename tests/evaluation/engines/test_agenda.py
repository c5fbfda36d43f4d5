"""Who takes which cell next: models are changed seldom, and many hands spread over many models."""

from __future__ import annotations

from pathlib import Path

from support.cells import Loads, Writes
from zigzag.evaluation.engines.agenda import Agenda
from zigzag.evaluation.engines.failures import ATTEMPTS


def of(model: int, name: str, cost: int = 1) -> Writes:
    return Writes(Path("nowhere"), name, worker=Loads(model), cost=cost)


def test_a_hand_stays_with_its_model() -> None:
    agenda = Agenda([of(0, "a"), of(1, "b", cost=5), of(0, "c"), of(1, "d")])
    taken = []
    last = None
    while (cell := agenda.take(last)) is not None:
        last = cell.worker
        taken.append(cell.about)
    assert taken == ["Z, 'b'", "Z, 'd'", "Z, 'a'", "Z, 'c'"]


def test_hands_go_where_the_most_is_left_for_each() -> None:
    agenda = Agenda([of(0, str(k), cost=3) for k in range(4)] + [of(1, str(9 + k), cost=2) for k in range(4)])
    models = []
    for _ in range(3):
        cell = agenda.take(None)
        assert cell is not None
        models.append(cell.worker)
    # 12 and 8 rows left; then 9 for two hands and 8; then 9 for two and 6 for two.
    assert models == [Loads(0), Loads(1), Loads(0)]


def test_one_that_failed_comes_last_and_is_given_up_in_the_end() -> None:
    agenda = Agenda([of(0, "a"), of(0, "b")])
    taken = []
    for k in range(ATTEMPTS + 1):
        cell = agenda.take(Loads(0))
        assert cell is not None
        taken.append(cell.about)
        if cell.about == "Z, 'a'":
            agenda.failed(cell, f"reason {k}")
    assert taken == ["Z, 'a'", "Z, 'b'", "Z, 'a'", "Z, 'a'"]
    assert agenda.take(Loads(0)) is None
    assert [str(failure) for failure in agenda.failures] == ["Z, 'a': reason 3"]
