"""On a GPU: the published networks and a launch-bound one; the plain loop, ours, captured, captured and compiled.

    python benchmarks/gpu.py [--part small|sdxl|hunyuan ...] [--batch 1 4] [--budget 540] [--json FILE]
    python benchmarks/gpu.py --count

SDXL's U-Net and Hunyuan-DiT v1.2 as published, on 1024² images, and a U-Net so small that launching its kernels takes
longer than running them: random weights, bfloat16, both branches in one doubled batch. Measured are
- the speed of the loop that a diffusers pipeline runs, of `sample`, and of `capture`, over each other; then of
  `capture` over a compiled network, which comes last because it has to be compiled first;
- Z² and Z over standard sampling, in time, eager and captured, and in peak memory;
- how often the host waits for the device: what a sample of twice the steps adds, by step.

What is left when the budget (seconds) runs out is named and left out, and so is what fails; `--json` is written after
each figure. `--count` counts the parameters of the networks, and needs no GPU.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import diffusers
import torch
from common import Loop, arguments, in_turns, median, ratio, write
from models import Network, build, parameters
from torch import Tensor

import zigzag
from zigzag import DDIM, Standard, Z2Sampling, ZSampling, sample

SCALE = 5.5
PARTS: Final = {"small": "small-unet", "sdxl": "sdxl", "hunyuan": "hunyuan"}
METHODS: Final[dict[str, Any]] = {"Standard": Standard(), "Z2Sampling": Z2Sampling(warmup=2), "ZSampling": ZSampling()}
COMPILING = 150.0  # seconds to set aside for compiling a network


class Case(NamedTuple):
    """What is sampled: a network, a batch and a number of steps."""

    network: Network
    batch: int
    steps: int


def diffusers_loop(case: Case) -> Callable[[], Tensor]:
    """The loop of a diffusers pipeline, line by line."""
    network, steps = case.network, case.steps
    x, cond, uncond = network.inputs(case.batch)
    both, common, module = _doubled(uncond, cond), network.common(), network.module
    make: Any = diffusers.DDIMScheduler
    scheduler = make(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip

    @torch.no_grad()
    def loop() -> Tensor:
        scheduler.set_timesteps(steps, device=x.device)
        latents = x
        for t in scheduler.timesteps:
            model_input = scheduler.scale_model_input(torch.cat([latents] * 2), t)
            if network.kind == "hunyuan":
                t_expand = torch.tensor([t] * len(model_input), device=x.device).to(dtype=model_input.dtype)
                noise = module(model_input, t_expand, **both, **common, return_dict=False)[0].chunk(2, dim=1)[0]
            else:
                noise = module(model_input, t, **both, return_dict=False)[0]
            noise_u, noise_c = noise.chunk(2)
            noise = noise_u + SCALE * (noise_c - noise_u)
            latents = scheduler.step(noise, t, latents, return_dict=False)[0]
        return latents

    return loop


def eager_loop(case: Case, method: Any) -> Callable[[], Tensor]:
    """`zigzag.sample`."""
    eps_fn, (x, cond, uncond) = case.network.predictor(), case.network.inputs(case.batch)
    solver = DDIM.stable_diffusion(case.steps)
    return lambda: sample(eps_fn, x, solver, method, cond=cond, uncond=uncond, strong=SCALE, weak=0.0, batched=True)


def captured_loop(case: Case, method: Any, module: Any = None) -> Callable[[], Tensor]:
    """`zigzag.capture`, of the network or of another form of it."""
    eps_fn, (x, cond, uncond) = case.network.predictor(module), case.network.inputs(case.batch)
    solver = DDIM.stable_diffusion(case.steps)
    run = zigzag.capture(eps_fn, x, solver, method, cond=cond, uncond=uncond, strong=SCALE, weak=0.0, batched=True)
    return lambda: run(x)


def speed(case: Case, runs: int, compiled: bool = False) -> dict[str, Any]:
    """Images a second of each loop, and the ratios to the others, in turns."""
    loops = {"eager": eager_loop(case, Standard()), "captured": captured_loop(case, Standard())}
    if compiled:
        module = torch.compile(case.network.module, dynamic=False)
        loops["captured + compile"] = captured_loop(case, Standard(), module)
    else:
        loops["diffusers"] = diffusers_loop(case)
    seconds = dict(zip(loops, in_turns(list(loops.values()), runs, synchronize=torch.cuda.synchronize), strict=True))
    expected, figures = loops["eager"]().float(), []
    for name, loop in loops.items():
        over = {other: ratio(seconds[other], seconds[name]) for other in loops if other != name}
        per_second = case.batch / median(seconds[name])
        difference = float((loop().float() - expected).norm() / expected.norm())
        figures.append(
            {
                "loop": name, "images_per_second": per_second, "difference": difference,
                "times_as_fast_as": {other: r._asdict() for other, r in over.items()},
            }
        )  # fmt: skip
        text = "   ".join(f"× {other}: {r}" for other, r in over.items())
        _say(case, f"{name:<19}{per_second:8.2f} images/s   {text}   differs from eager by {difference:.1e}")
    return {"measured": "speed, compiled" if compiled else "speed", "loops": figures}


def methods(case: Case, runs: int) -> dict[str, Any]:
    """Time of Z² and Z over standard sampling, in turns."""
    figures = []
    for way, make in (("eager", eager_loop), ("captured", captured_loop)):
        loops = {name: make(case, method) for name, method in METHODS.items()}
        seconds = in_turns(list(loops.values()), runs, synchronize=torch.cuda.synchronize)
        for name, own in list(zip(loops, seconds, strict=True))[1:]:
            over = ratio(own, seconds[0])
            figures.append({"loop": way, "method": name, "over_standard": over._asdict()})
            _say(case, f"{name} / Standard, {way}: {over}")
    return {"measured": "methods", "methods": figures}


def memory(case: Case) -> dict[str, Any]:
    """Peak memory of an eager sample over what was allocated before it, beside that of standard sampling."""
    latent, peaks = 4 * case.network.inputs(case.batch)[0].numel(), {}
    for name, method in METHODS.items():
        run = eager_loop(case, method)
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        peaks[name] = torch.cuda.max_memory_allocated() - before
    figures = []
    for name, peak in peaks.items():
        more = peak - peaks["Standard"]
        figures.append({"method": name, "peak_bytes": peak, "over_standard_bytes": more, "in_latents": more / latent})
        if name != "Standard":
            text = f"{more / 1e6:+.3f} MB = {more / latent:+.2f} latents, × {peak / peaks['Standard']:.5f}"
            _say(case, f"{name}, peak memory over Standard: {text}")
    return {"measured": "memory", "methods": figures}


def syncs(case: Case) -> dict[str, Any]:
    """How often the host waits for the device: in a step, and besides in a sample."""
    makers: dict[str, Callable[[Case], Callable[[], Tensor]]] = {
        "diffusers": diffusers_loop,
        "eager": lambda case: eager_loop(case, Z2Sampling(warmup=2)),
        "captured": lambda case: captured_loop(case, Z2Sampling(warmup=2)),
    }
    figures = []
    for name, make in makers.items():
        once, twice = (_syncs(make(case._replace(steps=steps))) for steps in (case.steps, 2 * case.steps))
        step = (twice - once) / case.steps
        figures.append({"loop": name, "a_step": step, "besides_a_sample": once - step * case.steps})
        _say(case, f"{name}: {step:g} host syncs a step, and {once - step * case.steps:g} a sample")
    return {"measured": "host syncs", "loops": figures}


def _syncs(run: Loop) -> int:
    run()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def plan(args: argparse.Namespace) -> Iterator[tuple[str, float, Callable[[], dict[str, Any]]]]:
    """Name, seconds to set aside and function of each measurement; what takes long to prepare comes last."""
    networks: dict[str, Network] = {}

    def case(part: str, batch: int) -> Case:
        if part not in networks:
            networks[part] = build(PARTS[part], 8 if args.quick else None, "cuda", torch.bfloat16)
        return Case(networks[part], batch, args.steps)

    runs = 2 if args.quick else args.runs
    for batch in args.batch:
        few = runs if batch == 1 else max(2, runs // 2)
        for part in args.part:
            here = case(part, batch)
            yield f"{part}, batch {batch}: speed", 20, partial(speed, here, few)
            yield f"{part}, batch {batch}: methods", 20, partial(methods, here, few)
            yield f"{part}, batch {batch}: memory", 5, partial(memory, here)
    for part in args.part:
        yield f"{part}: host syncs", 5, partial(syncs, case(part, 1))
    for batch in args.batch:
        for part in args.part:
            aside = 60 if part == "small" else COMPILING
            yield f"{part}, batch {batch}: compiled", aside, partial(speed, case(part, batch), max(2, runs // 2), True)


def main() -> int:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__, runs=7)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="networks (default: all)")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4], help="batches (default: 1 4)")
    parser.add_argument("--steps", type=int, default=6, help="sampling steps (default: 6)")
    parser.add_argument("--budget", type=float, default=540, help="seconds in all (default: 540)")
    parser.add_argument("--count", action="store_true", help="count the parameters of the networks, and end")
    args = parser.parse_args()
    if args.count:
        for name in PARTS.values():
            print(f"{name}: {parameters(name):,} parameters")
        return 0
    if not torch.cuda.is_available():
        print(f"gpu.py needs a CUDA device, and torch {torch.__version__} sees none here", file=sys.stderr)
        return 2

    if args.quick:
        args.part, args.batch = ["small"], [1]
    began, failed, results, left_out = time.monotonic(), False, [], []
    for name, aside, measure in plan(args):
        if time.monotonic() - began + aside > args.budget:
            left_out.append(f"{name}: no time")
            continue
        try:
            results.append({"name": name, **measure()})
        except RuntimeError as error:  # a capture or a compilation that fails must not cost the other figures
            reason, failed = str(error).partition("\n")[0], True
            left_out.append(f"{name}: {type(error).__name__}: {reason}")
        gc.collect()  # graphs, before the memory of the next ones is measured
        torch.cuda.empty_cache()
        write(args.json, results, ["diffusers"], announce=False, steps=args.steps, left_out=left_out)
    for name in left_out:
        print(f"left out: {name}")
    print(f"bfloat16, {args.steps} steps, scale {SCALE}; {time.monotonic() - began:.0f} s in all")
    write(args.json, results, ["diffusers"], steps=args.steps, left_out=left_out)
    return int(failed)


def _doubled(uncond: dict[str, Any], cond: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.cat([uncond[name], value]) if isinstance(value, Tensor) else _doubled(uncond[name], value)
        for name, value in cond.items()
    }


def _say(case: Case, text: str) -> None:
    print(f"{case.network.name}, batch {case.batch}: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
