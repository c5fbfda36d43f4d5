"""The page to play with, where `make web` has made it, and what its tests do with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from support import chromium
from support.chromium import Tab
from zigzag.zoo.export_web import PAGE

FOLDER = Path(__file__).parents[2] / "build/site/play"


def absent() -> str | None:
    """Why the page cannot be opened."""
    if chromium.found() is None:
        return "needs a Chromium"
    source = files("zigzag.zoo.web").joinpath("page")
    for name in PAGE:
        if not (FOLDER / name).is_file() or (FOLDER / name).read_bytes() != source.joinpath(name).read_bytes():
            return f"{FOLDER} has no page, or an older one: make web"
    return None


needs_page = pytest.mark.skipif(absent() is not None, reason=str(absent()))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *of: Any) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    """The page on this machine's own address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(FOLDER)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def open_page(tab: Tab, url: str, **settings: object) -> None:
    """Opens the page with settings in its address, and waits until what it does first is done."""
    tab.open(f"{url}index.html#{urlencode(settings)}")
    tab.js("started")


def go(tab: Tab, **settings: object) -> None:
    """Changes the settings in the address of the page that is open, and waits until it has drawn by them."""
    tab.call(
        """async (hash) => {
          history.replaceState(null, "", location.pathname);
          const heard = new Promise((then) => addEventListener("hashchange", then, { once: true }));
          location.hash = hash;
          await heard;
          await underWay;
        }""",
        urlencode(settings),
    )


def status(tab: Tab) -> str:
    return str(tab.js("document.getElementById('status').textContent"))


def problems(tab: Tab) -> list[dict[str, Any]]:
    """What stands on the console."""
    return [
        event
        for event in tab.events
        if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    ]


def requested(tab: Tab) -> set[str]:
    sent = [event["params"]["request"]["url"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]
    return set(sent)
