"""The Triton kernel of `zigzag.capture.kernels`. Importing it needs Triton, which comes with torch on CUDA machines."""

# No `from __future__ import annotations`: Triton reads the annotations of its kernels as objects.
import triton
import triton.language as tl

__all__ = ["combine_kernel"]


@triton.jit
def combine_kernel(out, y, p, e, c, f, u, n, BLOCK: tl.constexpr, TWO: tl.constexpr):
    """`out = p·y + c·e (+ u·f)` over `n` elements in float32; `p`, `c`, `u` point to one number each."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    total = tl.load(p) * tl.load(y + at, mask=inside)
    total += tl.load(c) * tl.load(e + at, mask=inside).to(tl.float32)
    if TWO:
        total += tl.load(u) * tl.load(f + at, mask=inside).to(tl.float32)
    tl.store(out + at, total, mask=inside)
