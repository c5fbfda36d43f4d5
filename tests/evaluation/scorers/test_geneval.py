"""GenEval's judge: what is asked of the things in an image, and by whom their colours are told."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from support.clips import LENGTH, THINGS, files
from zigzag.evaluation.prompts import Check, Prompt, read_prompts
from zigzag.evaluation.scorers import geneval, scorer
from zigzag.evaluation.scorers.clip import Clip, load_clip
from zigzag.evaluation.scorers.geneval import COLOURS, TEMPLATES, GenEval, colours, shows, where
from zigzag.evaluation.scorers.instances import Instance, instances

BLANK = torch.zeros(3, 100, 100)
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def box(x: float, y: float, side: float = 10.0) -> Any:
    return x, y, x + side, y + side


def seen(thing: str, *boxes: Any) -> list[Instance]:
    return [Instance(thing, 1 - k / 100, torch.zeros(100, 100, dtype=torch.bool), b) for k, b in enumerate(boxes)]


class Painter:
    """Stands in for a CLIP: a thing whose box begins at x = 0 is red, any other blue."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        named = [
            COLOURS.index(next(word for word in COLOURS if word in text.replace("-", " ").split())) for text in texts
        ]
        return torch.eye(len(COLOURS))[named]

    def images(self, images: Tensor) -> Tensor:
        return torch.eye(len(COLOURS))[[COLOURS.index("red" if images[0, 0, 0, 0] > 0 else "blue")]]


def right(checks: Sequence[Check], things: dict[str, list[Instance]]) -> bool:
    image = BLANK.clone()
    image[:, :, 0] = 1.0
    shown = {
        thing: [Instance(i.thing, i.score, torch.ones(100, 100, dtype=torch.bool), i.box) for i in found]
        for thing, found in things.items()
    }
    return shows(checks, shown, cast(Clip, Painter()), image)


RED, BLUE = box(0, 0), box(50, 50)
CASES: dict[str, tuple[Sequence[Check], dict[str, list[Instance]], bool]] = {
    "is there": ([Check("dog", 1)], {"dog": seen("dog", RED)}, True),
    "is not there": ([Check("dog", 1)], {"cat": seen("cat", RED)}, False),
    "more than one may be there": ([Check("dog", 1)], {"dog": seen("dog", RED, BLUE)}, True),
    "two of two": ([Check("dog", 1), Check("cat", 1)], {"dog": seen("dog", RED), "cat": seen("cat", RED)}, True),
    "one of two": ([Check("dog", 1), Check("cat", 1)], {"dog": seen("dog", RED)}, False),
    "as many": ([Check("dog", 2), Check("dog", 3, excluded=True)], {"dog": seen("dog", RED, BLUE)}, True),
    "fewer": ([Check("dog", 2), Check("dog", 3, excluded=True)], {"dog": seen("dog", RED)}, False),
    "more": ([Check("dog", 2), Check("dog", 3, excluded=True)], {"dog": seen("dog", RED, BLUE, RED)}, False),
    "of the colour": ([Check("dog", 1, colour="red")], {"dog": seen("dog", RED)}, True),
    "of another": ([Check("dog", 1, colour="red")], {"dog": seen("dog", BLUE)}, False),
    "the surest decides": ([Check("dog", 1, colour="red")], {"dog": seen("dog", BLUE, RED)}, False),
    "the surest alone decides": ([Check("dog", 1, colour="red")], {"dog": seen("dog", RED, BLUE)}, True),
    "both of the colour": ([Check("dog", 2, colour="red")], {"dog": seen("dog", RED, BLUE)}, False),
    "each its own": (
        [Check("dog", 1, colour="red"), Check("cat", 1, colour="blue")],
        {"dog": seen("dog", RED), "cat": seen("cat", BLUE)},
        True,
    ),
    "colours changed": (
        [Check("dog", 1, colour="red"), Check("cat", 1, colour="blue")],
        {"dog": seen("dog", BLUE), "cat": seen("cat", RED)},
        False,
    ),
    "on its side": (
        [Check("cat", 1), Check("dog", 1, relation=("left of", 0))],
        {"dog": seen("dog", box(0, 20)), "cat": seen("cat", box(60, 20))},
        True,
    ),
    "on the other side": (
        [Check("cat", 1), Check("dog", 1, relation=("left of", 0))],
        {"dog": seen("dog", box(60, 20)), "cat": seen("cat", box(0, 20))},
        False,
    ),
    "of each of the others": (
        [Check("cat", 2), Check("dog", 1, relation=("right of", 0))],
        {"dog": seen("dog", box(50, 20)), "cat": seen("cat", box(0, 20), box(80, 20))},
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_all_that_is_said_must_be_shown(case: str) -> None:
    checks, things, want = CASES[case]
    assert right(checks, things) is want


edges = st.floats(0, 100, allow_nan=False)
boxes = st.tuples(edges, edges, st.floats(1, 50), st.floats(1, 50)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes, boxes)
def test_the_other_is_on_the_opposite_sides(one: Any, other: Any) -> None:
    assert where(other, one) == {OPPOSITES[side] for side in where(one, other)}


@given(boxes, boxes)
def test_a_side_is_by_the_angle_of_what_is_left_of_the_offset(one: Any, other: Any) -> None:
    """By the angle that the offset would have: a side holds where the offset along its axis, less a tenth of the boxes'
    sides there, is over half of the offset's length."""
    want, near = set(), 1.0
    centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (one, other)]
    length = math.dist(*centres)
    for d, (before, after) in enumerate((("left of", "right of"), ("above", "below"))):
        by = centres[0][d] - centres[1][d]
        left = abs(by) - (one[d + 2] - one[d]) / 10 - (other[d + 2] - other[d]) / 10
        near = min(near, abs(left - length / 2))
        if left > length / 2:
            want.add(after if by > 0 else before)
    assert where(one, other) == want or near < 1e-9


def test_a_box_is_on_no_side_of_itself_and_on_two_across_a_corner() -> None:
    assert where(box(0, 0), box(0, 0)) == set()
    assert where(box(0, 0), box(1, 0)) == set()
    assert where(box(0, 0), box(50, 0)) == {"left of"}
    assert where(box(50, 50), box(0, 0)) == {"right of", "below"}


def coloured_things() -> tuple[Tensor, list[Instance]]:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (3, 60, 80), generator=generator) / 255
    things = []
    for left, top, right_, bottom in ((5, 7, 37, 39), (20, 10, 70, 55), (0, 0, 80, 60)):
        mask = torch.zeros(60, 80, dtype=torch.bool)
        mask[top:bottom, left:right_] = torch.rand(bottom - top, right_ - left, generator=generator) > 0.3
        things.append(Instance("dog", 1.0, mask, (left, top, right_, bottom)))
    return image, things


