"""`python -m zigzag.zoo.train shapes-unet`: trains a model of the world of shapes, from where the last run stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import distributed

from zigzag.support.commands import Parser, add_older, ending
from zigzag.support.progress import on_terminal, steps_bar
from zigzag.zoo.learned import MODELS, recorded
from zigzag.zoo.objectives import Settings
from zigzag.zoo.training import Training

__all__ = ["main", "report", "run"]


def _parser() -> Parser:
    parser = Parser(
        prog="python -m zigzag.zoo.train",
        description="Trains a model of the world of shapes. Run it again with the same --out to go on after a stop. "
        "Processes share every batch, which on a CPU is faster than threads: "
        "torchrun --nproc-per-node 2 -m zigzag.zoo.train NAME --threads 1",
    )
    parser.add_argument("name", choices=MODELS, help="the model")
    parser.add_argument("--out", type=Path, help="folder of the run (default: out/NAME, or out/NAME-lora)")
    updates = parser.add_argument("--updates", type=int, default=6000, metavar="N", help="steps of the training in all")
    add_older(parser, updates, "--steps")  # which elsewhere are those of a solver
    parser.add_argument("--batch", type=int, default=48, help="images a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and noise")
    parser.add_argument(
        "--weights",
        type=Path,
        help="a weights.safetensors to begin with (default: random weights; with --lora those in the package)",
    )
    parser.add_argument(
        "--lora",
        type=int,
        default=0,
        metavar="RANK",
        help="train a LoRA of this rank beside --weights, by preference for true captions (default: all weights)",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    parser.add_argument("--amp", action="store_true", help="matrix products in bfloat16")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: torch's)")
    parser.add_argument("--save-every", type=float, default=120.0, help="seconds between checkpoints")
    return parser


def main() -> None:
    """The command line; exits with 2 and one line on bad input, with 130 when interrupted."""
    parser = _parser()
    args = parser.parse_args()
    folder: Path = args.out or Path("out") / (f"{args.name}-lora" if args.lora else args.name)
    if args.threads:
        torch.set_num_threads(args.threads)
    with (
        ending(parser.prog, f"the same command goes on from the last checkpoint in {folder}, if there is one"),
        _joined(),
    ):
        start = recorded()[args.name]["sha256"] if args.lora else ""
        if args.weights:
            start = hashlib.sha256(args.weights.read_bytes()).hexdigest()
        settings = Settings(args.name, args.updates, args.batch, args.rate, args.seed, start, args.lora)
        training = Training(settings, args.device, args.amp, args.weights)
        if (folder / "checkpoint.safetensors").exists():
            training.resume(folder)
            if not training.rank:
                print(f"going on from step {training.step} of {folder}", flush=True)
        elif args.weights and not args.lora:
            training.begin(args.weights)
        run(training, folder, args.save_every)


@contextmanager
def _joined() -> Iterator[None]:
    """Joins the processes that torchrun started, if it started this one, and leaves them at the end."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield
        return
    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def run(training: Training, folder: Path, save_every: float) -> None:
    """Trains to the last step; writes checkpoint, weights and loss curve every so many seconds, and at the end."""
    saved = time.monotonic()
    steps, shown = training.settings.steps, not training.rank and on_terminal()
    with steps_bar(steps, training.step, shown) as tick:
        while training.step < steps:
            training.advance()
            tick(1)
            if time.monotonic() - saved > save_every:
                report(training, folder)
                saved = time.monotonic()
    report(training, folder)


def report(training: Training, folder: Path) -> None:
    """Saves a run with its loss curve, and prints a line; of several processes only the first does."""
    if training.rank:
        return
    training.save(folder)
    losses = torch.stack(training.losses).float().cpu()
    if find_spec("matplotlib"):
        from zigzag.zoo.curve import draw_losses

        draw_losses(folder / "loss.png", losses)
    recent = f"loss {losses[-200:].mean().item():.4f} (last 200)"
    print(f"step {training.step} of {training.settings.steps}: {recent}, in {folder}", flush=True)


if __name__ == "__main__":
    main()
