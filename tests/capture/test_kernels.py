"""The fused kernel computes what plain torch does. Without a GPU it runs in Triton's interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from zigzag.capture.kernels import combine, compiled_combine

SCRIPT = """
import sys, torch
from zigzag.capture import kernels

device = sys.argv[1]
generator = torch.Generator().manual_seed(0)
for shape in ((1, 1), (3, 5), (2, 4, 33, 17), (1, 4, 64, 64)):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for count in (1, 2):
            y = torch.randn(shape, generator=generator).to(device)
            es = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(count)]
            p, *cs = (torch.randn(1, generator=generator).to(device) for _ in range(1 + count))
            fused = kernels._fused(p, y, list(zip(cs, es)))
            exact = p.double() * y.double() + sum(c.double() * e.double() for c, e in zip(cs, es))
            size = (p * y).abs().double() + sum((c * e.float()).abs().double() for c, e in zip(cs, es))
            held = kernels._added(fused.clone(), [(p, fused), (p, y)])
            added = exact * (1 + p.double()) + p.double() * y.double()
            eps = 8 * torch.finfo(torch.float32).eps * (size * (1 + p.abs()) + (p * y).abs())
            assert ((held - added).abs() <= eps).all(), (shape, dtype, count)
            assert ((fused - exact).abs() <= 4 * torch.finfo(torch.float32).eps * size).all(), (shape, dtype, count)
            wrong = exact + 8 * torch.finfo(torch.float32).eps * size + 1e-30
            assert not ((fused - wrong).abs() <= 4 * torch.finfo(torch.float32).eps * size).all()
print("same")
"""


def run(device: str, **env: str) -> str:
    return subprocess.check_output([sys.executable, "-c", SCRIPT, device], env={**os.environ, **env}, text=True).strip()


def test_the_kernel_is_exact_to_rounding_in_the_interpreter() -> None:
    """|fused − exact| ≤ 4·eps·(|p·y| + Σ|c·e|), for predictions of every precision and shapes that fill no block."""
    pytest.importorskip("triton")
    assert run("cpu", TRITON_INTERPRET="1") == "same"


@pytest.mark.gpu
def test_the_kernel_is_exact_to_rounding_on_the_device() -> None:
    assert run("cuda") == "same"


def test_plain_torch_does_the_same_in_any_dtype() -> None:
    y, e, f = torch.randn(3, 2, 4, dtype=torch.float64)
    p, c, u = torch.randn(3, 1, dtype=torch.float64)
    torch.testing.assert_close(combine(p, y, [(c, e), (u, f)]), p * y + c * e + u * f)
    torch.testing.assert_close(combine(p, y, []), p * y)
    torch.testing.assert_close(combine(p, y, [(c, e)], [(u, f)]), p * y + c * e + u * f)
    assert combine(p.float(), y.float(), [(c.float(), e.half())]).dtype == torch.float32


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_the_compiled_combination_is_exact_to_rounding_whatever_the_sizes() -> None:
    """|compiled − exact| ≤ 4·eps·(|p·y| + Σ|c·e|), for sizes and numbers of terms that come one after another."""
    for shape, count in (((2, 4, 8, 8), 2), ((1, 4, 33, 17), 2), ((3, 5), 1)):
        y, *es = torch.randn(1 + count, *shape)
        p, *cs = torch.randn(1 + count, 1)
        exact, size = p.double() * y, (p * y).abs()
        for c, e in zip(cs, es, strict=True):
            exact, size = exact + c.double() * e, size + (c * e).abs()
        out = compiled_combine(p, y, list(zip(cs, es, strict=True)))
        assert out.dtype == torch.float32
        assert ((out - exact).abs() <= 4 * torch.finfo(torch.float32).eps * size).all()