def test_a_colour_is_told_of_the_thing_alone_on_grey() -> None:
    """As Pillow's composite and crop have it."""
    image_module, numpy = pytest.importorskip("PIL.Image"), pytest.importorskip("numpy")
    image, things = coloured_things()
    shown: list[Tensor] = []

    class Watching(Painter):
        def images(self, images: Tensor) -> Tensor:
            shown.append(images)
            return super().images(images)

    colours(cast(Clip, Watching()), image, things, "dog")
    for thing, got in zip(things, shown, strict=True):
        grey = image_module.new("RGB", (80, 60), "#999")
        mask = image_module.fromarray(thing.mask.byte().mul(255).numpy())
        alone = image_module.composite(files(image[None])[0], grey, mask).crop(thing.box)
        want = torch.from_numpy(numpy.array(alone)).permute(2, 0, 1)[None] / 255
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_a_colour_is_the_nearest_of_the_mean_texts(clip_folder: str) -> None:
    """By the vectors of transformers' own CLIP, in double precision."""
    import transformers

    image, things = coloured_things()
    clip = load_clip("mine", clip_folder, "cpu")
    model = transformers.CLIPModel.from_pretrained(clip_folder).double().eval()

    def text(words: str) -> Tensor:
        read = clip.tokenizer([words], truncation=True, max_length=LENGTH, return_tensors="pt")
        vector = model.get_text_features(**read).pooler_output[0]
        return vector / vector.norm()

    with torch.no_grad():
        means = [sum(text(template.format(colour, "dog")) for template in TEMPLATES) for colour in COLOURS]
    want = []
    for thing in things:
        left, top, right_, bottom = map(int, thing.box)
        vector = clip.images(torch.where(thing.mask, image, 0.6)[None, :, top:bottom, left:right_])[0].double()
        near = [(vector @ mean / mean.norm()).item() for mean in means]
        assert sorted(near)[-1] - sorted(near)[-2] > 1e-4  # no draw that a rounding decides
        want.append(COLOURS[near.index(max(near))])
    assert colours(clip, image, things, "dog") == want


