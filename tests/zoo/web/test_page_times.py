"""How long the page takes, as `docs/browser.md` says it: printed, with the machine and the browser.

In seconds of the processor, of the thread that draws, so that other work on the machine does not count.
"""

from __future__ import annotations

from time import thread_time

import pytest
import torch

pytest.importorskip("diffusers")
from support import chromium
from support.chromium import Tab
from support.play import FOLDER, needs_page, open_page
from zigzag import Standard, sample, zoo
from zigzag.support.machine import machine
from zigzag.zoo.learned import LearnedModel

pytestmark = needs_page
METHODS = ("standard", "resampling", "end-to-end", "z", "implicit", "z2:warmup=2")
STEPS, TIMES, PROMPT = 10, 3, "a red circle and a blue square"

DRAWN = """async (method, steps, text) => {
  const noise = () => new Generator(0).normal(3072);
  const caption = TABLES.captions.find((one) => one.text === text);
  return (await drawn(await started, pathOf(method, steps), caption, { strong: 2, weak: 0 }, noise(), noise)).rows;
}"""


def spent(tab: Tab) -> float:
    """Seconds of the processor that the page has had so far."""
    return float(
        next(its["value"] for its in tab.send("Performance.getMetrics")["metrics"] if its["name"] == "ThreadTime")
    )


def of_page(tab: Tab, method: str) -> tuple[int, float]:
    """The rows of an image, and the seconds that it takes."""
    before = spent(tab)
    rows = tab.call(DRAWN, method, STEPS, PROMPT)
    return rows, spent(tab) - before


def of_torch(model: LearnedModel) -> float:
    """The seconds of a standard image in torch, on one thread."""
    solver, x_T = model.solver(STEPS), torch.randn(1, *model.shape)
    given = {"cond": model.encode(PROMPT), "uncond": model.encode(""), "strong": 2.0}
    before = thread_time()
    sample(model.eps_fn, x_T, solver, Standard(), **given)
    return thread_time() - before


def test_times_are_printed(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, threads, least = zoo.load("shapes-dit"), torch.get_num_threads(), {}
    size = sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6
    with chromium.chromium() as tab:  # of its own: nothing has run in it
        tab.send("Performance.enable", timeDomain="threadTicks")
        open_page(tab, site, method="nothing to begin with")
        lines = [f"{tab.send('Browser.getVersion')['product']}, {machine()}"]
        lines.append(f"{size:.1f} MB, {spent(tab):.1f} s until it can draw")
        for method in METHODS:
            of_page(tab, method)  # the browser optimises what runs often
            rows, least[method] = min(of_page(tab, method) for _ in range(TIMES))
            lines.append(f"{method:<14}{rows:>3} rows{least[method]:>6.2f} s an image of {STEPS} steps")
    torch.set_num_threads(1)
    in_torch = min(of_torch(model) for _ in range(1 + TIMES))
    torch.set_num_threads(threads)
    lines.append(f"standard in torch on one thread: {in_torch:.2f} s, {least['standard'] / in_torch:.1f} times as fast")
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert min(least.values()) > 0
