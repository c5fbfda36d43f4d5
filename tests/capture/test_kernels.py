"""The fused kernel computes what plain torch does. Without a GPU it runs in Triton's interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from torch import Tensor

from zigzag.capture import kernels
from zigzag.capture.kernels import ONE, ZERO, Numbers, _laid_alike, combine, compiled_combine

SCRIPT = """
import sys, torch
from zigzag.capture import kernels

device, EPS = sys.argv[1], torch.finfo(torch.float32).eps
generator = torch.Generator().manual_seed(0)

def random(*shape):
    return torch.randn(shape, generator=generator)

def chunked(x):
    return torch.cat([x, x], 1).chunk(2, 1)[0]

def last(x):
    return x.to(memory_format=torch.channels_last)

LAYOUTS = {"dense": (lambda x: x, lambda x: x), "chunked": (lambda x: x, chunked), "channels last": (last, last)}

for shape in ((3, 5), (2, 4, 9, 17), (1, 4, 32, 32)):
    for name, (of_state, of_term) in LAYOUTS.items():
        if name == "channels last" and len(shape) != 4:
            continue
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            for count in (1, 2, 4, 9):
                y = of_state(random(*shape).to(device))
                es = [of_term(random(*shape).to(device, dtype)) for _ in range(count)]
                table = torch.cat([torch.tensor([[0.0, 1.0]] * 3), random(3, 1 + count)], 1).to(device)
                numbers = kernels.Numbers(table, torch.ones(1, dtype=torch.int64, device=device))
                terms = list(enumerate(es, 3))
                assert kernels._laid_alike(y, es, y)
                p, *cs = table[1, 2:].double()
                exact = p * y.double() + sum(c * e.double() for c, e in zip(cs, es))
                size = (p * y).abs().double() + sum((c * e.double()).abs() for c, e in zip(cs, es))
                fused, near = kernels._fused(numbers, y, 2, terms), 4 * count * EPS * size
                assert fused.stride() == y.stride() and fused.dtype == torch.float32
                assert ((fused - exact).abs() <= near).all(), (shape, name, dtype, count)
                assert not ((fused - exact - 2 * near - 1e-30).abs() <= near).all()
                old = y.clone()
                assert kernels._fused(numbers, y, 2, terms, y) is y and torch.equal(y, fused)
                # The result may lie over a term too, wherever that stands.
                if dtype == torch.float32 and name == "dense":
                    for k in range(count):
                        over = [(c, e.clone()) for c, e in terms]
                        assert torch.equal(kernels._fused(numbers, old, 2, over, over[k][1]), fused)
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


def numbers(*coefficients: Tensor) -> Numbers:
    """A table whose second row is chosen, the coefficients from column 2 on."""
    row = torch.cat([torch.tensor([0.0, 1.0], dtype=coefficients[0].dtype), *coefficients])
    return Numbers(torch.stack([row * torch.nan, row]), torch.ones(1, dtype=torch.int64))


def test_plain_torch_does_the_same_in_any_dtype() -> None:
    y, e, f = torch.randn(3, 2, 4, dtype=torch.float64)
    p, c, u = torch.randn(3, 1, dtype=torch.float64)
    row = numbers(p, c, u)
    torch.testing.assert_close(combine(row, y, 2, [(3, e), (4, f)]), p * y + c * e + u * f)
    torch.testing.assert_close(combine(row, y, 2, []), p * y)
    torch.testing.assert_close(combine(row, y, ZERO, [(ONE, e)]), e)
    torch.testing.assert_close(combine(row, y, 2, [(3, e)], [(4, f)]), p * y + c * e + u * f)
    assert combine(numbers(p.float(), c.float()), y.float(), 2, [(3, e.half())]).dtype == torch.float32


def test_the_result_may_lie_over_what_it_is_made_of() -> None:
    y, e, f = torch.randn(3, 2, 4, dtype=torch.float64)
    row, terms = numbers(*torch.randn(3, 1, dtype=torch.float64)), [(3, e), (4, f)]
    expected = combine(row, y, 2, terms)
    for k in range(3):
        tensors = [x.clone() for x in (y, e, f)]
        out = tensors[k]
        assert combine(row, tensors[0], 2, [(3, tensors[1]), (4, tensors[2])], out=out) is out
        assert torch.equal(out, expected)


def test_layouts_are_alike_where_samples_lie_in_the_same_order_without_holes() -> None:
    y, e = torch.zeros(2, 4, 3, 5), torch.zeros(2, 8, 3, 5)
    last = y.to(memory_format=torch.channels_last)
    one = torch.zeros(1, 4, 1, 5).as_strided((1, 4, 1, 5), (7, 5, 99, 1))  # strides that say nothing
    for alike in ([y, y], [y, e.chunk(2, 1)[1]], [last, last], [torch.zeros(1, 4, 1, 5), one], [torch.zeros(3)] * 2):
        assert _laid_alike(alike[0], alike[1:], alike[0])
    holes = torch.zeros(2, 4, 3, 10)[..., ::2]
    for other in ([y, last], [last, y], [holes, holes], [y, y.double()], [y, e.permute(0, 1, 3, 2)[:, :4]]):
        assert not _laid_alike(other[0], other[1:], None)
    assert not _laid_alike(y, [y], last)


def test_without_what_triton_needs_plain_torch_takes_over_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")

    def untried(kernel: object) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    monkeypatch.setattr(kernels, "_tried", untried)
    kernels._kernel.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"Failed to find C compiler.*variable\.\); plain torch"):
            assert kernels._kernel() is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kernels._kernel() is None
    finally:
        kernels._kernel.cache_clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_the_compiled_combination_is_exact_to_rounding_whatever_the_sizes() -> None:
    """|compiled − exact| ≤ 4·eps·(|p·y| + Σ|c·e|), for sizes and numbers of terms that come one after another."""
    for shape, count in (((2, 4, 8, 8), 2), ((1, 4, 33, 17), 2), ((3, 5), 1)):
        y, *es = torch.randn(1 + count, *shape)
        p, *cs = torch.randn(1 + count, 1)
        exact, size = p.double() * y, (p * y).abs()
        for c, e in zip(cs, es, strict=True):
            exact, size = exact + c.double() * e, size + (c * e).abs()
        out = compiled_combine(numbers(p, *cs), y, 2, list(enumerate(es, 3)))
        assert out.dtype == torch.float32
        assert ((out - exact).abs() <= 4 * torch.finfo(torch.float32).eps * size).all()
