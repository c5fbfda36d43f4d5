"""`zigzag generate` by a learned model: the standard and the zigzag image of each prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zigzag.cli.drawing_cells import draw_all
from zigzag.cli.jobs import Drawn, Job, check_device, check_sampling, plan
from zigzag.evaluation.engines import Shard
from zigzag.evaluation.solvers import make_solver
from zigzag.methods import Method
from zigzag.sampling import sample
from zigzag.solvers import Solver
from zigzag.support.extras import require
from zigzag.trace import Trace
from zigzag.zoo.learned import LearnedModel, load, recorded
from zigzag.zoo.shapes import check, parse, tokenize

__all__ = [
    "ENLARGED", "PROMPTS", "VERDICTS", "Settings", "check_job", "draw", "enlarged", "generate", "judge",
    "load_model", "verdict",
]  # fmt: skip

PROMPTS = ("a red circle and a blue square",)
VERDICTS = {None: "", True: "✓ as the prompt says", False: "✗ not what the prompt says"}
ENLARGED = 8  # pixels a side for one of the model's


@dataclass(frozen=True)
class Settings:
    """All that an image depends on besides its prompt and its method; `strong` and `weak` are scales `w`.

    `solver` is a name of `zigzag.evaluation.solvers`; by default the model's own steps.
    """

    model: str
    strong: float
    weak: float
    steps: int
    seed: int
    device: str
    solver: str | None = None

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
    engine: str | None = None,
    shard: Shard | None = None,
) -> list[Path]:
    """Writes, for each prompt, the image of standard sampling and that of `method` from the same noise.

    Files are named and skipped as those of a pipeline are (`zigzag.cli.jobs`). Where a prompt is a caption the checker
    judges the image, in what is said and in the sidecar ("right"); other orders of the known words are drawn unjudged.

    Args:
        engine, shard: as in `zigzag.evaluation.engines.run`.

    Returns:
        The paths of the images, in order, skipped ones included.

    Raises:
        ValueError: for an empty prompt, a word that the grammar does not have (listing those it has), a number of
            steps that the method does not take.
        ImportError: without Pillow, diffusers, safetensors or scipy, naming the extra that brings them.
        OSError: where the folder cannot be written.
        Failed: after the others are there, for images that failed every time.
        KeyboardInterrupt: when interrupted, saying what is kept.
    """
    # The hash of the weights on record: a model trained anew draws other images, under other names.
    jobs = plan(settings, prompts, method, out, files=[recorded().get(settings.model, {}).get("sha256")])
    check_job(settings, prompts)
    draw_all(jobs, __name__, say, progress, engine, shard, verdict=_verdict)
    return [job.image for job in jobs]


def _verdict(job: Job) -> str:
    return verdict(json.loads(job.image.with_suffix(".json").read_text(encoding="utf-8")))


def verdict(said: Mapping[str, Any]) -> str:
    """What the checker says of an image, in words, by what its sidecar says; none of a prompt that is no caption."""
    return VERDICTS[said["right"]]


def check_job(settings: Settings, prompts: Sequence[str]) -> None:
    """Says, before the model is loaded, whether it can be told the prompts, and whether what draws and judges is there.

    Raises:
        ValueError: for an unknown word or solver, listing those known, and for a prompt that is too long.
        ImportError: without Pillow or scipy, naming the extra that brings them.
    """
    tokenize(prompts)
    _solver(settings)
    for prompt in prompts:
        judge(prompt, torch.zeros(1, *LearnedModel.shape))
    _pillow()


def load_model(settings: Settings) -> LearnedModel:
    """The learned model, on its device.

    Raises:
        ImportError: without diffusers or safetensors, naming the extra that brings them.
    """
    return load(settings.model, device=settings.device)


def draw(
    model: LearnedModel,
    job: Job,
    progress: bool = False,
    trace: Trace | None = None,
    tick: Callable[[], None] | None = None,
) -> Drawn:
    """The image of a job.

    Args:
        trace: filled with the walk. tick: called after each move; what it raises ends the walk.

    Raises:
        ValueError: before the first model call, as `zigzag.sample`.
    """
    s: Settings = job.settings
    # On the host: the same noise on every device.
    generator, trace = torch.Generator().manual_seed(s.seed), Trace() if trace is None else trace
    solver = _solver(s)
    x = solver.noise((1, *model.shape), generator=generator, device=s.device)
    cond, uncond = model.encode(job.prompt), model.encode("")
    image = model.decode(
        sample(
            model.eps_fn, x, solver, job.method, cond=cond, uncond=uncond, strong=s.strong, weak=s.weak,
            generator=generator, progress=progress, trace=trace, callback=None if tick is None else lambda _: tick(),
        )
    ).cpu()  # fmt: skip
    return Drawn(_pillow().fromarray(enlarged(image).numpy()), trace.rows, {"right": judge(job.prompt, image)})


def _solver(s: Settings) -> Solver:
    grid = LearnedModel(s.model, nn.Identity()).solver(s.steps)  # which is no matter of the weights
    return make_solver(s.solver or "ddim", grid)


def _pillow() -> Any:
    return require("PIL.Image", "images need Pillow", "shapes")


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
