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


def test_places_are_given_whole_and_encodings_of_frames_by_sample() -> None:
    """Two samples of three frames, and as many places as samples."""
    from zigzag.adapters.diffusers.split import _take

    x, t, e = torch.rand(2, 4, 3, 8, 8), torch.tensor(7), torch.rand(6, 5, 16)
    ids, mask = torch.rand(2, 3), torch.rand(2, 5)
    kwargs = {
        "encoder_hidden_states": e,
        "img_ids": ids,
        "image_rotary_emb": (ids, ids),
        "mask": mask,
        "guidance": None,
    }
    args, taken = _take((x, t), kwargs, slice(1, 2), rows=2, listed=False)
    assert torch.equal(args[0], x[1:]) and args[1] is t and torch.equal(taken["mask"], mask[1:])
    assert torch.equal(taken["encoder_hidden_states"], e[3:]) and taken["img_ids"] is ids
    assert taken["image_rotary_emb"] == (ids, ids) and taken.keys() == kwargs.keys()


def test_encodings_of_samples_are_taken_as_they_are() -> None:
    from zigzag.adapters.diffusers.split import _take

    x, shared = torch.rand(2, 4), torch.rand(4, 16)
    for e, wanted in ((torch.rand(2, 5, 16), slice(1)), (torch.rand(1, 5, 16), slice(None)), (shared, slice(None))):
        _, taken = _take((x,), {"encoder_hidden_states": e}, slice(0, 1), rows=2, listed=False)
        assert torch.equal(taken["encoder_hidden_states"], e[wanted])
