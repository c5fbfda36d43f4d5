"""`zigzag demo`: real digits drawn by all six methods from the same noise, with plain CFG beside each."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag import __version__
from zigzag.files import replacing, write_json
from zigzag.guidance import Guidance
from zigzag.matched import matched_cfg
from zigzag.methods import EndToEnd, ImplicitZ, Method, Resampling, Standard, Z2Sampling, ZSampling
from zigzag.progress import progress_bar
from zigzag.rows import count_rows
from zigzag.sampling import Visit, sample
from zigzag.solvers import DDIM
from zigzag.trace import Trace
from zigzag.zoo import Digits

__all__ = ["Figures", "Settings", "draw", "machine", "require_plots", "run", "table", "write"]


@dataclass(frozen=True)
class Settings:
    """What a demo is made with: all that its figures depend on."""

    steps: int = 4
    per_digit: int = 20
    strong: float = 5.5
    weak: float = 0.0
    warmup: int = 1
    std: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """One line of the table.

    `distance` is Euclidean, to the nearest real digit of the class asked for, with pixels in [−1, 1].
    """

    name: str
    steps: int
    rows: int
    seconds: float
    read_right: float
    distance: float


@dataclass(frozen=True)
class _Line:
    name: str
    method: Method
    strong: float | Guidance
    steps: int
    pictured: bool


def _lines(s: Settings) -> list[_Line]:
    """Each method; after it plain CFG at the matched scale, and plain CFG at the same number of rows."""
    grid = _grid(s.steps)
    methods: dict[str, Method] = {
        "Resampling": Resampling(),
        "End-to-End": EndToEnd(),
        "Z-Sampling": ZSampling(),
        "Implicit Z": ImplicitZ(),
        "Z²-Sampling": Z2Sampling(warmup=s.warmup),
    }
    lines = [_Line("Standard", Standard(), s.strong, s.steps, True)]
    for name, method in methods.items():
        lines.append(_Line(name, method, s.strong, s.steps, True))
        if name != "Resampling":  # its matched scale is the strong one itself: Standard
            matched = matched_cfg(method, grid, s.strong, s.weak)
            lines.append(_Line(f"  CFG at the scale of {name}", Standard(), matched, s.steps, False))
        rows = [count_rows(m, s.steps, s.strong, s.weak) for m in (method, Standard())]
        longer = round(s.steps * rows[0] / rows[1])
        if longer != s.steps:
            lines.append(_Line(f"  CFG with the rows of {name}", Standard(), s.strong, longer, False))
    return lines


def _grid(steps: int) -> DDIM:
    # Trailing, and ending on clean data: few steps have to begin at pure noise and to use their last one.
    return DDIM.stable_diffusion(steps, spacing="trailing", final_alpha_cumprod=1.0)


def run(s: Settings, progress: bool = False) -> tuple[list[Figures], dict[str, Tensor]]:
    """Draws every line of the table from the same noise.

    Returns:
        The figures, and for each method itself (not its baselines) one image of each digit, `(10, 1, 8, 8)`.

    Raises:
        ValueError: for settings out of range.
    """
    if s.per_digit < 1:
        raise ValueError(f"per-digit must be at least 1, got {s.per_digit}")
    digits, lines = Digits(s.std), _lines(s)
    cond = torch.arange(10).repeat_interleave(s.per_digit)
    uncond = torch.full_like(cond, -1)
    noise = torch.randn(len(cond), 1, 8, 8, generator=torch.Generator().manual_seed(s.seed))
    figures, images = [], {}
    moves = sum(len(line.method.path(line.steps)) for line in [lines[0], *lines])
    with progress_bar(moves, enabled=progress) as tick:

        def on_move(visit: Visit) -> None:
            tick(visit.rows)

        # The first line is drawn once more, before: what the first run sets up is no method's cost.
        for k, line in enumerate([lines[0], *lines]):
            solver, trace = _grid(line.steps), Trace()
            start = time.perf_counter()
            x0 = sample(
                digits.predictor(solver), noise, solver, line.method,
                cond=cond, uncond=uncond, strong=line.strong, weak=s.weak,
                generator=torch.Generator().manual_seed(s.seed + 1), callback=on_move, trace=trace,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            right = (digits.classify(x0) == cond).double().mean().item()
            distance = digits.distance(x0, cond).mean().item()
            if k == 0:
                continue
            figures.append(Figures(line.name, line.steps, trace.rows, seconds, right, distance))
            if line.pictured:
                images[line.name] = x0[:: s.per_digit]
    return figures, images


def table(s: Settings, figures: list[Figures]) -> str:
    """The figures as text."""
    head = f"{'method':<34}{'steps':>6}{'rows':>6}{'seconds':>9}{'read right':>12}{'distance':>10}"
    lines = [
        f"{f.name:<34}{f.steps:>6}{f.rows:>6}{f.seconds:>9.2f}{f.read_right:>12.1%}{f.distance:>10.3f}" for f in figures
    ]
    note = (
        f"{10 * s.per_digit} samples a line, all from the same noise; strong w = {s.strong:g}, weak w = {s.weak:g}; "
        f"rows are per sample.\n{machine()}"
    )
    return "\n".join([head, "-" * len(head), *lines, "", note])


def machine() -> str:
    """The machine and the versions that figures were made with."""
    return (
        f"{platform.machine()} CPU, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, zigzag {__version__}"
    )


def draw(path: Path, images: dict[str, Tensor], figures: list[Figures]) -> None:
    """Writes the picture: methods down, digits across.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    Figure = require_plots()
    rows = {f.name: f.rows for f in figures}
    figure = Figure(figsize=(10, 1.02 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), 10, squeeze=False)
    for line, (name, digits) in zip(axes, images.items(), strict=True):
        for k, (ax, image) in enumerate(zip(line, digits, strict=True)):
            ax.imshow(image[0].numpy(), cmap="gray_r", vmin=-1, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
            if line is axes[0]:
                ax.set_title(str(k))
        line[0].set_ylabel(f"{name}\n{rows[name]} rows", rotation=0, ha="right", va="center")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def write(out: Path, s: Settings, figures: list[Figures], images: dict[str, Tensor]) -> tuple[Path, Path]:
    """Writes the picture and the figures into a folder, and returns their paths."""
    picture, data = out / "demo.png", out / "demo.json"
    draw(picture, images, figures)
    content = {"settings": asdict(s), "machine": machine(), "figures": [asdict(f) for f in figures]}
    write_json(data, content, allow_nan=False)
    return picture, data


def require_plots() -> Any:
    """matplotlib's `Figure`.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the picture needs matplotlib: pip install 'zigzag-diffusion[plots]'") from error
    return Figure
