"""Engines that run cells: one process, a share of several that know nothing of one another, or Ray's actors.

What a cell is, is said in `zigzag.evaluation.engines.cell`. Its result is named by all that it depends on and written
whole, so whatever engine runs it, with however many workers, writes the same files; whatever is stopped goes on with
the cells that are not done.
"""

from zigzag.evaluation.engines.cell import Cell, Failure, Worker
from zigzag.evaluation.engines.running import run
from zigzag.evaluation.engines.shards import Shard, shard_of, share, take_device, wait_for_others

__all__ = ["Cell", "Failure", "Shard", "Worker", "run", "shard_of", "share", "take_device", "wait_for_others"]
