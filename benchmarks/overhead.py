"""The loop's own cost per step, without the model, beside diffusers' DDIM step and the CFG line of every pipeline.

    python benchmarks/overhead.py [--json FILE]

The model is a function that hands out predictions made beforehand, so that what is timed is the loop alone: for zigzag
all of `sample(..., Standard())`, for diffusers the lines that a pipeline runs between two model calls. Both are taken
twice: with two calls for the two branches, and with one doubled batch, where each side also pays for the doubling.
The two sides alternate within one process; the figure is the median ratio of neighbouring runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zigzag import DDIM, Standard, Z2Sampling, sample
from zigzag.files import replacing

STEPS, SCALE = 50, 5.5


def diffusers_loop(x: Tensor, e_u: Tensor, e_c: Tensor, doubled: bool) -> Callable[[], Tensor]:
    """What a diffusers pipeline does around its model calls."""
    from diffusers import DDIMScheduler

    make: Any = DDIMScheduler
    scheduler = make(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(STEPS)
    both = torch.cat([e_u, e_c])

    @torch.no_grad()
    def loop() -> Tensor:
        latents = x
        for t in scheduler.timesteps:
            if doubled:
                scheduler.scale_model_input(torch.cat([latents] * 2), t)
                noise_u, noise_c = both.chunk(2)
            else:
                noise_u, noise_c = e_u, e_c
            noise = noise_u + SCALE * (noise_c - noise_u)
            latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        return latents

    return loop


def zigzag_loop(x: Tensor, e_u: Tensor, e_c: Tensor, doubled: bool, method: Any) -> Callable[[], Tensor]:
    """`sample`, all of it, with a model that costs nothing."""
    solver = DDIM.stable_diffusion(STEPS)
    both = torch.cat([e_u, e_c])

    def eps_fn(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        # In a doubled batch the answer is `both`; in two calls the conditions, shaped alike, are the answers.
        return both if doubled else cond

    def loop() -> Tensor:
        return sample(eps_fn, x, solver, method, cond=e_c, uncond=e_u, strong=SCALE, batched=doubled)

    return loop


def alternate(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], runs: int) -> tuple[list[float], list[float]]:
    """Seconds a step of both, taken in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for k in range(runs + 3):
        for loop, into in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            loop()
            if k >= 3:  # the first runs warm the caches
                into.append((time.perf_counter() - start) / STEPS)
    return seconds


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60, help="runs of each side (default: 60)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()

    results = []
    shape = (1, 4, 128, 128)
    generator = torch.Generator().manual_seed(0)
    x, e_u, e_c = (torch.randn(shape, generator=generator) for _ in range(3))
    for method in (Standard(), Z2Sampling(warmup=5)):
        for doubled in (False, True):
            ours = zigzag_loop(x, e_u, e_c, doubled, method)
            theirs = diffusers_loop(x, e_u, e_c, doubled)
            if isinstance(method, Standard):
                torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)  # the same work is timed
            mine, other = alternate(ours, theirs, args.runs)
            ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
            us = [1e6 * statistics.median(s) for s in (mine, other)]
            name, calls = type(method).__name__, "one doubled batch" if doubled else "two calls"
            results.append({"method": name, "calls": calls, "zigzag_us": us[0], "diffusers_us": us[1], "ratio": ratio})
            print(f"{name:<12}{calls:<19}zigzag / diffusers = {ratio:.2f}   ({us[0]:.0f} / {us[1]:.0f} us a step)")

    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    versions = f"torch {torch.__version__}, diffusers {version('diffusers')}"
    print(f"latent {shape} float32, {STEPS} steps, {args.runs} runs each; {machine}; {versions}")
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(
                json.dumps({"machine": machine, "versions": versions, "results": results}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
