"""The arithmetic of a step in one pass over the latents: a Triton kernel on CUDA, plain or compiled torch elsewhere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["ONE", "ZERO", "Numbers", "Term", "combine", "compiled_combine"]

ZERO: Final = 0
ONE: Final = 1
"""The first columns of every table hold 0 and 1."""

BLOCK: Final = 1024
WARPS: Final = 8  # 4 numbers a thread: a float32 state in loads of 128 bits, and predictions need no detour
MOST: Final = 4  # terms that the kernel takes at once

Term = tuple[int, Tensor]


class Numbers(NamedTuple):
    """A row of a table of coefficients, chosen on the device: `T[k]`.

    Attributes:
        table: `(n, width)`, in the dtype of the state; the columns `ZERO` and `ONE` hold 0 and 1.
        k: `(1,)` int64 on the same device.
    """

    table: Tensor
    k: Tensor

    def row(self) -> tuple[Tensor, ...]:
        """Its numbers, `(1,)` each."""
        return torch.split(self.table.index_select(0, self.k)[0], 1)


def combine(
    numbers: Numbers,
    y: Tensor,
    p: int,
    terms: Sequence[Term],
    held: Sequence[Term] = (),
    out: Tensor | None = None,
) -> Tensor:
    r"""`p·y + Σ c·e + Σ h·m`, with each latent read once and the result written once.

    That is guidance, gap, Shift and affine update of a step at once (see `zigzag.capture.table`).

    Args:
        numbers: the coefficients. p: the column of that of `y`.
        y: the state, `(B, …)`; the result has its dtype.
        terms: pairs `(column, e)`, `e` in the shape of `y` and any floating dtype. They are summed in the dtype of `y`.
        held: pairs `(column, m)` of what a step holds besides, in the shape and dtype of `y`.
        out: where the result goes, a tensor like `y`, or `y` itself; by default a new one.

    On CUDA, a float32 state and terms whose samples have its memory layout (however far apart they lie) take the fused
    kernel, four terms a pass; everything else takes plain torch, with the same result to rounding. Nothing is read on
    the host.
    """
    every = [*terms, *held]
    if _fusable(y, every, out):
        return _fused(numbers, y, p, every, out)
    return _written(_plain(*_operands(numbers, y, p, every)), out)


def compiled_combine(
    numbers: Numbers,
    y: Tensor,
    p: int,
    terms: Sequence[Term],
    held: Sequence[Term] = (),
    out: Tensor | None = None,
) -> Tensor:
    """`combine`, with plain torch compiled into one pass; the same result to rounding.

    The first call compiles for seconds, and needs a C++ compiler on a CPU. Compiled code has a fixed cost a call: on
    a CPU it is the slower one for small latents (`benchmarks/kernel.py --device cpu`).

    Raises:
        RuntimeError: where torch cannot compile.
    """
    every = [*terms, *held]
    if _fusable(y, every, out):
        return _fused(numbers, y, p, every, out)
    return _written(_compiled()(*_operands(numbers, y, p, every)), out)


def _operands(
    numbers: Numbers, y: Tensor, p: int, terms: Sequence[Term]
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    row = numbers.row()
    return row[p], y, [row[c] for c, _ in terms], [e for _, e in terms]


def _written(result: Tensor, out: Tensor | None) -> Tensor:
    return result if out is None else out.copy_(result)


def _plain(p: Tensor, y: Tensor, cs: list[Tensor], es: list[Tensor]) -> Tensor:
    out = p * y
    for c, e in zip(cs, es, strict=True):
        out = torch.addcmul(out, c, e.to(y.dtype))
    return out


@cache
def _compiled() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(_plain, fullgraph=True, dynamic=True)
    return compiled


def _fusable(y: Tensor, terms: Sequence[Term], out: Tensor | None) -> bool:
    return (
        y.is_cuda
        and y.dtype == torch.float32
        and bool(terms)
        and _laid_alike(y, [e for _, e in terms], out)
        and not torch.compiler.is_compiling()  # inductor fuses the plain form by itself
        and _kernel() is not None
    )


def _laid_alike(y: Tensor, es: Sequence[Tensor], out: Tensor | None) -> bool:
    """Whether the samples of all lie in memory in one order and without holes: the kernel walks the memory."""
    layout, numel = _layout(y), 1
    for size, stride in sorted(layout, key=lambda dimension: dimension[1]):
        if stride != numel:
            return False
        numel *= size
    return (
        len(y) < 2**16  # samples are the second dimension of the launch
        and all(e.dtype in (torch.float32, torch.float16, torch.bfloat16) and _layout(e) == layout for e in es)
        and (out is None or (out.dtype == y.dtype and _layout(out) == layout))
    )


def _layout(x: Tensor) -> list[tuple[int, int]]:
    """Sizes and strides of a sample; where there is but one, a stride says nothing."""
    return [(size, stride) for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True) if size > 1]


def _fused(numbers: Numbers, y: Tensor, p: int, terms: Sequence[Term], out: Tensor | None = None) -> Tensor:
    out = torch.empty_like(y) if out is None else out
    # What is left over is added to the result; a term that the result overwrites must not be left over.
    now, later = terms[:MOST], terms[MOST:]
    later = [(c, e.clone() if e.data_ptr() == out.data_ptr() else e) for c, e in later]
    samples, inner = len(y), math.prod(y.shape[1:])
    apart = [x.stride(0) for x in (out, y, *(e for _, e in now))]
    if samples == 1 or all(stride == inner for stride in apart):
        samples, inner, apart = 1, y.numel(), [0] * len(apart)
    padded = [*now, *[now[-1]] * (MOST - len(now))]
    apart += [0] * (2 + MOST - len(apart))
    with torch.cuda.device_of(y):  # type: ignore[no-untyped-call]
        _kernel()[(-(-inner // BLOCK), samples)](
            out, y, *(e for _, e in padded), numbers.table, numbers.k, numbers.table.shape[1], p,
            *(c for c, _ in padded), inner, *apart, BLOCK=BLOCK, TERMS=len(now), num_warps=WARPS,
        )  # fmt: skip
    return _fused(numbers, out, ONE, later, out) if later else out


@cache
def _kernel() -> Any:
    """The kernel, or None where Triton is missing, or cannot build what launches a kernel."""
    try:
        from zigzag.capture.triton_kernels import combine_kernel
    except ImportError:
        return None
    try:
        _tried(combine_kernel)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"Triton cannot run the fused kernel of a step ({reason}); plain torch takes its place, in more passes. "
            "Triton needs a C compiler: install one, or set CC",
            stacklevel=2,
        )
        return None
    return combine_kernel


def _tried(kernel: Any) -> None:
    """Runs the kernel once, on the current device, before anything depends on it."""
    if not torch.cuda.is_available():  # the interpreter
        return
    x, k = torch.zeros(16, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    kernel[(1, 1)](
        x, x, x, x, x, x, x, k, 16, ZERO, ZERO, ZERO, ZERO, ZERO, 16, 0, 0, 0, 0, 0, 0,
        BLOCK=BLOCK, TERMS=1, num_warps=WARPS,
    )  # fmt: skip
