"""The prior of a pipeline that samples twice: whose other half is led."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["prior_of"]


def prior_of(pipe: Any) -> nn.Module | None:
    """The network that a pipeline samples with first, along a scheduler of its own beside its `scheduler`; or None.

    A combined pipeline has its prior's parts under their own names (`prior_prior`), StableUnCLIP its `prior`.
    """
    name = "prior_prior" if hasattr(pipe, "prior_prior") else "prior"
    found = getattr(pipe, name, None) if hasattr(pipe, "prior_scheduler") else None
    return found if isinstance(found, nn.Module) else None
