"""The arithmetic of a step in one pass over the latents.

    python benchmarks/kernel.py [--json FILE]                on a GPU
    OMP_NUM_THREADS=1 python benchmarks/kernel.py --device cpu --clock cpu

On a GPU: bytes a second of the fused kernel over those of a copy from device to device of as many bytes. The kernel
reads the state and two predictions, and writes the state; the copy reads half of that and writes half. The sizes are
those of all latents of the kernel together. Plain torch, which takes a pass for each term, stands beside it.

On a CPU: the time of the combination under `torch.compile` over that of plain torch, by the numbers in a latent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, in_turns, ratio, write
from torch import Tensor

from zigzag.capture.kernels import combine, compiled_combine

MEBI = 2**20


def measure(megabytes: int, dtype: torch.dtype, runs: int, loops: int) -> dict[str, Any]:
    """The share of the copy's bandwidth, for predictions of a dtype and a float32 state."""
    size = torch.finfo(dtype).bits // 8
    n = megabytes * MEBI // (4 + 4 + 2 * size)  # a state read, one written, two predictions read
    y = torch.randn(1, n, device="cuda")
    e, f = torch.randn(2, 1, n, device="cuda").to(dtype)
    p, c, u = torch.randn(3, 1, device="cuda")
    half = torch.empty(megabytes * MEBI // 2, dtype=torch.uint8, device="cuda")
    into = torch.empty_like(half)

    def fused() -> None:
        for _ in range(loops):
            combine(p, y, [(c, e), (u, f)])

    def plain() -> None:
        for _ in range(loops):
            torch.addcmul(torch.addcmul(p * y, c, e.float()), u, f.float())

    def copy() -> None:
        for _ in range(loops):
            into.copy_(half)

    torch.testing.assert_close(combine(p, y, [(c, e), (u, f)]), p * y + c * e.float() + u * f.float())
    took = in_turns([fused, plain, copy], runs, synchronize=torch.cuda.synchronize)
    of = {name: ratio(took[2], seconds) for name, seconds in (("fused", took[0]), ("plain torch", took[1]))}
    gigabytes = loops * megabytes * MEBI / 1e9
    print(
        f"{megabytes:>5} MiB, predictions in {str(dtype).removeprefix('torch.'):<9}"
        + "   ".join(f"{name} / copy = {r}" for name, r in of.items())
        + f"   (copy {gigabytes / min(took[2]):.0f} GB/s)"
    )
    return {"mebibytes": megabytes, "dtype": str(dtype), "of_copy": {name: r._asdict() for name, r in of.items()}}


def measure_compiled(n: int, dtype: torch.dtype, runs: int, loops: int, clock: str) -> dict[str, Any]:
    """Compiled over plain torch on the CPU, for predictions of a dtype and a float32 state of n numbers."""
    y, (e, f) = torch.randn(1, n), torch.randn(2, 1, n).to(dtype)
    p, c, u = torch.randn(3, 1)

    def loop(function: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(loops):
                function(p, y, [(c, e), (u, f)])

        return run

    torch.testing.assert_close(compiled_combine(p, y, [(c, e), (u, f)]), combine(p, y, [(c, e), (u, f)]))
    compiled, plain = in_turns([loop(compiled_combine), loop(combine)], runs, clock=clock)
    r, name = ratio(compiled, plain), str(dtype).removeprefix("torch.")
    print(
        f"{n:>8} numbers, predictions in {name:<9} compiled / plain = {r}   ({1e6 * min(plain) / loops:.0f} us plain)"
    )
    return {"numbers": n, "dtype": str(dtype), "compiled_over_plain": r._asdict()}


def main() -> int:
    """Runs the benchmark, prints it and writes it on request."""
    parser = arguments(__doc__, runs=15, clock=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda")
    args = parser.parse_args()
    dtypes = (torch.bfloat16, torch.float32)
    if args.device == "cpu":
        counts, runs = ((2**14,), 2) if args.quick else (tuple(2**k for k in (12, 14, 16, 18, 20)), args.runs)
        results = [measure_compiled(n, d, runs, max(1, 2**22 // n), args.clock) for n in counts for d in dtypes]
        write(args.json, results)
        return 0
    if not torch.cuda.is_available():
        print(f"kernel.py needs a CUDA device, and torch {torch.__version__} sees none here", file=sys.stderr)
        return 2
    sizes, runs = ((1,), 2) if args.quick else ((4, 64, 256, 1024), args.runs)
    write(args.json, [measure(size, dtype, runs, loops=20) for size in sizes for dtype in dtypes])
    return 0


if __name__ == "__main__":
    sys.exit(main())
