"""The controls of the page: only captions, refusals in words, and usable by keyboard, by ear and on a phone."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
from support.chromium import Tab
from support.play import go, needs_page, open_page, status
from zigzag.cli import main
from zigzag.zoo.shapes import CATEGORIES
from zigzag.zoo.shapes.grammar import captions

pytestmark = needs_page


def test_every_caption_can_be_chosen_and_nothing_else(page: Tab) -> None:
    every = [str(caption) for category in CATEGORIES for caption in captions(category)]
    assert page.js("TABLES.captions.map(({ text }) => { choosePrompt(text); return chosenCaption().text; })") == every
    chosen = page.js(
        """Array.from({ length: 500 }, function () {
          for (const name of FIELDS) field(name).selectedIndex = this.word() % field(name).options.length;
          return chosenCaption().text;
        }, new Generator(0))"""
    )
    assert set(chosen) <= set(every) and len(set(chosen)) > 50


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "euler"}, "method=euler, which this page has not"),
        ({"method": "z:span=2"}, "method=z:span=2, which this page has not"),
        ({"steps": "7"}, "steps=7, which this page has not"),
        ({"strong": "much"}, "strong=much, which this page has not"),
        ({"model": "sdxl"}, "The address says model"),
    ],
)
def test_an_address_with_what_it_does_not_have_is_refused_in_words(
    page: Tab, settings: dict[str, str], said: str
) -> None:
    go(page, **settings)
    assert said in status(page)


def test_a_prompt_outside_of_the_grammar_is_not_drawn(browser: Tab, site: str) -> None:
    open_page(browser, site, prompt="a purple dog")
    assert "“a purple dog” is not one of the captions" in status(browser)
    assert browser.js("document.querySelector('#standard canvas').getAttribute('aria-label')") == "Not drawn yet"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "z2:warmup=3,steps=2", "steps": 8}, "never shifts"),
        ({"method": "z:steps=9", "steps": 8}, "λ: "),
        ({"strong": "99"}, "Strong scale: "),
        ({"seed": "4294967296"}, "Seed: "),
    ],
)
def test_settings_out_of_range_are_refused_in_words(page: Tab, settings: dict[str, object], said: str) -> None:
    go(page, **{"method": "standard", "strong": 2, "seed": 0, **settings})
    assert said in status(page)


def test_the_address_and_the_command_line_say_what_was_drawn(page: Tab) -> None:
    chosen = {
        "prompt": "two squares",
        "method": "z2:warmup=2,steps=5",
        "steps": "6",
        "strong": "3",
        "weak": "0.5",
        "seed": "7",
    }
    go(page, **chosen)
    assert page.js("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))") == chosen
    assert page.js("document.getElementById('command').textContent") == (
        'zigzag generate --model shapes-dit --prompt "two squares" --method z2 --warmup 2 --lambda 5 '
        "--steps 6 --strong 3 --weak 0.5 --seed 7"
    )


# The pixels of a picture, as the screen shows them.
PIXELS = """(id) => {
  const { data } = part(id, "canvas").getContext("2d").getImageData(0, 0, 32, 32);
  return Array.from({ length: 32 * 32 }, (_, p) => [...data.slice(4 * p, 4 * p + 3)]);
}"""


def test_the_command_line_draws_the_same_two_pictures(page: Tab, tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    go(page, prompt="a green triangle", method="resampling:steps=2", steps=6, strong=2, weak=0, seed=11)
    words = shlex.split(page.js("document.getElementById('command').textContent"))
    assert words[0] == "zigzag" and main([*words[1:], "--out", str(tmp_path)]) == 0
    drawn = {"other" if "resampling" in file.name else "standard": file for file in tmp_path.glob("*.png")}
    assert len(drawn) == 2
    for which, file in drawn.items():
        small = pil.open(file).convert("RGB").resize((32, 32), pil.Resampling.NEAREST)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(-1, 3).int()
        assert (pixels - torch.tensor(page.call(PIXELS, which))).abs().max() <= 1


def test_it_is_worked_by_keyboard(page: Tab) -> None:
    go(page, prompt="a circle", method="z:steps=1", steps=4)
    page.js("{ const { body } = document; body.tabIndex = -1; body.focus(); body.removeAttribute('tabindex'); }")
    reached: list[str] = []
    for _ in range(30):
        page.press("Tab")
        reached.append(page.js("document.activeElement.name || document.activeElement.id"))
    # Those that mean nothing to this caption and this method are passed over.
    controls = ["count", "colour", "shape", "relation", "method", "steps", "lambda", "strong", "weak", "seed", "draw"]
    assert reached[: len(controls) + 1] == [*controls, "next"]
    assert "copy" in reached
    page.js("field('seed').focus(); field('seed').select()")
    page.press("9", "Enter")
    page.js("underWay")
    assert "seed=9" in page.js("location.hash") and status(page).startswith("Drawn")
    page.js("document.getElementById('next').focus()")
    page.press(" ")
    page.js("underWay")
    assert "seed=10" in page.js("location.hash")
    outline = page.js("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_what_can_be_used_has_a_name_and_what_changes_is_told(page: Tab) -> None:
    go(page, steps=4, method="standard")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    used = [
        node for node in nodes if node.get("role", {}).get("value") in ("combobox", "spinbutton", "button", "image")
    ]
    names = [node["name"]["value"] for node in used]
    assert len(names) > 12 and all(names) and any("the checker sees" in name for name in names)
    assert page.js("document.getElementById('status').getAttribute('role')") == "status"


def test_stop_stops_and_drawing_goes_on_from_there(page: Tab) -> None:
    go(page, steps=4, method="standard")
    page.js("field('steps').value = 30; document.getElementById('draw').click()")
    assert (
        page.js("new Promise((then) => setTimeout(() => then(document.getElementById('stop').disabled), 50))") is False
    )
    page.js("document.getElementById('stop').click()")
    page.js("underWay")
    assert status(page) == "Stopped."
    assert page.js("document.activeElement.id") == "draw"
    page.js("field('steps').value = 4; document.getElementById('draw').click()")
    page.js("underWay")
    assert status(page).startswith("Drawn")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_is_legible_in_either_scheme(page: Tab, scheme: str) -> None:
    page.look(375, 812, scheme)
    try:
        go(page, prompt="a magenta triangle right of a yellow square", method="z", steps=6)
        assert page.js("document.documentElement.scrollWidth") <= 375
        edges = page.js(
            """[...document.querySelectorAll("select, input, button, canvas")].filter((e) => e.checkVisibility())
            .map((e) => e.getBoundingClientRect()).map(({ left, right, height }) => [left, right, height])"""
        )
        assert all(left >= 0 and right <= 375 and height >= 40 for left, right, height in edges)
        contrasts = page.call(CONTRASTS)
        assert {text: ratio for text, ratio in contrasts if ratio < 4.5} == {}
        assert len(contrasts) > 20
    finally:
        page.look(1280, 900)


# Of each text that is shown and can be used, its contrast with the ground behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3)
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (e) => {
    const colour = getComputedStyle(e).backgroundColor;
    return numbers(colour)[3] === 0 && e.parentElement ? ground(e.parentElement) : colour;
  };
  const shown = [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && !e.disabled &&
    [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return shown.map((e) => {
    const style = getComputedStyle(e);
    const [one, other] = [light(e.namespaceURI.endsWith("svg") ? style.fill : style.color), light(ground(e))];
    return [e.textContent.trim().slice(0, 30), (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)];
  });
}"""
