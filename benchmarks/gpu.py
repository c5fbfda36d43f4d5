"""One figure of a network on a GPU; `gpu_suite.py` takes them all, each in a process of its own.

    python benchmarks/gpu.py FIGURE [--network NAME] [--size LATENTS] [--batch N] [--json FILE]
    python benchmarks/gpu.py --count

Networks have random weights and run in bfloat16, both branches in one doubled batch: SDXL's U-Net, Hunyuan-DiT v1.2 and
Flux as published, and some so small that launching their kernels takes longer than running them (`plain` needs no
diffusers). The loops are in `gpu_loops.py`. The figures:

- `speed`: the loop that a diffusers pipeline runs, `sample`, and `capture`, over each other, in turns; how long the
  processor is busy with each, of the time that it takes in all;
- `compiled`: the network compiled in `sample`, and in `capture`, over plain `sample`; `reduce-overhead`: compiled with
  graphs of torch's own, in `sample`;
- `attach`: a pipeline with a method attached, without and with graphs, over the pipeline by itself;
- `methods`: Z² and Z over standard sampling, in time, eager and captured; `memory`: in peak memory, and what a capture
  keeps; `syncs`: how often the host waits for the device, in a step and besides in a sample.

`--dry` runs all of it on a CPU, with CUDA's calls stubbed and its graphs emulated by the tests: it shows that the
script works, and its figures mean nothing. `--count` counts the parameters of the networks, and needs no GPU either.
"""

from __future__ import annotations

import copy
import gc
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from common import Loop, arguments, median, ratio, write
from gpu_loops import SCALE, Case, captured_loop, diffusers_loop, eager_loop, wait
from plain import build_plain
from torch import Tensor

from zigzag import Standard, Z2Sampling, ZSampling

METHODS: Final[dict[str, Any]] = {"Standard": Standard(), "Z2Sampling": Z2Sampling(warmup=2), "ZSampling": ZSampling()}


def compared(case: Case, loops: dict[str, Callable[[], Tensor]], base: str) -> dict[str, Any]:
    """Of each loop: images a second, the ratios to the others, the processor's share, how far it is from the base."""
    seconds = dict(zip(loops, case.timed(list(loops.values())), strict=True))
    expected, figures, lines = loops[base]().float(), [], []
    for name, loop in loops.items():
        over = {other: ratio(seconds[other], seconds[name]) for other in loops if other != name}
        per_second, host = case.batch / median(seconds[name]), host_share(loop, 1 if case.dry else 5)
        difference = float((loop().float() - expected).norm() / expected.norm())
        figures.append(
            {
                "loop": name, "images_per_second": per_second, "host_share": host, "difference": difference,
                "times_as_fast_as": {other: r._asdict() for other, r in over.items()},
            }
        )  # fmt: skip
        text = "   ".join(f"× {other}: {r}" for other, r in over.items())
        lines.append(
            case.say(f"{name:<22}{per_second:8.2f} images/s   {text}   host {host:.2f}   {difference:.1e} off")
        )
    return {"lines": lines, "loops": figures}


def host_share(loop: Loop, runs: int) -> float:
    """How much of the time that a loop takes the processor is busy launching it: 1 where it holds the device up."""
    shares = []
    for _ in range(runs):
        wait()
        start = time.perf_counter()
        loop()
        launched = time.perf_counter()
        wait()
        shares.append((launched - start) / (time.perf_counter() - start))
    return statistics.median(shares)


def speed(case: Case) -> dict[str, Any]:
    """Of the plain loop, of `sample`, and of `capture`."""
    loops = {"eager": eager_loop(case, Standard()), "captured": captured_loop(case, Standard())}
    if case.network.kind != "plain":
        loops["diffusers"] = diffusers_loop(case)
    return compared(case, loops, "eager")


