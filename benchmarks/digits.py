"""Real digits drawn by all six methods from the same noise with an exact predictor, with plain CFG beside each.

    python benchmarks/digits.py [--out FILE.png] [--json FILE]

The predictor is that of scikit-learn's handwritten digits in closed form: it has no error that a zigzag could correct.
`distance` is Euclidean, to the nearest real digit of the class asked for, with pixels in [−1, 1]; `read right` is the
share whose nearest real digit is of that class.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from common import arguments, write
from torch import Tensor

from zigzag import DDIM
from zigzag.evaluation.demo import draw_lines, every_method
from zigzag.support.extras import require_figure
from zigzag.support.files import replacing
from zigzag.zoo import Digits


@dataclass(frozen=True)
class Settings:
    """All that the figures depend on."""

    steps: int = 4
    per_digit: int = 20
    strong: float = 5.5
    weak: float = 0.0
    warmup: int = 1
    std: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    name: str
    steps: int
    rows: int
    seconds: float
    read_right: float
    distance: float


def grid(steps: int) -> DDIM:
    """Trailing, and ending on clean data: few steps have to begin at pure noise and to use their last one."""
    return DDIM.stable_diffusion(steps, spacing="trailing", final_alpha_cumprod=1.0)


def measure(s: Settings) -> tuple[list[Figures], dict[str, Tensor]]:
    """The figures of every line, and for each method itself one image of each digit, `(10, 1, 8, 8)`.

    Raises:
        ValueError: for settings out of range.
    """
    if s.per_digit < 1:
        raise ValueError(f"per-digit must be at least 1, got {s.per_digit}")
    digits, every = Digits(s.std), every_method(s.steps, s.strong, s.weak, s.warmup)
    cond = torch.arange(10).repeat_interleave(s.per_digit)
    noise = torch.randn(len(cond), 1, 8, 8, generator=torch.Generator().manual_seed(s.seed))
    figures, images = [], {}
    for drawn in draw_lines(
        every, digits.predictor, grid, noise, cond=cond, uncond=torch.full_like(cond, -1), seed=s.seed
    ):
        right = (digits.classify(drawn.x0) == cond).double().mean().item()
        distance = digits.distance(drawn.x0, cond).mean().item()
        line = drawn.line
        figures.append(Figures(line.label, line.sampler.steps, drawn.rows, drawn.seconds, right, distance))
        if not line.baseline:
            images[line.label] = drawn.x0[:: s.per_digit]
    return figures, images


def table(figures: list[Figures]) -> str:
    """The figures as text."""
    wide = max(len(f.name) for f in figures)
    head = f"{'method':<{wide}}{'steps':>6}{'rows':>6}{'seconds':>9}{'read right':>12}{'distance':>10}"
    body = [
        f"{f.name:<{wide}}{f.steps:>6}{f.rows:>6}{f.seconds:>9.2f}{f.read_right:>12.1%}{f.distance:>10.3f}"
        for f in figures
    ]
    return "\n".join([head, "-" * len(head), *body])


def draw(path: Path, images: dict[str, Tensor], figures: list[Figures]) -> None:
    """Writes the picture: methods down, digits across.

    Raises:
        ImportError: without matplotlib, naming the extra that brings it.
    """
    rows = {f.name: f.rows for f in figures}
    figure = require_figure()(figsize=(10, 1.02 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), 10, squeeze=False)
    for label, ax in enumerate(axes[0]):
        ax.set_title(str(label))
    for line, (name, digits) in zip(axes, images.items(), strict=True):
        for ax, image in zip(line, digits, strict=True):
            ax.imshow(image[0].numpy(), cmap="gray_r", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{name}\n{rows[name]} rows", rotation=0, ha="right", va="center")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__)
    s = Settings()
    parser.add_argument("--out", type=Path, help="also draw the digits into this file, as PNG")
    parser.add_argument("--steps", type=int, default=s.steps, help=f"steps of the grid, T (default: {s.steps})")
    parser.add_argument(
        "--per-digit", type=int, default=s.per_digit, help=f"samples of each digit (default: {s.per_digit})"
    )
    parser.add_argument("--strong", type=float, default=s.strong, help=f"scale of Denoise (default: {s.strong})")
    parser.add_argument("--weak", type=float, default=s.weak, help=f"scale of Invert (default: {s.weak})")
    parser.add_argument(
        "--warmup", type=int, default=s.warmup, help=f"plain steps of Z²-Sampling before its first shift ({s.warmup})"
    )
    parser.add_argument("--std", type=float, default=s.std, help=f"width of the Gaussian on each digit ({s.std})")
    parser.add_argument("--seed", type=int, default=s.seed, help=f"seed of the noise (default: {s.seed})")
    args = parser.parse_args()
    per_digit = 2 if args.quick else args.per_digit
    s = Settings(args.steps, per_digit, args.strong, args.weak, args.warmup, args.std, args.seed)
    try:
        if args.out:
            require_figure()
        figures, images = measure(s)
    except (ValueError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(table(figures))
    print(
        f"\n{10 * s.per_digit} samples a line, all from the same noise; strong w = {s.strong:g}, weak w = {s.weak:g}; "
        "rows are per sample."
    )
    if args.out:
        draw(args.out, images, figures)
    write(args.json, [asdict(f) for f in figures], settings=asdict(s))


if __name__ == "__main__":
    main()
