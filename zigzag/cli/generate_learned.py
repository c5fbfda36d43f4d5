"""`zigzag generate` by a learned model: the standard and the zigzag image of each prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag.cli.jobs import Job, check_device, check_sampling, missing, plan, stoppable
from zigzag.methods import Method
from zigzag.sampling import sample
from zigzag.support.extras import require
from zigzag.trace import Trace
from zigzag.zoo.learned import LearnedModel, load, recorded
from zigzag.zoo.shapes import check, parse, tokenize

__all__ = ["ENLARGED", "PROMPTS", "Settings", "enlarged", "generate", "judge"]

PROMPTS = ("a red circle and a blue square",)
ENLARGED = 8  # pixels a side for one of the model's


@dataclass(frozen=True)
class Settings:
    """All that an image depends on besides its prompt and its method; `strong` and `weak` are scales `w`."""

    model: str
    strong: float
    weak: float
    steps: int
    seed: int
    device: str

    def __post_init__(self) -> None:
        check_sampling(self)
        check_device(self.device, instead="--device cpu")


def generate(
    settings: Settings,
    prompts: Sequence[str],
    method: Method,
    out: Path,
    progress: bool = False,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Writes, for each prompt, the image of standard sampling and that of `method` from the same noise.

    Files are named and skipped as those of a pipeline are (`zigzag.cli.jobs`). Where a prompt is a caption the checker
    judges the image, in what is said and in the sidecar ("right"); other orders of the known words are drawn unjudged.

    Returns:
        The paths of the images, in order, skipped ones included.

    Raises:
        ValueError: for an empty prompt, a word that the grammar does not have (listing those it has), a number of
            steps that the method does not take.
        ImportError: without Pillow, diffusers, safetensors or scipy, naming the extra that brings them.
        OSError: where the folder cannot be written.
        KeyboardInterrupt: when interrupted, saying what is kept.
    """
    # The hash of the weights on record: a model trained anew draws other images, under other names.
    jobs = plan(settings, prompts, method, out, files=[recorded().get(settings.model, {}).get("sha256")])
    tokenize(prompts)
    todo = list(missing(jobs, say))
    if todo:
        for prompt in prompts:
            judge(prompt, torch.zeros(1, *LearnedModel.shape))  # scipy is asked for before anything is drawn
        pil = require("PIL.Image", "images need Pillow", "shapes")
        with stoppable(jobs):
            model = load(settings.model, device=settings.device)
            for job in todo:
                _write(job, model, pil, progress, say)
    return [job.image for job in jobs]


def _write(job: Job, model: LearnedModel, pil: Any, progress: bool, say: Callable[[str], None]) -> None:
    s: Settings = job.settings
    # On the host: the same noise on every device.
    generator, trace = torch.Generator().manual_seed(s.seed), Trace()
    solver = model.solver(s.steps)
    x = solver.noise((1, *model.shape), generator=generator, device=s.device)
    cond, uncond = model.encode(job.prompt), model.encode("")
    image = model.decode(
        sample(
            model.eps_fn, x, solver, job.method, cond=cond, uncond=uncond, strong=s.strong,
            weak=s.weak, generator=generator, progress=progress, trace=trace,
        )
    ).cpu()  # fmt: skip
    right = judge(job.prompt, image)
    job.write(pil.fromarray(enlarged(image).numpy()), {"diffusers": version("diffusers")}, rows=trace.rows, right=right)
    verdict = {None: "", True: "   ✓ as the prompt says", False: "   ✗ not what the prompt says"}[right]
    say(f"wrote {job.image}{verdict}")


def enlarged(image: Tensor) -> Tensor:
    """The pixels of one image `(1, 3, 32, 32)` in [0, 1] as uint8 `(256, 256, 3)` on the host."""
    pixels = (255 * image[0]).round().byte().permute(1, 2, 0).cpu()
    return pixels.repeat_interleave(ENLARGED, 0).repeat_interleave(ENLARGED, 1)


def judge(prompt: str, image: Tensor) -> bool | None:
    """The checker's verdict on one image `(1, 3, 32, 32)`; None for a prompt that is no caption."""
    try:
        parse(prompt)
    except ValueError:
        return None
    return check([prompt], image)[0]
