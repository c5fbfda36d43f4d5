"""What a Mask2Former sees, against the processor of transformers and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.clips import THINGS, files, mask2former_in
from zigzag.evaluation.scorers.instances import STD, instances, shown_to_detector

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return mask2former_in(tmp_path_factory.mktemp("detector"), THINGS)


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(height + width)) / 255


@pytest.mark.parametrize(("height", "width"), [(20, 20), (24, 48), (48, 24), (40, 60), (30, 200)])
def test_it_is_shown_what_its_processor_makes(height: int, width: int) -> None:
    """At the same scale; the processor would stretch to a multiple of 32 where here it is filled up."""
    module = pytest.importorskip("transformers.models.mask2former.image_processing_pil_mask2former")
    image = picture(height, width)
    processor = module.Mask2FormerImageProcessorPil(size={"shortest_edge": 50, "longest_edge": 160}, size_divisor=0)
    want = processor(images=files(image[None])[0], return_tensors="pt")["pixel_values"]
    shown, own = shown_to_detector(image, 50, 160)
    h, w = want.shape[-2:]
    off = (shown[..., :h, :w] - want).abs() * 255 * torch.tensor(STD)[:, None, None]
    assert off.max() <= 1 + 1e-4
    assert [side % 32 for side in shown.shape[-2:]] == [0, 0]
    assert not shown[..., h:, :].any()
    assert not shown[..., w:].any()
    assert torch.equal(own[0], (torch.arange(own.shape[1])[:, None] < h) & (torch.arange(own.shape[2]) < w))


def test_it_sees_what_transformers_sees(detector: Any) -> None:
    """At 384 pixels, to which the processor of transformers brings every mask."""
    module = pytest.importorskip("transformers.models.mask2former.image_processing_pil_mask2former")
    image = picture(384, 384)
    shown, own = shown_to_detector(image, 384)
    with torch.no_grad():
        said = detector(pixel_values=shown, pixel_mask=own)
    (want,) = module.Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        said, threshold=0.0, return_binary_maps=True, target_sizes=[(384, 384)]
    )
    got = instances(detector, image, most=len(said.class_queries_logits[0]), shorter=384)
    order = sorted(range(len(want["segments_info"])), key=lambda k: -want["segments_info"][k]["score"])
    told = [want["segments_info"][k] for k in order]
    assert len(told) > 3
    assert [thing.thing for thing in got] == [THINGS[segment["label_id"]] for segment in told]
    scores, wanted = (torch.tensor(v) for v in ([t.score for t in got], [segment["score"] for segment in told]))
    torch.testing.assert_close(scores, wanted, rtol=0, atol=2e-6)  # theirs have six places
    for thing, k in zip(got, order, strict=True):
        assert torch.equal(thing.mask, want["segmentation"][k].bool())


@pytest.mark.parametrize(("height", "width"), [(40, 40), (70, 33)])
def test_a_box_holds_its_mask_and_the_surest_come_first(detector: Any, height: int, width: int) -> None:
    found = instances(detector, picture(height, width), shorter=64)
    assert found
    for thing in found:
        assert thing.mask.shape == (height, width)
        left, top, right, bottom = (int(edge) for edge in thing.box)
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert not (thing.mask & ~inside).any()
        for edge in (thing.mask[top], thing.mask[bottom - 1], thing.mask[:, left], thing.mask[:, right - 1]):
            assert edge.any()
    scores = [thing.score for thing in found]
    assert scores == sorted(scores, reverse=True)
    least = scores[len(scores) // 2]
    above = instances(detector, picture(height, width), least, shorter=64)
    assert [thing.score for thing in above] == [score for score in scores if score > least]


def test_what_is_filled_up_is_nowhere_in_a_mask(tmp_path: Path) -> None:
    """A detector whose every mask is what was shown of the image: in the image it is all of it."""

    class Shown(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = type("Config", (), {"id2label": {0: "dog"}})

        def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Any:
            logits = torch.where(pixel_mask[:, None] == 1, 9.0, -9.0)
            classes = torch.tensor([[[9.0, 0.0]]])
            return type("Said", (), {"class_queries_logits": classes, "masks_queries_logits": logits})

    (thing,) = instances(Shown(), picture(30, 47), shorter=41)
    assert thing.mask.all()
    assert thing.box == (0.0, 0.0, 47.0, 30.0)
    likely = torch.tensor([9.0, 0.0]).softmax(0)[0] * torch.tensor(9.0).sigmoid()
    assert thing.score == pytest.approx(likely.item(), rel=1e-5)
