"""The whole public API: built in any mode it is what it is otherwise, and it wants no float64 where its data is."""

from __future__ import annotations

import pytest
import torch

import zigzag
from support.devices import MODES, NoFloat64
from support.uses import USES, seeded
from zigzag import guidance, solvers, zoo
from zigzag.solvers.affine import wide

X = torch.randn(2, 1, 8, 8, generator=seeded())


def test_every_public_name_is_in_the_sweep() -> None:
    swept = {word for key in USES for word in key.partition(" (")[0].split()}
    public = {*zigzag.__all__, *solvers.__all__, *guidance.__all__, *zoo.__all__}
    assert public - swept == {"cite"}  # a text


@pytest.mark.filterwarnings("ignore:.*did not converge")  # nothing is read but zeros
@pytest.mark.parametrize("name", USES)
def test_nothing_is_float64_on_a_device_without_it(name: str) -> None:
    """Built on the host, as grids are, used on the device: all of it in the mode, but for the host's own float64."""
    with NoFloat64():
        out = USES[name]()(X.to("meta"))
    assert out.device.type == "meta" and out.dtype == torch.float32


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", USES)
def test_what_is_built_in_a_mode_gives_the_same_outside_of_it(name: str, mode: str) -> None:
    wanted = USES[name]()(X)
    with MODES[mode]():
        use = USES[name]()
    x = X.clone().requires_grad_()
    found = use(x)
    assert found.device.type == "cpu" and not found.is_inference()
    torch.testing.assert_close(found.detach(), wanted.detach(), rtol=0, atol=0)
    if found.requires_grad:
        found.sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None and bool(x.grad.isfinite().all())


@pytest.mark.parametrize("mode", ["inference mode", "meta device", "bfloat16 by default"])
@pytest.mark.parametrize("name", USES)
def test_what_is_used_in_a_mode_is_the_same_and_leaves_nothing_of_it_behind(name: str, mode: str) -> None:
    """All that is kept from the first use on is ordinary: a validation step, and training after it."""
    wanted, use = USES[name]()(X), USES[name]()
    with MODES[mode]():
        found = USES[name]()(X)
        use(X)
    torch.testing.assert_close(found.clone(), wanted, rtol=0, atol=0)
    x = X.clone().requires_grad_()
    again = use(x)
    torch.testing.assert_close(again.detach(), wanted.detach(), rtol=0, atol=0)
    if again.requires_grad:
        again.sum().backward()  # type: ignore[no-untyped-call]


def test_data_may_lie_on_a_device_without_float64() -> None:
    means = torch.rand(2, 3, device="meta")
    with NoFloat64():
        assert wide(means.device) == torch.float32
    assert wide(X.device) == torch.float64
