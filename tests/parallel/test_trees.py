"""Arguments and outputs by rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from zigzag.parallel.trees import Layout, check_told, form_of, rows_of, sums_of, total_of

ROWS = 3


def test_rows_are_taken_of_what_has_them_and_of_nothing_else() -> None:
    x, c, shared, residuals = torch.rand(ROWS, 2), torch.rand(ROWS), torch.rand(5, ROWS), [torch.rand(ROWS, 1)] * ROWS
    args, kwargs = rows_of(
        (x, 0.5), {"c": c, "all": shared, "t": torch.tensor(3), "residuals": residuals, "no": None},
        slice(1, 3), rows=ROWS, listed=False,
    )  # fmt: skip
    assert torch.equal(args[0], x[1:]) and args[1] == 0.5 and torch.equal(kwargs["c"], c[1:])
    assert kwargs["all"] is shared and kwargs["t"].ndim == 0 and kwargs["no"] is None
    assert [len(part) for part in kwargs["residuals"]] == [2] * ROWS


def test_a_state_that_is_a_list_is_taken_by_its_entries() -> None:
    xs, encodings = [torch.rand(2, 2) for _ in range(ROWS)], [torch.rand(k + 1, 4) for k in range(ROWS)]
    (one,), kwargs = rows_of((xs,), {"encodings": encodings}, slice(0, 2), rows=ROWS, listed=True)
    assert one == xs[:2] and kwargs["encodings"] == encodings[:2]


@pytest.mark.parametrize("listed", [False, True])
def test_an_output_is_put_together_of_its_tensors(listed: bool) -> None:
    tensors = [torch.rand(ROWS, 2, 3), torch.rand(ROWS).half()]
    one = {"sample": list(tensors[0]) if listed else tensors[0], "other": (tensors[1], None, "kind")}
    layout, found = Layout.of(one, ROWS, listed)
    assert [x.shape[1:] for x in found] == [*layout.shapes] and layout.bytes == [24, 2]
    assert [(x.shape, x.dtype) for x in layout.allocate(7, torch.device("cpu"))] == [
        ((7, 2, 3), torch.float32), ((7,), torch.float16),
    ]  # fmt: skip
    again: Any = layout.output(found)
    assert torch.equal(torch.as_tensor(again["sample"]), tensors[0]) and again["other"][1:] == (None, "kind")


def test_an_output_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a tensor \(1, 3\) came out for 3 rows"):
        Layout.of((torch.rand(ROWS), torch.rand(1, ROWS)), ROWS, listed=False)


def test_a_form_is_of_shapes_dtypes_and_what_is_no_tensor() -> None:
    form = partial(form_of, "net")
    x: Tensor = torch.rand(2, 3)
    assert form((x, {"scale": 1.0})) == form((x + 1, {"scale": 1.0}))
    others = [(x.double(), {"scale": 1}), (x[:1], {"scale": 1}), (x, {"scale": 2}), (x, {"by": 1}), (x, {"scale": 1.0})]
    assert len({form(other)[0] for other in others}) == 5
    (one, told), (other, beyond) = form((x, {"time": 1.5})), form((x, {"time": 2.5}))
    assert one == other and told != beyond  # a time is told as a number, and must be the same on every rank


def bits(tree: Any) -> int:
    return total_of(sums_of(tree))


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool, torch.complex64]
)
def test_the_last_bit_of_one_number_is_seen(dtype: torch.dtype) -> None:
    x = torch.rand(4, 5).mul(3).to(dtype)
    y = x.clone()
    real = torch.view_as_real(y) if y.is_complex() else y
    real.view(torch.uint8)[1, 0] ^= 1
    assert bits([x, {"y": x.mT}]) == bits([x.clone(), {"y": x.mT.contiguous()}])
    assert bits([x]) != bits([y]) and bits([x, y]) != bits([y, x])


def test_an_argument_that_may_be_written_to_is_refused() -> None:
    class Cache:
        """Keys and values."""

    check_told("net", ((torch.rand(1), None), {"scale": 1.0, "kind": torch.float32, "ids": ["a"]}))
    with pytest.raises(ValueError, match="net is called with a Cache"):
        check_told("net", ((), {"attention": {"cache": Cache()}}))
