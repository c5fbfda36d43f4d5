"""Every pipeline class of the sweep, its rows split over two processes, against the same without.

    OMP_NUM_THREADS=1 PYTHONPATH=tests python tests/adapters/on_ranks_sweep.py [names…]

prints how far each is off, relatively, and the rows of the calls that were made together; or what was raised. It takes
minutes, and no test runs it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import diffusers
import swept_images
import swept_others
import swept_unets
import swept_videos
import torch.distributed as dist

from support.ranks import LIMIT, main, same_on_all
from zigzag import Standard, ZSampling
from zigzag.adapters.diffusers import attach
from zigzag.parallel import Ranks
from zigzag.parallel.pool import Pool

CLASSES = swept_unets.CLASSES | swept_images.CLASSES | swept_videos.CLASSES | swept_others.CLASSES


def check_class(name: str, together: list[list[int]]) -> str:
    """What came of one class, in a line."""
    case = CLASSES[name]()
    method = Standard() if case.refused or case.z_refused else ZSampling(steps=1)
    try:
        with attach(case.pipe, method) as run:
            whole = case.run()
        together.clear()
        with attach(case.pipe, method, split=Ranks(dist.new_group(), LIMIT)) as split:
            out = case.run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    assert same_on_all(out) and split.rows == run.rows
    made = " ".join("+".join(map(str, rows)) for rows in together)
    return f"off by {float((out - whole).norm() / whole.norm()):.1e}, made {made}"


def check_all(rank: int, size: int) -> None:
    together, make = list[list[int]](), Pool._make

    def noted(self: Pool, calls: Any) -> None:
        together.append([call.rows for call in calls])
        make(self, calls)

    Pool._make = noted  # type: ignore[method-assign]
    for name in names or CLASSES:
        said = check_class(name, together)
        if rank == 0:
            print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    names = sys.argv[1:]
    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        sys.argv[1:] = [folder, "2"]
        main({"all": check_all}, limit=1800)
        print((Path(folder) / "0 of 2.json").read_text())
    os._exit(0)
