"""The arithmetic of a step in one pass over the latents: a Triton kernel on CUDA, plain or compiled torch elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["combine", "compiled_combine"]


def combine(
    p: Tensor, y: Tensor, terms: Sequence[tuple[Tensor, Tensor]], held: Sequence[tuple[Tensor, Tensor]] = ()
) -> Tensor:
    r"""`p·y + Σ c·e + Σ h·m`, with each latent read once and, where nothing is held, the result written once.

    That is guidance, gap, Shift and affine update of a step at once (see `zigzag.capture.table`).

    Args:
        p: `(1,)` on the device of `y`.
        y: the state, `(B, …)`; the result has its dtype.
        terms: pairs `(c, e)`, `c` `(1,)` and `e` in the shape of `y` and any floating dtype. They are summed in the
            dtype of `y`.
        held: pairs `(h, m)` of what a step holds besides, in the shape and dtype of `y`.

    On CUDA, a float32 state and one or two predictions in the same memory layout take the fused kernel, and what is
    held a pass of plain torch each; everything else takes plain torch, with the same result to rounding. Nothing is
    read on the host.
    """
    if _fusable(y, [e for _, e in terms]):
        return _added(_fused(p, y, terms), held)
    return _plain(p, y, *_columns(terms, held))


def compiled_combine(
    p: Tensor, y: Tensor, terms: Sequence[tuple[Tensor, Tensor]], held: Sequence[tuple[Tensor, Tensor]] = ()
) -> Tensor:
    """`combine`, with plain torch compiled into one pass; the same result to rounding.

    The first call compiles for seconds, and needs a C++ compiler on a CPU. Compiled code has a fixed cost a call: on
    a CPU it is the slower one for small latents (`benchmarks/kernel.py --device cpu`).

    Raises:
        RuntimeError: where torch cannot compile.
    """
    if _fusable(y, [e for _, e in terms]):
        return _added(_fused(p, y, terms), held)
    out: Tensor = _compiled()(p, y, *_columns(terms, held))
    return out


def _columns(*terms: Sequence[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [c for part in terms for c, _ in part], [e for part in terms for _, e in part]


def _added(out: Tensor, held: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    for h, m in held:
        out.addcmul_(h, m)
    return out


def _plain(p: Tensor, y: Tensor, cs: list[Tensor], es: list[Tensor]) -> Tensor:
    out = p * y
    for c, e in zip(cs, es, strict=True):
        out = torch.addcmul(out, c, e.to(y.dtype))
    return out


@cache
def _compiled() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(_plain, fullgraph=True, dynamic=True)
    return compiled


def _fusable(y: Tensor, es: Sequence[Tensor]) -> bool:
    return (
        y.is_cuda
        and y.dtype == torch.float32
        and 1 <= len(es) <= 2
        and _dense(y)
        and all(e.stride() == y.stride() and e.dtype in (torch.float32, torch.float16, torch.bfloat16) for e in es)
        and not torch.compiler.is_compiling()  # inductor fuses the plain form by itself
        and _kernel() is not None
    )


def _dense(x: Tensor) -> bool:
    # Any layout without holes: the kernel walks the memory, whatever the order of the dimensions.
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _fused(p: Tensor, y: Tensor, terms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    out, n, block = torch.empty_like(y), y.numel(), 1024
    (c, e), (u, f) = terms[0], terms[-1]
    _kernel()[(-(-n // block),)](out, y, p, e, c, f, u, n, BLOCK=block, TWO=len(terms) == 2)
    return out


@cache
def _kernel() -> Any:
    """The kernel, or None where Triton is missing."""
    try:
        from zigzag.capture.triton_kernels import combine_kernel
    except ImportError:
        return None
    return combine_kernel
