"""The page in a browser gives the library's numbers, asks nothing of a network, and says where it cannot run."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
from support import chromium
from support.chromium import Tab
from support.play import FOLDER, needs_page, open_page, problems, requested, status
from zigzag import Renoise, Solver, Trace, Visit, sample, zoo
from zigzag.evaluation.named import parse_method
from zigzag.zoo.export_web import PAGE
from zigzag.zoo.learned import LearnedModel
from zigzag.zoo.shapes import detect

pytestmark = needs_page


@pytest.fixture(scope="module")
def model() -> LearnedModel:
    return zoo.load("shapes-dit")


def exactly(
    model: LearnedModel, noises: list[Tensor], solver: Solver, method: Any, prompt: str, strong: float, weak: float
) -> Tensor:
    """The image in float64, from the first of the noises, with the others for what a Renoise draws."""
    wide = LearnedModel(model.name, deepcopy(model.network).double())
    x_T, *rest = (noise.double() for noise in noises)
    states = [x_T]

    def renoised(visit: Visit) -> Tensor | None:
        states.append(visit.state)
        if isinstance(visit.move, Renoise):
            states[-1] = solver.noise_step(visit.move.j, visit.move.i).forward(states[-2], rest.pop(0))
        return states[-1]

    end = sample(
        wide.eps_fn, x_T, solver, method, cond=model.encode(prompt), uncond=model.encode(""),
        strong=strong, weak=weak, callback=renoised,
    )  # fmt: skip
    return model.decode(end)


DRAWN = """async (method, steps, text, scales, noises) => {
  const network = await started;
  const caption = TABLES.captions.find((one) => one.text === text);
  const noise = () => Float32Array.from(noises.shift());
  const { x, records, rows } = await drawn(network, pathOf(method, steps), caption, scales, noise(), noise);
  const things = detect(decoded(x), TABLES.world);
  return { x: [...x], image: [...decoded(x)], records, rows, things };
}"""


@pytest.mark.parametrize(
    ("method", "steps", "strong", "weak"),
    [
        ("standard", 8, 2.0, 0.0),
        ("resampling:steps=4", 8, 2.0, 0.0),
        ("end-to-end", 6, 2.0, 0.0),
        ("z:steps=3", 8, 2.0, 0.0),
        ("z", 6, 3.0, 1.0),
        ("implicit:steps=4", 8, 2.0, -0.5),
        ("z2:warmup=2", 10, 2.0, 0.0),
    ],
)
def test_a_picture_is_that_of_sample_with_its_rows_its_trace_and_its_verdict(
    page: Tab, model: LearnedModel, method: str, steps: int, strong: float, weak: float
) -> None:
    prompt, solver, trace = "a red circle left of a blue square", model.solver(steps), Trace()
    generator = torch.Generator().manual_seed(3)
    noises = [torch.randn(1, *model.shape, generator=generator) for _ in range(1 + steps)]
    given = [noise.flatten().tolist() for noise in noises]
    got = page.call(DRAWN, method, steps, prompt, {"strong": strong, "weak": weak}, given)
    x_T = solver.noise(noises[0].shape, generator=generator.manual_seed(3))
    x = sample(
        model.eps_fn, x_T, solver, parse_method(method, steps), cond=model.encode(prompt), uncond=model.encode(""),
        strong=strong, weak=weak, generator=generator, trace=trace,
    )  # fmt: skip
    image = model.decode(x)
    # Nearer to what float64 gives than ten times as far as torch is in float32.
    exact = exactly(model, noises, solver, parse_method(method, steps), prompt, strong, weak)
    own = (image - exact).abs().max().item()
    assert (torch.tensor(got["image"]) - exact.flatten()).abs().max() <= 10 * own + 5e-6 < 1e-3
    assert got["rows"] == trace.rows
    for record, its in zip(trace.records, got["records"], strict=True):
        for name in ("delta", "tau1", "tau2"):
            value = getattr(record, name)
            assert its[name] == (None if value is None else pytest.approx(value.item(), rel=1e-3, abs=1e-5))
    seen = [(thing.shape, thing.colour) for thing in detect(image)[0]]
    assert [(thing["shape"], thing["colour"]) for thing in got["things"]] == seen


def test_nothing_is_asked_of_a_network_and_the_console_is_empty(page: Tab, site: str) -> None:
    page.events.clear()
    open_page(page, site, steps=4)
    assert status(page).startswith("Drawn")
    assert {url for url in requested(page) if not url.startswith((site, "blob:", "about:", "data:"))} == set()
    assert len(requested(page)) >= len(PAGE)
    assert problems(page) == []


def test_nothing_could_be_asked_of_one(page: Tab) -> None:
    """A request that a script of the page made would be held back by what the page says of itself."""
    forbidden = page.js(
        """new Promise((then) => {
          addEventListener("securitypolicyviolation", (event) => then(event.effectiveDirective), { once: true });
          fetch("https://example.invalid/").catch(() => {});
        })"""
    )
    assert forbidden == "connect-src"
    assert not any("example.invalid" in url for url in requested(page))
    page.events.clear()  # its complaint on the console


def test_it_opens_from_a_disk_too(browser: Tab) -> None:
    browser.events.clear()
    open_page(browser, FOLDER.as_uri() + "/", prompt="three circles", method="standard", steps=4)
    assert status(browser).startswith("Drawn: Standard is")
    assert {url for url in requested(browser) if not url.startswith(("file:", "blob:", "about:", "data:"))} == set()
    assert problems(browser) == []


BARE = {
    "delete globalThis.WebAssembly;": "This browser runs no WebAssembly",
    "delete globalThis.DecompressionStream;": "This browser is too old",
    "WebAssembly.instantiate = () => Promise.reject(new Error('no SIMD'));": "could not be started here: ",
}


@pytest.mark.parametrize("script", BARE)
def test_a_browser_that_cannot_run_it_gets_a_sentence(site: str, script: str) -> None:
    with chromium.chromium() as tab:
        tab.send("Page.addScriptToEvaluateOnNewDocument", source=script)
        open_page(tab, site)
        assert BARE[script] in status(tab) and re.search("Try a current Firefox", status(tab))
        assert tab.js("document.getElementById('status').classList.contains('problem')")
        assert tab.js("document.querySelector('#results').checkVisibility()") is ("started here" in BARE[script])
        assert not [event for event in problems(tab) if event["method"] == "Runtime.exceptionThrown"]


def test_the_controls_are_there_before_the_network_is(browser: Tab, site: str) -> None:
    browser.send("Fetch.enable", patterns=[{"urlPattern": "*/data-network.js"}])
    browser.send("Page.navigate", url=f"{site}index.html?slow")
    browser.until("document.getElementById('status')?.textContent === 'Loading the network…'")
    assert browser.js("document.querySelector('fieldset').checkVisibility() && field('shape').options.length > 2")
    browser.send("Fetch.disable")  # which lets it through
    browser.js("started")
    assert status(browser).startswith("Drawn")


def test_a_page_without_its_data_says_how_to_make_it(browser: Tab, tmp_path: Path) -> None:
    for name in PAGE:
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    open_page(browser, tmp_path.as_uri() + "/")
    assert "python -m zigzag.zoo.export_web" in status(browser)
    browser.events.clear()


def test_the_page_is_light_enough_to_load_in_seconds() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 30e6
