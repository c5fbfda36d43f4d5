"""A cluster of Ray on this machine, which takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from zigzag.adapters.ray import connected


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[str]:
    """Its address; this process is connected to it."""
    if find_spec("ray") is None:  # imported it is below, which has something to say to it first
        pytest.skip("needs ray, which the extra ray brings")
    with connected("local") as ray:
        yield ray.get_runtime_context().gcs_address