def compiled(case: Case) -> dict[str, Any]:
    """Of the network compiled in the default mode: alone, and captured."""
    module = torch.compile(case.network.module, dynamic=False, backend="eager" if case.dry else "inductor")
    loops = {
        "eager": eager_loop(case, Standard()),
        "compiled": eager_loop(case, Standard(), module),
        "captured": captured_loop(case, Standard()),
        "compiled, captured": captured_loop(case, Standard(), module),
    }
    return compared(case, loops, "eager")


def reduce_overhead(case: Case) -> dict[str, Any]:
    """Of the network compiled with graphs of torch's own, in `sample`."""
    how: dict[str, Any] = {"backend": "eager"} if case.dry else {"mode": "reduce-overhead"}
    module = torch.compile(case.network.module, dynamic=False, **how)
    loops = {
        "eager": eager_loop(case, Standard()),
        "reduce-overhead": eager_loop(case, Standard(), module, cloned=True),
    }
    return compared(case, loops, "eager")


def attached(case: Case) -> dict[str, Any]:
    """Of a pipeline by itself, and with methods attached. Each has a network of its own: a graph is one network's."""
    from attach import unet_pipeline

    from zigzag.adapters.diffusers import attach

    inputs: Any = case.network.inputs(case.batch)
    x, cond, uncond = inputs

    def loop(unet: Any) -> tuple[Any, Callable[[], Tensor]]:
        pipe = unet_pipeline(unet)
        call = {
            "prompt_embeds": cond["encoder_hidden_states"],
            "negative_prompt_embeds": uncond["encoder_hidden_states"],
        }
        if "added_cond_kwargs" in cond:
            call["pooled_prompt_embeds"] = cond["added_cond_kwargs"]["text_embeds"]
            call["negative_pooled_prompt_embeds"] = uncond["added_cond_kwargs"]["text_embeds"]
        pipe.to(x.device)
        return pipe, lambda: pipe(
            **call, latents=x, num_inference_steps=case.steps, guidance_scale=SCALE, output_type="latent",
        ).images  # fmt: skip

    given: dict[str, dict[str, Any]] = {
        "attached": {"method": Standard()},
        "attached, graphs": {"method": Standard(), "graphs": True},
        "Z2Sampling, graphs": {"method": Z2Sampling(warmup=2), "graphs": True},
    }
    loops = {"pipeline": loop(case.network.module)[1]}
    with ExitStack() as blocks:
        for name, how in given.items():
            pipe, loops[name] = loop(copy.deepcopy(case.network.module))
            blocks.enter_context(attach(pipe, **how))
        return compared(case, loops, "pipeline")


def methods(case: Case) -> dict[str, Any]:
    """Time of Z² and Z over standard sampling, in turns."""
    figures, lines = [], []
    for way, make in (("eager", eager_loop), ("captured", captured_loop)):
        loops = {name: make(case, method) for name, method in METHODS.items()}
        seconds = case.timed(list(loops.values()))
        for name, own in list(zip(loops, seconds, strict=True))[1:]:
            over = ratio(own, seconds[0])
            figures.append({"loop": way, "method": name, "over_standard": over._asdict()})
            lines.append(case.say(f"{name} / Standard, {way}: {over}"))
    return {"lines": lines, "methods": figures}


def memory(case: Case) -> dict[str, Any]:
    """Peak memory of an eager sample over what was allocated before, beside standard sampling; a capture's memory."""
    latent, figures, lines, standard = 4 * case.network.inputs(case.batch)[0].numel(), [], [], 0
    for name, method in METHODS.items():
        run = eager_loop(case, method)
        run()
        wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        wait()
        peak = torch.cuda.max_memory_allocated() - before
        standard = standard or peak
        del run
        released()
        reserved = torch.cuda.memory_reserved()
        captured = captured_loop(case, method)
        released()
        kept = torch.cuda.memory_reserved() - reserved
        del captured
        released()
        more = peak - standard
        figures.append(
            {"method": name, "peak_bytes": peak, "over_standard_bytes": more, "in_latents": more / latent,
             "captured_bytes": kept}
        )  # fmt: skip
        text = f"peak {peak / 2**20:.1f} MiB ({more / latent:+.2f} latents over Standard)"
        lines.append(case.say(f"{name}: {text}, a capture keeps {kept / 2**20:.1f} MiB"))
    return {"lines": lines, "methods": figures}


