"""A pipeline's calls, their rows split over the ranks of a group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.ranks import failures
from zigzag import Z2Sampling

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")
attach = pytest.importorskip("zigzag.adapters.diffusers").attach

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")


def test_on_two_and_four_ranks() -> None:
    """The checks of on_ranks_attach.py, in one start of their processes."""
    found = failures(Path(__file__).with_name("on_ranks_attach.py"), [2, 4])
    assert not found, "\n".join(f"{name}: {error}" for name, error in found.items())


def test_what_is_no_group_is_refused(tiny: Callable[..., Any]) -> None:
    error = pytest.raises(TypeError, match=r"group must be a group .*init_process_group\(…\) comes first")
    with error, attach(tiny("sd3").pipe, Z2Sampling(warmup=1), split="cfg"):
        pass


def test_graphs_are_refused(tiny: Callable[..., Any]) -> None:
    error = pytest.raises(ValueError, match=r"graphs and split: .* leave one of the two out")
    with error, attach(tiny("sd3").pipe, Z2Sampling(warmup=1), split="cfg", graphs=True):
        pass
