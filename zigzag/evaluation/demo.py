"""`zigzag demo`: a page of prompts drawn by all six methods from the same noise, each image judged by the checker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap

import torch
from torch import Tensor

from zigzag.evaluation.accuracy import noise, prompts
from zigzag.evaluation.compare import Line, lines
from zigzag.evaluation.samplers import Sampler
from zigzag.methods import EndToEnd, ImplicitZ, Method, Resampling, Z2Sampling, ZSampling
from zigzag.sampling import Predictor, Visit, sample
from zigzag.solvers import Solver
from zigzag.support.extras import require_figure
from zigzag.support.files import check_writable, replacing, write_json
from zigzag.support.machine import machine, versions
from zigzag.support.progress import progress_bar
from zigzag.trace import Trace
from zigzag.zoo.learned import LearnedModel, load
from zigzag.zoo.shapes import CATEGORIES, check, parse

__all__ = [
    "Drawn",
    "Figures",
    "Settings",
    "draw",
    "draw_lines",
    "every_method",
    "run",
    "table",
    "write",
]

MOST = 36  # prompts on a page; a wider one cannot be read


@dataclass(frozen=True)
class Settings:
    """What a page is made with: all that its verdicts depend on.

    Attributes:
        prompts: how many captions of each category are drawn from the grammar.
        prompt: captions of one's own, in place of those.
    """

    model: str = "shapes-unet"
    steps: int = 20
    prompts: int = 2
    prompt: tuple[str, ...] = ()
    strong: float = 4.0
    weak: float = 0.0
    warmup: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """One line of the table; `right` has the checker's verdict on each prompt, `seconds` are those of all of them."""

    name: str
    steps: int
    rows: int
    seconds: float
    right: tuple[bool, ...]


@dataclass(frozen=True)
class Drawn:
    """What came of a line: states `(B, …)`, model rows per sample, and seconds for all samples."""

    line: Line
    x0: Tensor
    rows: int
    seconds: float


def every_method(steps: int, strong: float, weak: float = 0.0, warmup: int = 5) -> list[Line]:
    """Each method; after it plain CFG at the matched scale, and plain CFG at the same number of rows.

    Args:
        warmup: of Z²-Sampling.

    Raises:
        ValueError, TypeError: for steps, scales or a warm-up out of range.
    """
    methods = (Resampling(), EndToEnd(), ZSampling(), ImplicitZ(), Z2Sampling(warmup=warmup))
    return lines(methods, steps, strong, weak)


