"""`zigzag.sample` with predictors whose rows are split, on every rank of a group; run by test_rows.py."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from support.ranks import SECONDS, main, raises, same_on_all
from zigzag import DDIM, ImplicitZ, Trace, Z2Sampling, ZSampling, sample, walk
from zigzag.capture.graphs import TableLoop
from zigzag.parallel import Ranks, rows_over

SOLVER = DDIM.stable_diffusion(4)
METHODS: list[Any] = [(ZSampling(), (1, 3, 4)), (Z2Sampling(warmup=1), (3,)), (ImplicitZ(), (3,))]


class Net:
    """A small network, the same on every rank, and what it was called with on this one."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        layers = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 1, 3, padding=1)
        self.net = torch.nn.Sequential(*layers).double()
        self.rows: list[int] = []
        self.branches: list[bool] = []  # whether the calls were conditional

    def __call__(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        assert len(x) == len(t) == len(cond["y"]) and cond.get("all", torch.ones(7)).shape == (7,)
        self.rows.append(len(x))
        self.branches.append(bool(cond["y"].any()))
        e: Tensor = self.net(x) + 0.1 * (cond["y"] * torch.cos(t / 100)).view(-1, 1, 1, 1)
        return e


def ranks(timeout: float = SECONDS) -> Ranks:
    """All, in a group of their own: an exchange that was not completed spoils no other."""
    return Ranks(dist.new_group(), timeout)


def given(batch: int, batched: bool) -> dict[str, Any]:
    """Noise and conditions; where the branches take two calls, with a leaf that has no rows."""
    y = torch.arange(1.0, batch + 1, dtype=torch.float64)
    shared = {} if batched else {"all": torch.ones(7)}
    x = SOLVER.noise((batch, 1, 8, 8), generator=torch.Generator().manual_seed(batch)).double()
    conditions = {"cond": {"y": y, **shared}, "uncond": {"y": 0 * y, **shared}}
    return {"x": x, "solver": SOLVER, "strong": 5.5, "batched": batched, **conditions}


def check_every_rank_ends_with_the_same_bits(rank: int, size: int) -> None:
    """And to rounding with those of the whole, in as many rows; a batch below, above, and no multiple of the ranks."""
    net, group = Net(), ranks()
    for method, batches in METHODS:
        for batch, batched in itertools.product(batches, (True, False)):
            own, other = Trace(), Trace()
            x0 = sample(net, **given(batch, batched), method=method, trace=own)
            split = sample(rows_over(net, group), **given(batch, batched), method=method, trace=other)
            assert same_on_all(split) and type(split) is Tensor, (method, batched, batch)
            torch.testing.assert_close(split, x0)
            assert other.rows == own.rows and [r.rows for r in other.records] == [r.rows for r in own.records]


def check_each_rank_makes_its_share_of_the_rows(rank: int, size: int) -> None:
    """Of a doubled batch, of two calls and of an inversion's one branch: `1/size` of all, which divides them."""
    for batched in (True, False):
        net = Net()
        sample(net, **given(4, batched), method=ZSampling())
        rows, net.rows = sum(net.rows), []
        sample(rows_over(net, ranks()), **given(4, batched), method=ZSampling())
        assert sum(net.rows) == rows / size


def check_two_calls_are_made_at_one_time(rank: int, size: int) -> None:
    """Of one sample: the first rank makes the first call, the second the other, and the bits are those of one rank."""
    net = Net()
    x0 = sample(net, **given(1, batched=False), method=Z2Sampling(warmup=1))
    net.branches.clear()
    split = sample(rows_over(net, ranks()), **given(1, batched=False), method=Z2Sampling(warmup=1))
    assert torch.equal(split, x0)
    # The first call is made by all of them, so that they see what it gives, and the second before there is a third.
    conditional, count = sum(net.branches), len(SOLVER)
    expected = {0: (1, count), 1: (count - 1, 1)}
    assert (conditional, len(net.branches) - conditional) == expected.get(rank, (0, 1))


def check_another_predictor_for_the_weak_ones(rank: int, size: int) -> None:
    """Whose rows are split too, in a walk, whose every state is the same on all ranks."""
    strong, weak, group = Net(), Net(1), ranks()
    arguments = given(2, batched=False) | {"method": ZSampling()}
    wholes = [visit.state for visit in walk(strong, weak_fn=weak, **arguments)]
    split = [v.state for v in walk(rows_over(strong, group), weak_fn=rows_over(weak, group), **arguments)]
    for x, y in zip(wholes, split, strict=True):
        assert same_on_all(y)
        torch.testing.assert_close(y, x)


def check_a_dimension_of_a_mesh(rank: int, size: int) -> None:
    """Two ranks by as many as there are: each pair has a sample of its own."""
    mesh, net = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("samples", "cfg")), Net()
    mine = mesh["samples"].get_local_rank() + 1
    x0 = sample(net, **given(mine, True), method=ZSampling())
    torch.testing.assert_close(sample(rows_over(net, mesh["cfg"]), **given(mine, True), method=ZSampling()), x0)
    with raises(ValueError, "one dimension of a mesh"):
        rows_over(net, mesh)


