"""Cross-attention along a zigzag: does a word get a sharper map at the injected latent? (Z-Sampling, Fig. 5)"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from zigzag.evaluation.accuracy import BATCH, noise, shares
from zigzag.evaluation.accuracy import prompts as draw_prompts
from zigzag.guidance import CFG
from zigzag.matched import matched_cfg
from zigzag.methods import Method, Standard, ZSampling
from zigzag.moves import Denoise
from zigzag.sampling import walk
from zigzag.support.extras import require_figure
from zigzag.support.files import check_writable, replacing
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import COLOURS, SHAPES, Noun, Scene, detect, parse
from zigzag.zoo.shapes.scenes import coverage

__all__ = ["STEPS", "content_words", "entropy", "readings", "recorded_attention", "run"]

KINDS = ("two objects", "position", "attribution")  # the categories in which words compete for space
STEPS = (0, 2, 5, 10)
ARMS = ("anchor", "after", "matched", "even")  # the last is a map that is the same everywhere
TITLES = (
    "entropy of a colour word's map, in bits (less is sharper)",
    "entropy of a shape word's map, in bits (less is sharper)",
    "share of a colour word's map inside the thing it names, where one was drawn",
    "share of a shape word's map inside the thing it names, where one was drawn",
)


@contextmanager
def recorded_attention(network: nn.Module) -> Iterator[list[Tensor]]:
    r"""Records the cross-attention of every model call within the block; the predictions stay as they are.

    .. math:: A = \text{mean over heads of } \mathrm{softmax}\big(Q K^\top / \sqrt d\big)

    Args:
        network: `ShapesUNet` or `ShapesDiT`; its `body` holds the layers `attn2`, which attend to words.

    Yields:
        A list that grows by one tensor `(layers, B, positions, words)` a call, of the layers in the order they ran.

    The processors are put back when the block ends, also by an error.

    Raises:
        ValueError: if the network has no such layers, or they differ in their positions.
    """
    body: Any = network.body
    before: dict[str, Any] = dict(body.attn_processors)
    cross = [name for name in before if ".attn2." in f".{name}"]
    if not cross:
        raise ValueError(f"network must have cross-attention layers (attn2), got {type(body).__name__} without")
    calls: list[Tensor] = []
    layers: list[Tensor] = []

    def collect(*_: object) -> None:
        if len({maps.shape for maps in layers}) != 1:
            raise ValueError("network must have cross-attention at one resolution for its maps to be stacked")
        calls.append(torch.stack(layers))

    hooks = [body.register_forward_pre_hook(lambda *_: layers.clear()), body.register_forward_hook(collect)]
    try:
        body.set_attn_processor({name: _Recorder(p, layers) if name in cross else p for name, p in before.items()})
        yield calls
    finally:
        body.set_attn_processor(before)
        for hook in hooks:
            hook.remove()


class _Recorder:
    """A processor that notes its layer's map, and leaves the work to the processor it stands before."""

    def __init__(self, processor: Any, layers: list[Tensor]) -> None:
        self.processor, self.layers = processor, layers

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> Tensor:
        with torch.no_grad():
            query = attn.head_to_batch_dim(attn.to_q(hidden_states))
            key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
            mask = attn.prepare_attention_mask(attention_mask, key.shape[1], len(hidden_states))
            scores: Tensor = attn.get_attention_scores(query, key, mask)
            self.layers.append(scores.view(len(hidden_states), attn.heads, *scores.shape[1:]).mean(1))
        out: Tensor = self.processor(attn, hidden_states, encoder_hidden_states, attention_mask)
        return out


def content_words(prompt: str) -> list[tuple[int, Noun]]:
    """Where the colour and shape words of a caption stand, and the noun that each belongs to.

    Raises:
        ValueError: for a text that is no caption.
    """
    nouns = iter(parse(prompt).nouns)
    found, noun = [], next(nouns)
    for k, word in enumerate(prompt.lower().split()):
        if word in COLOURS or word.removesuffix("s") in SHAPES:
            found.append((k, noun))
        if word in SHAPES:
            noun = next(nouns, noun)
    return found


def entropy(maps: Tensor) -> Tensor:
    r"""How spread out maps `(…, positions)` are, in bits: `−Σ p log₂ p`, `p` the map divided by its sum."""
    p = maps / maps.sum(-1, keepdim=True)
    bits: Tensor = torch.special.entr(p).sum(-1) / math.log(2)
    return bits


