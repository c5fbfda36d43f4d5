"""What `import zigzag` costs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("diffusers", "matplotlib", "transformers", "sklearn", "scipy", "tqdm", "triton", "PIL", "ray")


def test_import_brings_nothing_heavier_than_torch() -> None:
    """Of the heavy modules, `import zigzag` loads none that `import torch` did not."""
    code = (
        "import sys, torch; before = set(sys.modules); import zigzag, zigzag.zoo, zigzag.cli; "
        f"new = {{m.split('.')[0] for m in set(sys.modules) - before}}; print(sorted(new & set({HEAVY!r})))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_import_does_not_start_cuda() -> None:
    code = "import zigzag, torch; print(torch.cuda.is_initialized())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_import_adds_less_than_a_tenth_of_a_second_to_torch() -> None:
    """`-X importtime`: the cumulative time of zigzag, minus that of the torch inside it; the least of five."""
    assert min(seconds_over_torch() for _ in range(5)) < 0.1


def seconds_over_torch() -> float:
    # A pass of the collector over all of torch's objects is in the time of whichever module it falls into.
    command = [sys.executable, "-X", "importtime", "-c", "import gc; gc.disable(); import torch, zigzag"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    for line in report.splitlines():
        _, cumulative, module = line.removeprefix("import time:").split("|")
        if module.strip() == "zigzag":
            return int(cumulative) / 1e6
    raise AssertionError("zigzag is not in the report")
