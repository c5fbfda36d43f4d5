"""When one doubled batch beats two calls: the same sample both ways, on several networks and sizes.

    python benchmarks/batching.py [--device cuda] [--json FILE]

The figure is the time of `sample(…, batched=True)` over that of `batched=False`: below 1 the doubled batch wins. A
doubled batch halves the launches and reads the weights once for both rows, and needs the memory of two rows at once.
"""

from __future__ import annotations

from typing import Any

import torch
from common import Loop, arguments, in_turns, median, ratio, write
from models import Network, build

from zigzag import DDIM, Standard, sample

CASES = (
    ("small-unet", (8, 16, 32, 64), (1, 4)),
    ("mid-unet", (16, 32), (1, 4)),
    ("small-hunyuan", (8, 16, 32), (1, 4)),
    ("mid-hunyuan", (16, 32), (1, 4)),
)
ON_CUDA = (*CASES, ("sdxl", (64, 128), (1, 4)), ("hunyuan", (64, 128), (1, 4)))
QUICK = (("small-unet", (8,), (1,)), ("small-hunyuan", (8,), (1,)))


def sampler(network: Network, batch: int, steps: int, batched: bool) -> Loop:
    """Standard sampling with guidance."""
    eps_fn, (x, cond, uncond) = network.predictor(), network.inputs(batch)
    solver = DDIM.stable_diffusion(steps)
    return lambda: sample(eps_fn, x, solver, Standard(), cond=cond, uncond=uncond, strong=5.5, batched=batched)


def measure(network: Network, batch: int, steps: int, runs: int, clock: str) -> dict[str, Any]:
    """Both ways, in turns, after a look whether they arrive at the same sample."""
    doubled, two = (sampler(network, batch, steps, batched) for batched in (True, False))
    if network.module.dtype == torch.float32:
        torch.testing.assert_close(doubled(), two(), rtol=1e-3, atol=1e-2)
    on_cuda = network.module.device.type == "cuda"
    mine, other = in_turns([doubled, two], runs, clock=clock, synchronize=torch.cuda.synchronize if on_cuda else None)
    return {
        "network": network.name, "size": network.size, "batch": batch, "ratio": ratio(mine, other)._asdict(),
        "doubled_ms": 1e3 * median(mine, per=steps), "two_calls_ms": 1e3 * median(other, per=steps),
    }  # fmt: skip


def main() -> None:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__, runs=9, clock=True)
    parser.add_argument("--steps", type=int, default=2, help="sampling steps (default: 2)")
    parser.add_argument(
        "--device", default="cpu", help="cpu or cuda, there in bfloat16 and with the published networks"
    )
    args = parser.parse_args()
    runs, on_cuda = 2 if args.quick else args.runs, torch.device(args.device).type == "cuda"
    dtype = torch.bfloat16 if on_cuda else torch.float32

    results = []
    for name, sizes, batches in QUICK if args.quick else ON_CUDA if on_cuda else CASES:
        for size in sizes:
            network = build(name, size, args.device, dtype)
            for batch in batches:
                result = measure(network, batch, args.steps, runs, args.clock)
                results.append(result)
                r, times = result["ratio"], f"{result['doubled_ms']:.1f} / {result['two_calls_ms']:.1f} ms a step"
                print(
                    f"{name:<14}latents {size:>3}², batch {batch}: doubled / two calls = {r['median']:.2f} "
                    f"[{r['low']:.2f}, {r['high']:.2f}]   ({times})"
                )
    print(
        f"{str(dtype).removeprefix('torch.')} on {args.device}, {args.steps} steps, {runs} runs each, {args.clock} time"
    )
    write(args.json, results, ["diffusers"], steps=args.steps, runs=runs, clock=args.clock)


if __name__ == "__main__":
    main()
