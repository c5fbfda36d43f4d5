"""A predictor whose rows are split over ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from zigzag.model import Predictor
from zigzag.parallel.pool import Pool
from zigzag.parallel.ranks import Ranks, as_ranks
from zigzag.solvers.predictions import made_for_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["rows_over"]


def rows_over(eps_fn: Predictor, group: ProcessGroup | DeviceMesh | Ranks) -> Predictor:
    """The same predictor, each rank of the group making a share of the rows of its calls.

        x0 = sample(rows_over(eps_fn, mesh["cfg"]), x_T, solver, ZSampling(), cond=c, uncond=u)

    Every rank runs the same program with the same numbers, and ends with the same bits. Rows stand in one line, those
    of a doubled batch, or of both calls where the branches take two, and rank `k` of `R` makes those from `⌈M/R⌉·k` on,
    of `M`. Calls wait for that until one of their predictions is looked at. Rows in a trace are those of the whole.

    Args:
        eps_fn: as in `sample`. Leaves of its condition that have a row for each of `x` are split with it; others are
            given whole.
        group: of `torch.distributed`, or one dimension of a `DeviceMesh`; or `Ranks`, with a time limit.

    Raises:
        TypeError, ValueError: for what is no group of which this process is a rank.
        RuntimeError: from within a call: on all ranks, where one of them raised (which raises that itself), where they
            make other calls, or were given other numbers; where one does not come in time; where gradients are
            recorded, or a graph is captured.
    """
    if not callable(eps_fn):
        raise TypeError(f"eps_fn must be callable, got {eps_fn!r}")
    pool = Pool(as_ranks(group))

    def predict(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        e: Tensor = pool.call("eps_fn", eps_fn, (x, t, cond), {}, x)
        return e

    if (made := made_for_of(eps_fn)) is not None:
        predict.made_for = made  # type: ignore[attr-defined]
    return predict
