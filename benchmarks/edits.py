"""One word of a drawn scene's prompt changed: how many edits take, and how much of the rest stays, by scheme.

    python benchmarks/edits.py [--scenes N] [--steps T] [--edit-strong W] [--out FILE.png] [--json FILE]

Scenes of two things, drawn at random, are inverted under their prompts (w = 1) and brought back under the prompt in
which one colour or one shape is another. `took`: the checker says that the edit shows its prompt. `kept`: the share of
pixels that no channel moved by more than 0.1, of those that drawing the scene with that word changed would leave alone.
`back`: by how much the reconstruction is off, of a channel in [0, 1], at most. Rows are those of all three ways, up,
back and to the edit, per sample, as the model was called. Beside the schemes: the edit's prompt from fresh noise, which
has nothing to keep.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from warnings import catch_warnings, simplefilter

import torch
from common import arguments, write
from torch import Tensor

from zigzag import Standard, sample
from zigzag.evaluation.edits import edit, kept
from zigzag.evaluation.schemes import SCHEMES, parse_scheme
from zigzag.support.extras import require_figure
from zigzag.support.files import replacing
from zigzag.zoo.learned import MODELS, LearnedModel, load
from zigzag.zoo.shapes import COLOURS, Caption, Scene, check, draw_caption, draw_scene, render

FRESH: Final = "fresh noise"
ACROSS: Final = 6


class Task(NamedTuple):
    """Scenes as images `(B, 3, 32, 32)` with their prompts; the prompts of the edits, and the scenes with that word."""

    images: Tensor
    prompts: list[str]
    edits: list[str]
    wanted: Tensor


class Counted(LearnedModel):
    """A model that counts its rows."""

    rows = 0

    def eps_fn(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """The prediction."""
        self.rows += len(x)
        return super().eps_fn(x, t, cond)


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    scheme: str
    rows: float
    took: int
    kept: float
    back: float | None = None


def altered(caption: Caption, scene: Scene, rng: Random) -> tuple[Caption, Scene]:
    """One colour or one shape changed, to one that neither thing has, in the words and in the scene."""
    k, word = rng.randrange(2), rng.choice(("colour", "shape"))
    every = tuple(COLOURS) if word == "colour" else ("circle", "square", "triangle")
    other = rng.choice([name for name in every if all(getattr(noun, word) != name for noun in caption.nouns)])
    nouns, things, change = list(caption.nouns), list(scene), dict[str, Any]({word: other})
    nouns[k], things[k] = replace(nouns[k], **change), replace(things[k], **change)
    return replace(caption, nouns=tuple(nouns)), tuple(things)


def task(count: int, seed: int) -> Task:
    """Scenes of two things, each with a prompt that differs in one word."""
    rng = Random(seed)
    captions = [draw_caption("attribution", rng) for _ in range(count)]
    scenes = [draw_scene(caption, rng) for caption in captions]
    others = [altered(caption, scene, rng) for caption, scene in zip(captions, scenes, strict=True)]
    edits, wanted = [str(caption) for caption, _ in others], render([scene for _, scene in others])
    return Task(render(scenes), [*map(str, captions)], edits, wanted)


def measure(
    model: LearnedModel, given: Task, steps: int, edit_guidance: float
) -> tuple[list[Figures], dict[str, Tensor]]:
    """The figures of every scheme, and the edits that they are of."""
    rest = ((given.images - given.wanted).abs().amax(1)) == 0
    figures, images = [], {}
    for name in SCHEMES:
        counted, scheme = Counted(model.name, model.network), parse_scheme(name)
        with catch_warnings():
            simplefilter("ignore")  # of a fixed point that did not converge: the reconstruction shows it
            found = edit(
                counted, given.images, given.prompts, [given.edits], scheme, steps=steps, edit_guidance=edit_guidance
            )
        (images[name],) = found.edits
        back = float((found.reconstruction - given.images).abs().max())
        figures.append(_figures(name, counted, images[name], given, rest, back))
    counted = Counted(model.name, model.network)
    solver, cond = model.solver(steps), model.encode(given.edits)
    noise = solver.noise(given.images.shape, generator=torch.Generator().manual_seed(0))
    x = sample(
        counted.eps_fn,
        noise,
        solver,
        Standard(),
        cond=cond,
        uncond=model.encode([""] * len(cond)),
        strong=edit_guidance,
    )
    images[FRESH] = model.decode(x)
    figures.append(_figures(FRESH, counted, images[FRESH], given, rest))
    return figures, images


def _figures(name: str, model: Counted, image: Tensor, given: Task, rest: Tensor, back: float | None = None) -> Figures:
    rows, took = model.rows / len(image), sum(check(given.edits, image))
    return Figures(name, rows, took, kept(given.images, image, rest), back)


def table(title: str, count: int, figures: list[Figures]) -> str:
    """The figures as text."""
    lines = [f"{title:<30}{'rows':>6}{'took':>9}{'kept':>9}{'back':>10}"]
    for f in figures:
        back = "" if f.back is None else f"{f.back:.1e}"
        lines.append(f"{f.scheme:<30}{f.rows:>6.0f}{f'{f.took}/{count}':>9}{f.kept:>9.1%}{back:>10}".rstrip())
    return "\n".join(lines)


def draw(path: Path, given: Task, images: dict[str, Tensor]) -> None:
    """Writes the picture: scenes across; the originals, and the edits of each scheme, down.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    rows = {"original": given.images, **images}
    across = min(ACROSS, len(given.prompts))
    right = {name: check(given.edits, image) for name, image in images.items()}
    figure = require_figure()(figsize=(1.6 * across + 1.2, 1.25 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), across, squeeze=False)
    for line, (name, shown) in zip(axes, rows.items(), strict=True):
        for k, ax in enumerate(line):
            ax.imshow(shown[k].permute(1, 2, 0).numpy())
            ax.set(xticks=[], yticks=[])
            if name in right:
                for spine in ax.spines.values():
                    spine.set(color="tab:green" if right[name][k] else "tab:red", linewidth=2)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, before, after in zip(axes[0], given.prompts, given.edits, strict=False):
        one, other = before.split(), after.split()
        changed = next(f"{a} → {b}" for a, b in zip(one, other, strict=True) if a != b)
        ax.set_title(f"{before.replace(' and ', chr(10))}\n{changed}", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__)
    parser.add_argument("--scenes", type=int, default=24, help="scenes of each model (default: 24)")
    parser.add_argument("--steps", type=int, default=20, help="steps of the grid, T (default: 20)")
    parser.add_argument("--edit-strong", type=float, default=1.0, help="guidance scale w of the edits (default: 1)")
    parser.add_argument(
        "--edit-guidance", dest="edit_strong", type=float, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )  # its older name
    parser.add_argument("--out", type=Path, help="also write a picture of the first scenes, by the first model")
    args = parser.parse_args()
    if args.out:
        require_figure()
    count, steps = (2, 3) if args.quick else (args.scenes, args.steps)
    given, results = task(count, 0), list[dict[str, Any]]()
    for name in MODELS[:1] if args.quick else MODELS:
        figures, images = measure(load(name), given, steps, args.edit_strong)
        print(table(f"{name}, T = {steps}, w = {args.edit_strong:g}", count, figures), end="\n\n", flush=True)
        results.append({"model": name, "steps": steps, "figures": [asdict(f) for f in figures]})
        if args.out and name == MODELS[0]:
            draw(args.out, given, images)
    write(args.json, results, ("diffusers",), scenes=count, edit_strong=args.edit_strong)


if __name__ == "__main__":
    main()