def draw_lines(
    every: Sequence[Line],
    predictor: Callable[[Solver], Predictor],
    solver: Callable[[int], Solver],
    x_T: Tensor,
    *,
    cond: Tensor,
    uncond: Tensor,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[Drawn]:
    """Samples every line from the same noise `x_T` `(B, …)`.

    Args:
        predictor: of a solver. solver: of a number of steps. seed: of the noise that Resampling adds.
    """
    # The first line is drawn once more, before: what the first run sets up is no method's cost.
    samplers = [line.sampler for line in [every[0], *every]]
    with progress_bar(_moves(samplers), enabled=progress) as tick:

        def on_move(visit: Visit) -> None:
            tick(visit.rows)

        for k, s in enumerate(samplers):
            grid, trace = solver(s.steps), Trace()
            start = time.perf_counter()
            x0 = sample(
                predictor(grid), x_T, grid, s.method, cond=cond, uncond=uncond, strong=s.guidance(grid), weak=s.weak,
                generator=torch.Generator().manual_seed(seed + 1), callback=on_move, trace=trace,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            if k > 0:
                yield Drawn(every[k - 1], x0, trace.rows, seconds)


def _moves(samplers: Sequence[Sampler]) -> int | None:
    """How many moves they make; None where that is not known beforehand."""
    paths = [s.method.path(s.steps) for s in samplers if isinstance(s.method, Method)]
    return sum(len(tuple(path)) for path in paths) if len(paths) == len(samplers) else None


def page(s: Settings) -> tuple[list[str], Tensor]:
    """The prompts of a page, and the noise of each, `(N, 3, 32, 32)`.

    Raises:
        ValueError: for a prompt that is no caption, and for none or too many prompts.
    """
    if s.prompt:
        if len(s.prompt) > MOST:
            raise ValueError(f"prompt may be given at most {MOST} times, got {len(s.prompt)}")
        texts = [str(parse(text)) for text in s.prompt]
        return texts, noise("prompt", 0, len(texts), s.seed)
    most = MOST // len(CATEGORIES)
    if not 1 <= s.prompts <= most:
        raise ValueError(f"prompts must be 1 to {most} of each category, got {s.prompts}: a page has {MOST} at most")
    texts = [text for category in CATEGORIES for text in prompts(category, s.prompts, s.seed)]
    return texts, torch.cat([noise(category, 0, s.prompts, s.seed) for category in CATEGORIES])


def run(
    s: Settings, progress: bool = False, model: LearnedModel | None = None, out: Path | None = None
) -> tuple[list[str], list[Figures], dict[str, Tensor]]:
    """Draws every line of the table from the same noise, and has the checker judge each image.

    Args:
        model: by default the one that the settings name, as it comes with the package.
        out: the folder that the page will go to, if it is to be known now whether it can.

    Returns:
        The prompts, the figures, and for each method itself (not its baselines) its images, `(N, 3, 32, 32)`.

    Raises:
        ValueError: for settings out of range.
        ImportError: without diffusers, safetensors or scipy, naming the extra that brings them.
        OSError: where `out` cannot be written.
    """
    texts, x_T = page(s)
    check(texts, torch.zeros_like(x_T))  # what it needs is asked for before minutes of sampling, not after
    every = every_method(s.steps, s.strong, s.weak, s.warmup)
    if out is not None:
        check_writable(out)
    model = model or load(s.model)
    eps_fn = model.eps_fn
    cond, uncond = model.encode(texts), model.encode([""] * len(texts))
    figures, images = [], {}
    for drawn in draw_lines(
        every, lambda grid: eps_fn, model.solver, x_T,
        cond=cond, uncond=uncond, seed=s.seed, progress=progress,
    ):  # fmt: skip
        name, steps, found = drawn.line.label, drawn.line.sampler.steps, model.decode(drawn.x0)
        figures.append(Figures(name, steps, drawn.rows, drawn.seconds, tuple(check(texts, found))))
        if not drawn.line.baseline:
            images[name] = found
    return texts, figures, images


def table(s: Settings, texts: Sequence[str], figures: Sequence[Figures]) -> str:
    """The figures as text: how many are right, of all prompts and of each category."""
    of = [parse(text).category for text in texts]
    shown = [category for category in CATEGORIES if category in of]
    heads = [category.removesuffix(" object").removesuffix(" objects") for category in shown]
    total = f"right of {len(texts)}"
    wide = max(len(f.name) for f in figures)
    head = f"{'method':<{wide}}{'steps':>6}{'rows':>6}{'seconds':>9}  {total}" + "".join(f"  {word}" for word in heads)
    body = []
    for f in figures:
        line = f"{f.name:<{wide}}{f.steps:>6}{f.rows:>6}{f.seconds:>9.2f}  {sum(f.right):>{len(total)}}"
        for category, word in zip(shown, heads, strict=True):
            right = sum(r for r, c in zip(f.right, of, strict=True) if c == category)
            line += f"  {f'{right}/{of.count(category)}':>{len(word)}}"
        body.append(line)
    note = (
        f"{s.model}, seed {s.seed}: every line from the same noise; strong w = {s.strong:g}, weak w = {s.weak:g}; "
        f"rows are per sample, seconds for all.\n{len(texts)} images a line decide nothing: "
        f"`zigzag eval --model {s.model}` measures.\n{machine()}; {versions(['diffusers'])}"
    )
    return "\n".join([head, "-" * len(head), *body, "", note])


def draw(path: Path, texts: Sequence[str], images: dict[str, Tensor], figures: Sequence[Figures]) -> None:
    """Writes the page: methods down, prompts across, a tick or a cross under each image.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    known, titles = {f.name: f for f in figures}, [wrap(text, 11) for text in texts]
    size = (1.6 + 0.95 * len(texts), 0.2 + 0.17 * max(map(len, titles)) + 1.14 * len(images))
    figure = require_figure()(figsize=size, layout="compressed")
    axes = figure.subplots(len(images), len(texts), squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title("\n".join(title), fontsize=10)
    for across, (name, found) in zip(axes, images.items(), strict=True):
        for ax, image, right in zip(across, found, known[name].right, strict=True):
            ax.imshow(image.permute(1, 2, 0).numpy(), interpolation="none")
            mark, colour = ("✓", "#1a7f37") if right else ("✗", "#cf222e")
            ax.set_xlabel(mark, color=colour, fontsize=14, fontweight="bold", labelpad=1)
            ax.spines[:].set(color=colour, linewidth=1.5)
            ax.set(xticks=[], yticks=[])
        across[0].set_ylabel(f"{name}\n{known[name].rows} rows", rotation=0, ha="right", va="center", fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def write(
    out: Path, s: Settings, texts: Sequence[str], figures: Sequence[Figures], images: dict[str, Tensor]
) -> tuple[Path, Path]:
    """Writes the page and the figures into a folder, and returns their paths."""
    picture, data = out / "demo.png", out / "demo.json"
    draw(picture, texts, images, figures)
    content = {"settings": asdict(s), "machine": machine(), "versions": versions(["diffusers"]), "prompts": list(texts)}
    write_json(data, {**content, "figures": [asdict(f) for f in figures]}, allow_nan=False)
    return picture, data
