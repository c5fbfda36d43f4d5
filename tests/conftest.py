"""Settings that all tests share."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# Before anything imports them: the checks in these helpers then fail with the values that they compared.
pytest.register_assert_rewrite("support")

# The same examples on every run: a failure in CI is a failure at home.
settings.register_profile("zigzag", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("zigzag")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
