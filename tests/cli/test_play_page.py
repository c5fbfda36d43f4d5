"""The page of `zigzag play`, in a real browser: `make play` runs this, where gradio and Chromium are there."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[play]'")
pytest.importorskip("diffusers")
from support import chromium, gradio_page
from support.chromium import Tab
from support.play import problems, requested

pytestmark = pytest.mark.skipif(chromium.found() is None, reason="needs a Chromium")

WORDS = ("--model", "shapes-dit", "--steps", "4", "--rounds", "1", "--strong", "21")  # beyond the slider as it is else
DRAWN = "[...document.querySelectorAll('.zz-picture img')].filter(e => e.naturalWidth === 256).length"
STATUS = "document.querySelector('#status').innerText.trim()"


class Served(NamedTuple):
    """A page that is served, in a browser."""

    page: Tab
    address: str
    server: subprocess.Popen[str]
    folder: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("written")
    with gradio_page.served(*WORDS, folder=folder) as (server, address), chromium.chromium() as page:
        gradio_page.open_page(page, address)
        yield Served(page, address, server, folder)


def text(page: Tab, selector: str) -> str:
    return str(page.call("(selector) => document.querySelector(selector)?.innerText ?? ''", selector)).strip()


def test_the_first_pictures(served: Served) -> None:
    page = served.page
    page.click("#draw")
    page.until(f"{STATUS} === 'Done.'")
    page.until(f"{DRAWN} === 2")
    assert "Standard\n8 model rows" in text(page, "#said-standard")
    assert "Z-Sampling\n17 model rows" in text(page, "#said-zigzag")
    assert page.until("!!document.querySelector('#plot img')")
    assert text(page, "#path").splitlines()[0].strip() == "0 -> 1  ╲╱╲"
    command = shlex.split(" ".join(text(page, "#command .cm-content").split("\n")))
    assert command[:2] == ["zigzag", "generate"] and {"--method=z", "--steps=4", "--seed=42", "--strong=21.0"} <= {
        *command
    }


def test_an_error_is_said_in_words(served: Served) -> None:
    page = served.page
    page.fill("#prompt textarea", "a red cat")
    page.click("#draw")
    page.until(f"{STATUS}.startsWith(\"unknown word 'cat' in the prompt 'a red cat'; the words known are: a, and\")")
    page.fill("#prompt textarea", "a red circle")
    page.fill("#field-method_rounds input, #field-method_rounds textarea", "many")
    page.click("#draw")
    assert page.until(f"{STATUS}.includes('rounds') && {STATUS}") == "--rounds: invalid int value: 'many'"
    assert page.js("document.querySelector('#status [role=alert]') !== null")


def test_a_stop_ends_a_walk(served: Served) -> None:
    page = served.page
    page.fill("#field-method_rounds input, #field-method_rounds textarea", "2000")
    page.click("#draw")
    page.until("document.querySelector('#status').innerText.includes('Z-Sampling (rounds 2000): ')")
    page.click("#stop")
    page.until(f"{STATUS}.startsWith('Stopped: 1 of 2')", seconds=20)
    page.fill("#field-method_rounds input, #field-method_rounds textarea", "")
    page.click("#draw")
    page.until(f"{STATUS} === 'Done.'")


def test_another_method_has_its_own_options(served: Served) -> None:
    page = served.page
    page.click("#field-method input")
    page.until("[...document.querySelectorAll('[role=option]')].length > 3")
    page.js("[...document.querySelectorAll('[role=option]')].find(e => e.innerText.includes('z2')).id = 'z2'")
    page.click("#z2")
    page.until("!!document.querySelector('#field-method_warmup') && !document.querySelector('#field-method_span')")
    page.click("#draw")
    page.until(f"{STATUS} === 'Done.'")
    assert "Z²-Sampling" in text(page, "#said-zigzag")


def test_nothing_was_asked_of_another_machine_and_nothing_failed(served: Served) -> None:
    own = (served.address, "data:", "blob:")
    asked = requested(served.page)
    assert len(asked) > 10 and {address for address in asked if not address.startswith(own)} == set()
    assert problems(served.page) == []


def test_a_page_that_is_left_stops_its_walk(served: Served) -> None:
    page = served.page
    gradio_page.open_page(page, served.address)
    page.fill("#field-method_rounds input, #field-method_rounds textarea", "2000")
    page.click("#draw")
    page.until("document.querySelector('#status').innerText.includes('Z-Sampling (rounds 2000): ')")
    gradio_page.open_page(page, served.address)  # which would wait for the other, as one walk runs at a time
    page.click("#stop")
    page.until(f"{STATUS} === 'Nothing of this page is drawn now.'")
    page.click("#draw")
    page.until(f"{STATUS} === 'Done.'", seconds=20)


def test_ctrl_c_ends_it_in_one_line(served: Served) -> None:
    """In the middle of a walk too."""
    page, server = served.page, served.server
    assert len([*served.folder.rglob("*.png")]) > 2
    page.fill("#field-method_rounds input, #field-method_rounds textarea", "2000")
    page.click("#draw")
    page.until("document.querySelector('#status').innerText.includes('Z-Sampling (rounds 2000): ')")
    server.send_signal(signal.SIGINT)
    error = server.communicate(timeout=30)[1]
    assert server.returncode == 130
    assert error == "zigzag play: stopped; the page is closed\n"  # nor has it spoken to another machine
    assert not [*served.folder.glob("zigzag-play-*")]
