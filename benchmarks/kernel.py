"""The arithmetic of a step in one pass over the latents.

    python benchmarks/kernel.py [--json FILE]                on a GPU
    OMP_NUM_THREADS=1 python benchmarks/kernel.py --device cpu --clock cpu

On a GPU: bytes a second of the fused kernel over those of a copy from device to device of as many bytes. The kernel
reads the state and two predictions, and writes the state in place; the copy reads half of that and writes half. The
sizes are those of all latents of the kernel together. Plain torch, which takes a pass for each term, stands beside it.
Twenty calls are one graph, on buffers that take turns, so that no call finds its own in the cache.

On a CPU: the time of the combination under `torch.compile` over that of plain torch, by the numbers in a latent.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from common import arguments, in_turns, ratio, write
from torch import Tensor

from zigzag.capture.kernels import Numbers, combine, compiled_combine

MEBI = 2**20
CALLS = 20  # inside one graph: what launching costs the processor is not measured
ROTATED = 4  # times the cache that the buffers of all calls take together


class Operands(NamedTuple):
    """A state, two predictions, and the row of a table."""

    numbers: Numbers
    y: Tensor
    e: Tensor
    f: Tensor

    @classmethod
    def random(cls, n: int, dtype: torch.dtype, device: str) -> Operands:
        """Of `n` numbers each; the predictions in `dtype`."""
        table = torch.cat([torch.tensor([[0.0, 1.0]]), torch.randn(1, 3)], 1).to(device)
        y, e, f = torch.randn(3, 1, n, device=device)
        return cls(Numbers(table, torch.zeros(1, dtype=torch.int64, device=device)), y, e.to(dtype), f.to(dtype))

    def combined(self, how: Callable[..., Tensor] = combine, out: Tensor | None = None) -> Tensor:
        """`p·y + c·e + u·f`."""
        return how(self.numbers, self.y, 2, [(3, self.e), (4, self.f)], out=out)

    def plain(self) -> Tensor:
        """The same, a pass for each term."""
        p, c, u = self.numbers.row()[2:]
        return torch.addcmul(torch.addcmul(p * self.y, c, self.e.to(self.y.dtype)), u, self.f.to(self.y.dtype))


def in_graph(calls: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """`CALLS` of the calls, each in turn, as one CUDA graph."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for k in range(CALLS):
            calls[k % len(calls)]()
    return graph.replay


def measure(mebibytes: int, dtype: torch.dtype, runs: int) -> dict[str, Any]:
    """The share of the copy's bandwidth, for predictions of a dtype and a float32 state that is written in place."""
    size = torch.finfo(dtype).bits // 8
    # A state read and written, two predictions read; in whole blocks of the kernel, as latents are.
    n = mebibytes * MEBI // (4 + 4 + 2 * size) // 1024 * 1024
    moved = n * (4 + 4 + 2 * size)
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = min(CALLS, max(1, -(-ROTATED * cache // moved)))
    operands = [Operands.random(n, dtype, "cuda") for _ in range(sets)]
    halves = [torch.empty(2, moved // 2, dtype=torch.uint8, device="cuda") for _ in range(sets)]
    first = operands[0]
    torch.testing.assert_close(first.combined(), first.plain())
    loops = [
        in_graph([partial(one.combined, combine, one.y) for one in operands]),
        in_graph([one.plain for one in operands]),
        in_graph([partial(half[0].copy_, half[1]) for half in halves]),
    ]
    took = in_turns(loops, runs, synchronize=torch.cuda.synchronize)
    of = {name: ratio(took[2], seconds) for name, seconds in (("fused", took[0]), ("plain torch", took[1]))}
    print(
        f"{mebibytes:>5} MiB, predictions in {str(dtype).removeprefix('torch.'):<9}"
        + "   ".join(f"{name} / copy = {r}" for name, r in of.items())
        + f"   (copy {CALLS * moved / 1e9 / min(took[2]):.0f} GB/s)"
    )
    return {"mebibytes": mebibytes, "dtype": str(dtype), "of_copy": {name: r._asdict() for name, r in of.items()}}


def measure_compiled(n: int, dtype: torch.dtype, runs: int, loops: int, clock: str) -> dict[str, Any]:
    """Compiled over plain torch on the CPU, for predictions of a dtype and a float32 state of n numbers."""
    operands = Operands.random(n, dtype, "cpu")

    def loop(how: Callable[..., Tensor]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(loops):
                operands.combined(how)

        return run

    torch.testing.assert_close(operands.combined(compiled_combine), operands.combined())
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
    write(args.json, [measure(size, dtype, runs) for size in sizes for dtype in dtypes])
    return 0


if __name__ == "__main__":
    sys.exit(main())