@pytest.fixture
def judge(detector_folder: str, clip_folder: str) -> Any:
    def made(*prompts: Prompt) -> GenEval:
        return GenEval(prompts, weights=detector_folder, clip=clip_folder, shorter="64")

    return made


@pytest.mark.parametrize("category", ["counting", "colors"])
def test_its_verdict_is_of_what_the_detector_sees(judge: Any, images: Tensor, category: str) -> None:
    """Of every thing as many as are seen, and none more; the sureness that it takes is another where things count."""
    words = {"mouse": "computer mouse", "keyboard": "computer keyboard", "remote": "tv remote"}
    detector = judge(Prompt("any", category, (Check("dog", 1),))).detector
    prompts = []
    for k, image in enumerate(images):
        least, other = (0.9, 0.3) if category == "counting" else (0.3, 0.9)
        found = instances(detector, image, shorter=64)
        assert [one for one in found if one.score > least] != [one for one in found if one.score > other]
        names = [words.get(one.thing, one.thing) for one in found if one.score > least]
        counts = {name: names.count(name) for name in (words.get(thing, thing) for thing in THINGS)}
        checks = [Check(name, count) for name, count in counts.items() if count]
        checks += [Check(name, count + 1, excluded=True) for name, count in counts.items()]
        prompts.append(Prompt(f"exact {k}", category, tuple(checks)))
        prompts.append(Prompt(f"more {k}", category, (*checks, Check("dog", counts["dog"] + 1))))
    score = judge(*prompts)
    verdicts = score([prompt.text for prompt in prompts], images.repeat_interleave(2, 0))
    assert verdicts.tolist() == [1.0, 0.0] * len(images)


def test_the_checks_come_of_genevals_file(
    tmp_path: Path, detector_folder: str, clip_folder: str, images: Tensor
) -> None:
    include = [{"class": "dog", "count": 1, "color": "red"}, {"class": "cat", "count": 1, "position": ["above", 0]}]
    said = {"tag": "position", "include": include, "prompt": "a photo of a cat above a red dog"}
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text(json.dumps(said) + "\n", encoding="utf-8")
    prompts = read_prompts(path)
    by_name = scorer(f"geneval:weights={detector_folder},clip={clip_folder},shorter=64", "cpu", prompts)
    assert isinstance(by_name, GenEval)
    want = []
    for image in images:
        things: dict[str, list[Instance]] = {}
        for one in instances(by_name.detector, image, 0.3, shorter=64):
            things.setdefault(one.thing, []).append(one)
        want.append(float(shows(prompts[0].checks, things, by_name.clip, image)))
    assert by_name([said["prompt"]] * len(images), images).tolist() == want


def test_of_a_thing_sixteen_are_counted(judge: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the published judge: more are as many as sixteen."""
    monkeypatch.setattr(geneval, "instances", lambda *given, **named: seen("dog", *[RED] * 20))
    prompts = [Prompt(f"{n}", "counting", (Check("dog", n, excluded=True),)) for n in (16, 17)]
    assert judge(*prompts)(["16", "17"], images[:2]).tolist() == [0.0, 1.0]


def test_its_weights_are_those_of_both_networks(judge: Any, detector_folder: str, clip_folder: str) -> None:
    score = judge(Prompt("a", "", (Check("dog", 1),)))
    named = score.weights()
    assert detector_folder in named
    assert named.endswith(score.clip.weights)
    score.detector.class_predictor.weight.mul_(2)
    assert score.weights() != named


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("a dog"), r"the prompt 'a dog' says nothing that can be checked; .*evaluation_metadata\.jsonl"),
        (
            Prompt("a", "", (Check("unicorn", 1),)),
            r"knows no 'unicorn'; it knows: cat, computer keyboard",
        ),
        (Prompt("a", "", (Check("dog", 1, colour="teal"),)), r"colour must be one of red, .*, got 'teal'"),
        (Prompt("a", "", (Check("dog", 1, relation=("near", 0)),)), r"relation must be one of left of.*got 'near'"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_an_image_is_there(judge: Any, prompt: Prompt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge(prompt)


def test_a_prompt_that_it_was_not_made_for_is_refused(judge: Any, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"the prompt 'another' is none of those that it was made for"):
        judge(Prompt("a", "", (Check("dog", 1),)))(["a", "another"], images[:2])
