"""Engines that run cells: one process, a share of several that know nothing of one another, or Ray's actors.

What a cell is, is said in `zigzag.evaluation.cells`. Its result is named by all that it depends on and written
whole, so whatever engine runs it, with however many workers, writes the same files; whatever is stopped goes on with
the cells that are not done.
"""

from zigzag.evaluation.engines.completing import complete, left_of
from zigzag.evaluation.engines.failures import Failed, Failure, Refused
from zigzag.evaluation.engines.options import add_engine_options, meet, sharing
from zigzag.evaluation.engines.running import run
from zigzag.evaluation.engines.shards import Shard, shard_of, share

__all__ = [
    "Failed", "Failure", "Refused", "Shard", "add_engine_options", "complete", "left_of", "meet", "run", "shard_of",
    "share", "sharing",
]  # fmt: skip
