"""A cell of images is written whole or not at all, and what cannot be an image is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("PIL")
from zigzag import Method, Standard
from zigzag.evaluation import image_cells
from zigzag.evaluation.beds import PipelineBed, Shown
from zigzag.evaluation.image_cells import Damaged, ImageCell
from zigzag.evaluation.pictures import to_picture, to_tensor
from zigzag.evaluation.prompts import Prompt
from zigzag.evaluation.samplers import Sampler

Drawn = Callable[[ImageCell, Any, Any], tuple[torch.Tensor, int]]


def cell(folder: Path, size: int = 16, method: Method = Standard()) -> ImageCell:  # noqa: B008 (it is frozen)
    shown = Shown("owner/name", size, "float32", "keep", "cpu")
    one = PipelineBed(shown, [Prompt("a dog"), Prompt("a cat")], [0], folder, (), batch=2)
    return one.cells(Sampler(method, 2, 3.0))[0]


class Plain(Standard):
    """Standard sampling by another name."""


def test_methods_that_differ_in_name_alone_share_their_images(tmp_path: Path) -> None:
    one, twin = cell(tmp_path), cell(tmp_path, method=Plain())
    assert repr(one.sampler.method) != repr(twin.sampler.method)
    assert (one.digest, one.stem, one.images) == (twin.digest, twin.stem, twin.images)


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of a pipeline: noise."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(ImageCell, "_drawn", lambda self, pipe, trace: (images, 4))


PIPE = SimpleNamespace(device="cpu")


@pytest.mark.usefixtures("drawing")
def test_a_disk_that_is_full_leaves_nothing_half(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    one, limits = cell(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))  # less than one of the images
    try:
        with pytest.raises(OSError, match="large"):
            one.run(PIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not one.done() and [path for path in tmp_path.rglob("*") if path.is_file()] == []
    one.run(PIPE)
    assert one.done()


@pytest.mark.usefixtures("drawing")
def test_images_without_their_record_are_not_done(tmp_path: Path) -> None:
    """The record is written last: a process that is killed before leaves images that nobody takes for whole."""
    one = cell(tmp_path)
    one.run(PIPE)
    record = one.sidecar.read_bytes()
    one.sidecar.unlink()
    assert one.record() is None and not one.done()
    for damaged in (record[:-20], b"[]", record.replace(b'"rows": 4', b'"rows": null')):
        one.sidecar.write_bytes(damaged)
        with pytest.raises(Damaged, match=one.sidecar.name):
            one.record()
    one.sidecar.write_bytes(record)
    assert one.done()


@pytest.mark.usefixtures("drawing")
def test_an_image_is_read_once_while_it_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, read = cell(tmp_path), list[Path]()
    one.run(PIPE)
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), plain(path))[1])
    assert one.done() and one.done() and len(read) == 2
    one.images[0].write_bytes(b"other")
    assert not one.done() and len(read) == 3
    assert one.record(images=False) is not None and len(read) == 3


@pytest.mark.usefixtures("drawing")
def test_seconds_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    one = cell(tmp_path)
    assert one.seconds() == (0, 0.0)
    one.run(PIPE)
    assert one.seconds()[0] == 2 and one.seconds()[1] > 0
    one.timings.write_text("{")
    assert one.seconds() == (0, 0.0) and one.done()


def test_an_image_of_another_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(SimpleNamespace):
        def __call__(self, **call: Any) -> Any:
            assert (call["height"], call["width"]) == (24, 24) and len(call["generator"]) == len(call["prompt"]) == 2
            return SimpleNamespace(images=torch.zeros(2, 3, 16, 16))

    monkeypatch.setattr(image_cells, "attach", lambda *given, **more: _Attached())
    with pytest.raises(ValueError, match=r"image-size 24 was asked.*16, 16"):
        cell(tmp_path, 24).run(Pipe(device="cpu", scheduler=None))


class _Attached:
    def __enter__(self) -> Any:
        return SimpleNamespace(rows=4)

    def __exit__(self, *error: object) -> None: ...


def test_an_image_that_is_not_finite_is_refused_and_eight_bits_round_trip() -> None:
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_tensor(to_picture(image))[0], image, atol=0.5001 / 255, rtol=0)
    image[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        to_picture(image)