def readings(texts: Sequence[str], maps: Tensor, scenes: Sequence[Scene]) -> Tensor:
    """What `TITLES` says of every word's map, float64 `(4, B, words)`; NaN where it says nothing.

    A share is the part of a map that lies in the things that the word's noun names, in the image it led to.

    Args:
        texts: the captions. maps: `(B, words, positions)`, positions in rows of a square. scenes: what `detect` found.
    """
    out = torch.full((len(TITLES), *maps.shape[:2]), math.nan, dtype=torch.float64)
    side = math.isqrt(maps.shape[-1])
    for b, (text, scene) in enumerate(zip(texts, scenes, strict=True)):
        for k, noun in content_words(text):
            p, row = maps[b, k].double(), 0 if text.lower().split()[k] in COLOURS else 1
            out[row, b, k] = entropy(p)
            things = [t for t in scene if t.shape == noun.shape and noun.colour in (None, t.colour)]
            if things:
                x, y, size = torch.tensor([(t.x, t.y, t.size) for t in things], dtype=torch.float64).unbind(1)
                covered = coverage(noun.shape, x, y, size).sum(0).clamp(max=1)
                out[2 + row, b, k] = (p / p.sum()) @ adaptive_avg_pool2d(covered[None], side).flatten()
    return out


class Setting(NamedTuple):
    """How images are drawn, and the steps whose maps are read."""

    steps: int
    strong: float
    weak: float
    at: tuple[int, ...]


class Shown(NamedTuple):
    """One prompt of the picture: its image, and by step the maps `(words, positions)` before and after the zigzag."""

    text: str
    image: Tensor
    maps: dict[int, tuple[Tensor, Tensor]]