def released() -> None:
    """What nobody holds goes back to the device: graphs are part of cycles."""
    gc.collect()
    torch.cuda.empty_cache()


def syncs(case: Case) -> dict[str, Any]:
    """How often the host waits for the device: in a step, and besides in a sample."""
    makers: dict[str, Callable[[Case], Callable[[], Tensor]]] = {
        "eager": lambda case: eager_loop(case, Z2Sampling(warmup=2)),
        "captured": lambda case: captured_loop(case, Z2Sampling(warmup=2)),
    }
    if case.network.kind != "plain":
        makers["diffusers"] = diffusers_loop
    figures, lines = [], []
    for name, make in makers.items():
        once, twice = (_syncs(make(case._replace(steps=steps))) for steps in (case.steps, 2 * case.steps))
        step = (twice - once) / case.steps
        figures.append({"loop": name, "a_step": step, "besides_a_sample": once - step * case.steps})
        lines.append(case.say(f"{name}: {step:g} host syncs a step, and {once - step * case.steps:g} a sample"))
    return {"lines": lines, "loops": figures}


def _syncs(run: Loop) -> int:
    run()
    wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


FIGURES: Final[dict[str, Callable[[Case], dict[str, Any]]]] = {
    "speed": speed, "compiled": compiled, "reduce-overhead": reduce_overhead, "attach": attached, "methods": methods,
    "memory": memory, "syncs": syncs,
}  # fmt: skip


def stub() -> None:
    """CUDA's calls answer on a CPU, and its graphs are emulated."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import pytest

    emulator: Any = importlib.import_module("support.emulated").Emulator()
    asking = []
    try:
        from zigzag.adapters.diffusers import graphed

        asking.append(graphed)
    except ImportError:
        pass
    patch = pytest.MonkeyPatch()
    emulator.install(patch, *asking)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        patch.setattr(torch.cuda, name, lambda: None)
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved"):
        patch.setattr(torch.cuda, name, lambda: 0)


def main() -> int:
    """Takes one figure, prints it and writes it on request."""
    parser = arguments(__doc__, runs=7)
    parser.add_argument("figure", nargs="?", choices=FIGURES)
    parser.add_argument("--network", default="plain", help="plain, or one of models.py (default: plain)")
    parser.add_argument("--size", type=int, help="of the latents (default: the network's own)")
    parser.add_argument("--batch", type=int, default=1, help="(default: 1)")
    parser.add_argument("--steps", type=int, default=6, help="sampling steps (default: 6)")
    parser.add_argument("--dry", action="store_true", help="on a CPU, with CUDA's calls stubbed: shows that it works")
    parser.add_argument("--count", action="store_true", help="count the parameters of the networks, and end")
    args = parser.parse_args()
    if args.count:
        from models import parameters

        for name in ("sdxl", "hunyuan", "flux"):
            print(f"{name}: {parameters(name):,} parameters")
        return 0
    if args.figure is None:
        parser.error("which figure?")
    if args.dry:
        stub()
    elif not torch.cuda.is_available():
        print(f"gpu.py needs a CUDA device, and torch {torch.__version__} sees none here", file=sys.stderr)
        return 2
    device, dtype = ("cpu", torch.float32) if args.dry else ("cuda", torch.bfloat16)
    if args.network == "plain":
        network: Any = build_plain(args.size or 32, device, dtype, depth=2 if args.dry else 16)
    else:
        from models import build

        network = build(args.network, args.size, device, dtype)
    case = Case(network, args.batch, args.steps, 1 if args.dry else 2 if args.quick else args.runs, args.dry)
    result = FIGURES[args.figure](case)
    write(args.json, result, [] if args.network == "plain" else ["diffusers"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
