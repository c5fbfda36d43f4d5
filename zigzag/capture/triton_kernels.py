"""The Triton kernel of `zigzag.capture.kernels`. Importing it needs Triton, which comes with torch on CUDA machines."""

# No `from __future__ import annotations`: Triton reads the annotations of its kernels as objects.
import triton
import triton.language as tl

__all__ = ["combine_kernel"]


# Columns and widths say nothing about alignment: a kernel for each would be the same kernel.
@triton.jit(do_not_specialize=["width", "p", "c0", "c1", "c2", "c3"])
def combine_kernel(
    out, y, e0, e1, e2, e3, table, k,
    width, p, c0, c1, c2, c3, inner, s_out, s_y, s0, s1, s2, s3,
    BLOCK: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """`out = T[k, p]·y + Σ T[k, c]·e` in float32, over samples of `inner` numbers that lie `s` apart.

    `out` may be `y`, or a term of the same layout: a program reads all that it needs before it writes.
    """
    sample = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < inner
    row = table + tl.load(k) * width
    # All loads stand before the first product, so that they are under way together.
    state = tl.load(y + sample * s_y + at, mask=inside)
    first = tl.load(e0 + sample * s0 + at, mask=inside)
    if TERMS > 1:
        second = tl.load(e1 + sample * s1 + at, mask=inside)
    if TERMS > 2:
        third = tl.load(e2 + sample * s2 + at, mask=inside)
    if TERMS > 3:
        fourth = tl.load(e3 + sample * s3 + at, mask=inside)
    total = tl.load(row + p) * state + tl.load(row + c0) * first.to(tl.float32)
    if TERMS > 1:
        total += tl.load(row + c1) * second.to(tl.float32)
    if TERMS > 2:
        total += tl.load(row + c2) * third.to(tl.float32)
    if TERMS > 3:
        total += tl.load(row + c3) * fourth.to(tl.float32)
    tl.store(out + sample * s_out + at, total, mask=inside)
