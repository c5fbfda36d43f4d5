"""The batch that a score is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from zigzag.evaluation.scorers import checked
from zigzag.evaluation.scorers.base import NotLoaded, hashed_file, not_loaded


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_batch_is_in_single_precision(dtype: torch.dtype) -> None:
    images = torch.rand(2, 3, 4, 5).to(dtype)
    assert torch.equal(checked(["a", "b"], images), images.float())


def test_no_image_is_a_batch() -> None:
    assert len(checked([], torch.zeros(0, 3, 4, 4))) == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"\(B, 3, H, W\), got \(3, 4, 4\)"),
        (torch.zeros(2, 4, 4, 3), r"got \(2, 4, 4, 3\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), r"got .* torch.uint8"),
        (torch.zeros(1, 3, 4, 4), r"got 2 prompts and 1 images"),
        (torch.full((2, 3, 4, 4), -0.5), r"in \[0, 1\], got -0.5 to -0.5; decode them"),
        (torch.full((2, 3, 4, 4), 255.0), r"got 255 to 255"),
        (torch.full((2, 3, 4, 4), torch.nan), r"got nan to nan"),
    ],
    ids=["no batch", "channels last", "bytes", "fewer", "states", "levels", "nan"],
)
def test_what_is_no_batch_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(["a", "b"], images)


def test_missing_weights_say_what_to_do() -> None:
    error = not_loaded("mine", "here/w.pt", FileNotFoundError(2, "No such file", "here/w.pt"), "fetch them")
    assert isinstance(error, NotLoaded)
    assert str(error) == (
        "mine: the weights here/w.pt are not to be had: there is no here/w.pt: look at the path; fetch them"
    )


def test_a_file_is_hashed_as_sha256sum_does(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert hashed_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
