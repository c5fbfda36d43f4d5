"""GenEval's judge: whether an image shows the things, counts, colours and places that its prompt names.

The published judge is a Mask2Former of mmdet, whose code needs CUDA and a build that current versions do not have; here
it is the Mask2Former of transformers, with other weights and another resizing, and the CLIP of transformers for the
colours. What it says is comparable to itself alone, not to figures in papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from zigzag.evaluation.evaluation import fingerprint
from zigzag.evaluation.prompts import Check, Prompt
from zigzag.evaluation.scorers.base import checked
from zigzag.evaluation.scorers.clip import Clip, load_clip, pretrained
from zigzag.evaluation.scorers.instances import SHORTER, Instance, instances
from zigzag.evaluation.scorers.pixels import written

__all__ = ["COLOURS", "GenEval", "shows", "where"]

COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES: Final = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
LEAST, LEAST_COUNTED = 0.3, 0.9  # how sure an instance must be; where things are counted
MOST = 16  # instances of a thing
NEAR = 0.1  # of the summed sides: two centres that are nearer along an axis are not apart there
GROUND = 0.6  # the grey, #999, that is put around a thing whose colour is asked

# GenEval's own words for what COCO calls otherwise.
_WORDS: Final = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}


class GenEval:
    """1 where an image shows what the checks of its prompt say, else 0.

    GenEval's figure is the mean over its six categories of the share of right images in each.

    Source: Ghosh et al. 2023, section 3 and the released code, for what is asked of the things that are found.

    Args:
        prompts: those that will be scored, with their checks (`read_prompts` of `evaluation_metadata.jsonl`).
        device: where both networks run, in single precision.
        weights: of the Mask2Former, a name on the hub or a folder. clip: of the CLIP, the same.
        shorter: the side that the Mask2Former is shown, in pixels.

    Raises:
        ValueError: for a prompt without checks, or with one of a thing, colour or relation that is not known here.
        NotLoaded: if the weights are not to be had.
        ImportError: without transformers, naming the extra that brings it.
    """

    name = "geneval"

    def __init__(
        self,
        prompts: Sequence[Prompt],
        device: torch.device | str = "cpu",
        weights: str = "facebook/mask2former-swin-small-coco-instance",
        clip: str = "openai/clip-vit-large-patch14",
        shorter: str | int = SHORTER,
    ) -> None:
        self.source, self.device, self.shorter = weights, torch.device(device), int(shorter)
        self.prompts = {prompt.text: prompt for prompt in prompts}
        for prompt in prompts:
            _check_prompt(prompt)
        self.detector = pretrained(self.name, "Mask2FormerForUniversalSegmentation", weights).to(device)
        known = {_WORDS.get(thing, thing) for thing in self.detector.config.id2label.values()}
        if strange := sorted({check.thing for prompt in prompts for check in prompt.checks} - known):
            raise ValueError(f"geneval: {weights} knows no {strange[0]!r}; it knows: {', '.join(sorted(known))}")
        self.clip = load_clip(self.name, clip, device, option="clip")

    def weights(self) -> str:
        """Both networks, each with its hash."""
        return f"{self.source} {fingerprint(self.detector)} at {self.shorter} pixels; {self.clip.weights}"

    def __call__(self, prompts: Sequence[str], images: Tensor) -> Tensor:
        """The verdicts `(B,)`.

        Raises:
            ValueError: for a prompt that is none of those that it was made for.
        """
        images = written(checked(prompts, images).to(self.device))
        if strange := [text for text in prompts if text not in self.prompts]:
            raise ValueError(f"geneval: the prompt {strange[0]!r} is none of those that it was made for")
        verdicts = [self._right(self.prompts[text], image) for text, image in zip(prompts, images, strict=True)]
        return torch.tensor(verdicts, dtype=torch.float32, device="cpu")

    def _right(self, prompt: Prompt, image: Tensor) -> bool:
        least = LEAST_COUNTED if prompt.category == "counting" else LEAST
        things: dict[str, list[Instance]] = {}
        for seen in instances(self.detector, image, least, shorter=self.shorter):
            things.setdefault(_WORDS.get(seen.thing, seen.thing), []).append(seen)
        return shows(prompt.checks, {thing: found[:MOST] for thing, found in things.items()}, self.clip, image)


def _check_prompt(prompt: Prompt) -> None:
    if not prompt.checks:
        raise ValueError(
            f"geneval: the prompt {prompt.text!r} says nothing that can be checked; take the prompts from GenEval's "
            "evaluation_metadata.jsonl"
        )
    for check in prompt.checks:
        if check.colour not in (None, *COLOURS):
            raise ValueError(f"geneval: colour must be one of {', '.join(COLOURS)}, got {check.colour!r}")
        if check.relation and check.relation[0] not in _SIDES:
            raise ValueError(f"geneval: relation must be one of {', '.join(_SIDES)}, got {check.relation[0]!r}")


def shows(checks: Sequence[Check], things: dict[str, list[Instance]], clip: Clip, image: Tensor) -> bool:
    """Whether all checks hold of the things found in an image `(3, H, W)`, the surest of each first.

    A clause is of the `count` surest: so many there must be, so many of them of the colour, and each of them where it
    must be from each of those that the other clause is of. An excluded clause fails where there are `count`.
    """
    matched: list[list[Instance]] = []
    for check in checks:
        every = things.get(check.thing, [])
        if check.excluded:
            if len(every) >= check.count:
                return False
            continue
        found = every[: check.count]
        if len(found) < check.count:
            return False
        if check.colour and any(name != check.colour for name in colours(clip, image, found, check.thing)):
            return False
        if check.relation:
            side, other = check.relation
            if any(side not in where(thing.box, to.box) for thing in found for to in matched[other]):
                return False
        matched.append(found)
    return True


_Box = tuple[float, float, float, float]
_SIDES: Final = ("left of", "right of", "above", "below")


def where(box: _Box, other: _Box) -> set[str]:
    r"""On which sides of the other box a box is: the offset of the centres, less the boxes' sides, against its length.

    .. math:: \frac{\max(|\Delta| - 0.1\,(a + a'), 0)}{‖(\Delta_x, \Delta_y)‖} > \frac12

    with `Δ` the offset of the centres along an axis and `a`, `a'` the boxes' sides there.
    """
    offset = [((box[d] + box[d + 2]) - (other[d] + other[d + 2])) / 2 for d in (0, 1)]
    sides = [box[d + 2] - box[d] + other[d + 2] - other[d] for d in (0, 1)]
    length = (offset[0] ** 2 + offset[1] ** 2) ** 0.5
    found = set()
    for (before, after), by, side in zip((_SIDES[:2], _SIDES[2:]), offset, sides, strict=True):
        if length and max(abs(by) - NEAR * side, 0) / length > 0.5:
            found.add(before if by < 0 else after)
    return found


def colours(clip: Clip, image: Tensor, things: Sequence[Instance], thing: str) -> list[str]:
    """The colour of each thing by CLIP: what it is shown is its box, grey where the thing is not.

    The vector of a colour is the mean of those of `TEMPLATES`, made a unit vector again; the nearest one is taken.
    """
    texts = [template.format(colour, thing) for colour in COLOURS for template in TEMPLATES]
    wanted = clip.texts(texts).reshape(len(COLOURS), len(TEMPLATES), -1).mean(1)
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    found = []
    for one in things:
        left, top, right, bottom = map(round, one.box)
        alone = torch.where(one.mask, image, GROUND)[:, top:bottom, left:right]
        found.append(COLOURS[int((clip.images(alone[None]) @ wanted.T).argmax())])
    return found
