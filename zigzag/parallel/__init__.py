"""One model on several devices: the rows of its calls are split over the ranks of a torch.distributed group."""

from zigzag.parallel.ranks import Ranks
from zigzag.parallel.rows import rows_over

__all__ = ["Ranks", "rows_over"]
