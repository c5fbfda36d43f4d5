"""Ranks of a group: what is none is refused, and what one tells is what the others are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from zigzag.parallel import Ranks, rows_over
from zigzag.parallel.ranks import State, Word, tell


def predict(x: Any, t: Any, cond: Any) -> Any:
    return x


@pytest.mark.parametrize("group", [None, "cfg", 2])
def test_what_is_no_group_is_refused(group: Any) -> None:
    with pytest.raises(TypeError, match=r"group must be a group of torch.distributed.*init_process_group\(…\) comes"):
        rows_over(predict, group)


def test_an_initialised_process_is_not_told_to_initialise(alone: Any) -> None:
    with pytest.raises(TypeError, match=r"got 'cfg'$"):
        Ranks("cfg")  # type: ignore[arg-type]


def test_a_group_without_this_process_is_refused(alone: Any) -> None:
    with pytest.raises(ValueError, match="this process is no rank of it"):
        Ranks(dist.GroupMember.NON_GROUP_MEMBER)  # type: ignore[arg-type]


def test_a_mesh_of_two_dimensions_is_refused_and_one_of_them_is_taken(alone: Any) -> None:
    mesh = init_device_mesh("cpu", (1, 1), mesh_dim_names=("samples", "cfg"))
    with pytest.raises(ValueError, match=r"one dimension of a mesh, as mesh\['cfg'\], got one of 2"):
        Ranks(mesh)
    assert (Ranks(mesh["cfg"]).rank, Ranks(mesh["cfg"]).size) == (0, 1)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_time_limit_is_above_zero(timeout: float, alone: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be a number of seconds above 0"):
        Ranks(alone, timeout)


def test_a_predictor_is_callable(alone: Any) -> None:
    with pytest.raises(TypeError, match="eps_fn must be callable, got 3"):
        rows_over(3, alone)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "eps_fn on 2 rows", "ValueError: σ = 0", "σ" * 1000])
@pytest.mark.parametrize("state", State)
def test_a_word_comes_as_it_was_sent(state: State, text: str, alone: Any) -> None:
    word = Word(state, 2**32 - 1, -(2**63), text)
    (told,) = tell(Ranks(alone), word)
    assert told[:3] == word[:3] and text.startswith(told.text) and len(told.text) >= min(len(text), 200)