def run(
    model: LearnedModel,
    folder: Path,
    prompts: int = 360,
    seed: int = 0,
    *,
    steps: int = 20,
    strong: float = 4.0,
    weak: float = 0.0,
    at: Sequence[int] = STEPS,
) -> str:
    """Measures the map of every colour and shape word before and after the zigzag; writes attention.txt and .png.

    From the same noise: "anchor" and "after" are the two Denoise moves of Z-Sampling at a step, "matched" is plain
    guidance at the scale the zigzag amounts to. Maps are those of the conditional branch, averaged over heads and
    layers; the things are those of the image that an arm ended in. A prompt counts once: the mean over its words.

    Args:
        prompts: in all, of "two objects", "position" and "attribution". at: the steps looked at.

    Returns:
        The table.

    Raises:
        ValueError: before the first model call, for too few prompts, steps that do not zigzag, and `strong=0`.
        ImportError: without scipy or matplotlib, naming the extra that brings it.
        OSError: where `folder` cannot be written.
    """
    if prompts < 2 * len(KINDS):
        raise ValueError(f"prompts must be at least {2 * len(KINDS)}, got {prompts}")
    if not at or not all(0 <= i < steps - 1 for i in at):
        raise ValueError(f"at must be steps that zigzag, 0 to {steps - 2} of {steps}, got {list(at)}")
    if strong == 0:
        raise ValueError("strong must not be 0: the conditional branch would never be evaluated")
    require_figure()  # this and the next two: or the work would end in an error
    detect(torch.zeros(1, *model.shape))
    check_writable(folder)
    setting, values, shown = Setting(steps, strong, weak, tuple(at)), [], []
    for kind, count in zip(KINDS, shares(prompts, len(KINDS)), strict=True):
        for start in range(0, count, BATCH):
            texts = draw_prompts(kind, min(start + BATCH, count), seed)[start:]
            part, first = _measured(model, texts, noise(kind, start, start + len(texts), seed), setting)
            values.append(part)
            shown += [first] if start == 0 else []
    text = _table(torch.cat(values, 3), setting)
    _draw(folder / "attention.png", shown)
    with replacing(folder / "attention.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return text


def _measured(model: LearnedModel, texts: list[str], x: Tensor, setting: Setting) -> tuple[Tensor, Shown]:
    """The readings `(arms, at, 4, B, words)`, and the first prompt as the picture shows it."""
    matched = matched_cfg(ZSampling(), model.solver(setting.steps), setting.strong, setting.weak)
    images, zigzag = _maps(model, texts, x, ZSampling(), setting)
    plain_images, plain = _maps(model, texts, x, Standard(), setting, matched)
    scenes, plain_scenes = detect(images), detect(plain_images)
    arms = (
        [readings(texts, zigzag[i][0], scenes) for i in setting.at],
        [readings(texts, zigzag[i][1], scenes) for i in setting.at],
        [readings(texts, plain[i][0], plain_scenes) for i in setting.at],
        [readings(texts, torch.ones_like(zigzag[i][0]), scenes) for i in setting.at],
    )
    first = Shown(texts[0], images[0], {i: (zigzag[i][0][0], zigzag[i][1][0]) for i in setting.at})
    return torch.stack([torch.stack(arm) for arm in arms]), first


def _maps(
    model: LearnedModel, texts: list[str], x: Tensor, method: Method, setting: Setting, scale: CFG | None = None
) -> tuple[Tensor, dict[int, list[Tensor]]]:
    """The images, and for each step looked at the maps `(B, words, positions)` of its Denoise moves, in order."""
    cond, uncond = model.encode(texts), model.encode([""] * len(texts))
    found: dict[int, list[Tensor]] = {i: [] for i in setting.at}
    with recorded_attention(model.network) as calls:
        for visit in walk(
            model.eps_fn, x.to(cond.device), model.solver(setting.steps), method,
            cond=cond, uncond=uncond, strong=scale or setting.strong, weak=setting.weak, batched=True,
        ):  # fmt: skip
            if isinstance(visit.move, Denoise) and visit.move.i in found:
                found[visit.move.i].append(calls[-1].mean(0)[-len(x) :].mT.cpu())  # conditional rows come last
            calls.clear()
    return model.decode(visit.state).cpu(), found


def _table(values: Tensor, setting: Setting) -> str:
    """Means of the readings `(arms, at, 4, B, words)`, and paired differences with their 95 % intervals, by step."""
    scales = f"strong = {setting.strong:g}, weak = {setting.weak:g}"
    lines = [f"T = {setting.steps}, {scales}, {values.shape[3]} prompts; differences are paired, with 95 % intervals"]
    head = (
        "step" + "".join(f"{arm:>9}" for arm in ARMS) + f"{'after - anchor':>31}{'n':>5}{'after - matched':>31}{'n':>5}"
    )
    for m, title in enumerate(TITLES):
        lines += ["", title, head]
        for k, i in enumerate(setting.at):
            arms = values[:, k, m]  # (arms, B, words)
            means = "".join(f"{float(arm.nanmean(-1).nanmean()):>9.3f}" for arm in arms)
            lines.append(f"{i:>4}{means}" + _difference(arms[1] - arms[0]) + _difference(arms[1] - arms[2]))
    return "\n".join(lines)


def _difference(words: Tensor) -> str:
    each = words.nanmean(-1)
    each = each[~each.isnan()]
    if len(each) < 2:
        return f"{'-':>31}{len(each):>5}"
    mean, margin = float(each.mean()), 1.959964 * float(each.std()) / math.sqrt(len(each))
    return f"{f'{mean:+.4f} ({mean - margin:+.4f} to {mean + margin:+.4f})':>31}{len(each):>5}"


def _draw(path: Path, shown: Sequence[Shown]) -> None:
    """Writes the maps of each prompt's words by step, before and after the zigzag on one scale, and its image."""
    rows = len(shown[0].maps)
    figure = require_figure()(figsize=(11, len(shown) * (1.1 * rows + 0.6)), layout="constrained")
    for sub, (text, image, maps) in zip(figure.subfigures(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        sub.suptitle(text)
        grid = sub.add_gridspec(rows, 10)  # four words before and after, and the image on two columns
        for row, (i, (before, after)) in enumerate(maps.items()):
            for column, (k, _) in enumerate(content_words(text)):
                pair = [p[k] / p[k].sum() for p in (before, after)]
                for half, p in enumerate(pair):
                    axes, side = sub.add_subplot(grid[row, 2 * column + half], xticks=[], yticks=[]), math.isqrt(len(p))
                    axes.imshow(p.view(side, side), vmin=0, vmax=float(torch.stack(pair).max()), cmap="magma")
                    if row == 0:
                        axes.set_title(f"{text.split()[k]}\n{('before', 'after')[half]}", fontsize=8)
                    if column == half == 0:
                        axes.set_ylabel(f"step {i}", fontsize=8)
        column = 2 * len(content_words(text))
        axes = sub.add_subplot(grid[:, column : column + 2], xticks=[], yticks=[], anchor="N")
        axes.imshow(image.permute(1, 2, 0))
        axes.set_title("drawn", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
