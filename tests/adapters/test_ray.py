"""How many of Ray's actors there are, and what each asks for; what they do is in `tests/evaluation/engines`."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zigzag.adapters import ray as adapter
from zigzag.adapters.ray import connected


def test_where_nothing_answers_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = SimpleNamespace(is_initialized=lambda: False, init=lambda **given: pytest.fail("Ray would try for minutes"))
    monkeypatch.setattr(adapter, "require", lambda *given: stub)
    with socket.socket() as mine:  # bound, and not listening
        mine.bind(("127.0.0.1", 0))
        for scheme in ("", "ray://"):
            address = f"{scheme}127.0.0.1:{mine.getsockname()[1]}"
            with pytest.raises(ConnectionError, match=f"^engine ray={address}: nothing answers"), connected(address):
                pass


class StubRay:
    """A cluster by its machines; it tells what its actors ask for."""

    def __init__(self, *machines: dict[str, float]) -> None:
        self.machines, self.asked = machines, [{}]

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": has} for has in self.machines]

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=self.options)

    def options(self, **asked: float) -> Any:
        self.asked.append(asked)
        return SimpleNamespace(remote=lambda *given: given)


@pytest.mark.parametrize(
    ("machines", "threads", "count", "asked"),
    [
        ([{"CPU": 8, "GPU": 2}, {"CPU": 4}], 1, 2, {"num_gpus": 1, "num_cpus": 0}),
        ([{"CPU": 8}, {"CPU": 7}, {}], 4, 3, {"num_cpus": 4}),
        ([{"CPU": 64}], 1, 10, {"num_cpus": 1}),  # no more than there are cells
    ],
)
def test_an_actor_has_a_gpu_or_as_many_processors_as_threads(
    machines: list[dict[str, float]], threads: int, count: int, asked: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    stub = StubRay(*machines)
    assert adapter._pool(stub, lambda: lambda item: None, most=10).count == count
    assert asked.items() <= stub.asked[-1].items()