def check_inference_mode_and_tables(rank: int, size: int) -> None:
    """Also the loop on tables gives the same to rounding."""
    net, group = Net(), ranks()
    for batched in (True, False):
        arguments = given(2, batched) | {"method": ZSampling()}
        x0 = sample(net, **arguments)
        with torch.inference_mode():
            torch.testing.assert_close(sample(rows_over(net, group), **arguments).clone(), x0)
        loop = TableLoop(rows_over(net, group), **arguments)
        for _ in range(2):
            torch.testing.assert_close(loop(arguments["x"]), x0)


def check_gradients_are_refused(rank: int, size: int) -> None:
    with raises(RuntimeError, "eps_fn would record gradients", "grad=False"):
        sample(rows_over(Net(), ranks()), **given(2, True), method=ZSampling(), grad=True)


def check_a_rank_that_raises(rank: int, size: int) -> None:
    """All raise, that one what it raised, and long before the time is up; nothing more is called then."""
    net = Net()

    def fails(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        if rank == size - 1 and float(t[0]) < 500:
            raise LookupError("no luck here")
        return net(x, t, cond)

    split, begin = rows_over(fails, ranks()), time.monotonic()
    told = f"rank {size - 1} of {size} raised LookupError: no luck here"
    with raises(LookupError, "no luck here") if rank == size - 1 else raises(RuntimeError, told):
        sample(split, **given(size, True), method=ZSampling())
    with raises(RuntimeError, "do not go together any more", told):
        sample(split, **given(size, True), method=ZSampling())
    assert time.monotonic() - begin < SECONDS / 2


def check_other_numbers_are_seen(rank: int, size: int) -> None:
    """Noise of another seed on one rank, which would be an image of neither."""
    arguments = given(2, True)
    arguments["x"] = arguments["x"] + (rank == size - 1) * 1e-12
    with raises(RuntimeError, f"ranks {size - 1} call eps_fn on 4 rows with other numbers than rank 0", "same noise"):
        sample(rows_over(Net(), ranks()), **arguments, method=ZSampling())


def check_other_calls_are_seen(rank: int, size: int) -> None:
    """One rank looks at a prediction before the others do, or samples another batch."""
    split, (x, t) = rows_over(Net(), ranks()), (torch.ones(1, 1, 8, 8).double(), torch.full((1,), 3))
    cond = {"y": torch.ones(1).double()}
    with torch.no_grad():
        split(x, t, cond)
        one = split(x, t, cond)
        if rank == 0:
            with raises(RuntimeError, "do not make the same calls", f"rank {size - 1} calls eps_fn on 1 rows, eps_fn"):
                one.sum()
        else:
            two = split(x, t, cond)
            with raises(RuntimeError, "do not make the same calls", "rank 0 calls eps_fn on 1 rows"):
                two.sum()


def check_a_rank_that_does_not_come(rank: int, size: int) -> None:
    """It raises outside of a call, which nobody is told: the others wait for as long as they were told to."""

    def callback(visit: Any) -> None:
        if rank == 0 and visit.knot == 2:
            raise LookupError("no luck here")

    split, begin = rows_over(Net(), ranks(timeout=3)), time.monotonic()
    with raises(RuntimeError, "waited for the others, for 3 s") if rank else raises(LookupError, "no luck"):
        sample(split, **given(2, True), method=ZSampling(), callback=callback)
    assert time.monotonic() - begin < SECONDS / 2


def check_a_rank_that_is_killed(rank: int, size: int) -> None:
    """The others raise; to be the last check."""

    def callback(visit: Any) -> None:
        if rank == size - 1 and visit.knot == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    split, begin = rows_over(Net(), ranks()), time.monotonic()
    with raises(RuntimeError, "waited for the others"):
        sample(split, **given(2, True), method=ZSampling(), callback=callback)
    assert time.monotonic() - begin < SECONDS / 2


if __name__ == "__main__":
    main({name: check for name, check in globals().items() if name.startswith("check_")})
