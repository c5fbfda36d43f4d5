"""How long the page takes, as `docs/play.md` says it: printed, with the machine and the browser."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import pytest
import torch

pytest.importorskip("diffusers")
from support.chromium import Tab
from support.play import FOLDER, go, needs_page, open_page
from zigzag import Standard, sample, zoo
from zigzag.support.machine import machine

pytestmark = needs_page
METHODS = ("standard", "resampling", "end-to-end", "z", "implicit", "z2:warmup=2")


@cache
def model() -> zoo.LearnedModel:
    return zoo.load("shapes-dit")


def seconds_in_torch(seed: int) -> float:
    """Of a standard image of 10 steps."""
    solver, threads = model().solver(10), torch.get_num_threads()
    x_T = solver.noise((1, *model().shape), generator=torch.Generator().manual_seed(seed))
    cond, uncond = model().encode("a red circle and a blue square"), model().encode("")
    torch.set_num_threads(1)
    start = perf_counter()
    sample(model().eps_fn, x_T, solver, Standard(), cond=cond, uncond=uncond, strong=2.0)
    seconds = perf_counter() - start
    torch.set_num_threads(threads)
    return seconds


def test_times_are_printed(browser: Tab, site: str, capsys: pytest.CaptureFixture[str]) -> None:
    open_page(browser, site, method="standard", steps=10)
    product = browser.send("Browser.getVersion")["product"]
    # What the page was at when it was ready to draw: its parts loaded and unpacked, the network started.
    ready = browser.js("performance.getEntriesByName('ready')[0].startTime")
    lines = [f"from opening the page to a network that draws: {ready / 1000:.1f} s"]
    beside = []
    for method in METHODS:
        seconds = []
        for seed in range(3):
            beside.append(seconds_in_torch(seed))
            go(browser, method=method, steps=10, seed=seed)
            which = "standard" if method == "standard" else "other"
            rows, _, time = browser.js(f"document.querySelector('#{which} .cost').textContent").partition(" rows, ")
            seconds.append(float(time.removesuffix(" s")))
        lines.append(f"{method:<14}{rows:>4} rows {min(seconds):>6.1f} s an image of 10 steps (the fastest of 3)")
    lines.append(f"{'torch':<14}{'20':>4} rows {min(beside):>6.1f} s the same, standard, in torch on one thread")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    with capsys.disabled():
        print(f"\n{product}, {machine()}; {size / 1e6:.1f} MB", *lines, sep="\n")
    assert ready > 0 and all("0.0 s" not in line for line in lines)
