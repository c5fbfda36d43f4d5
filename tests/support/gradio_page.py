"""The page of `zigzag play`, served by a process of its own; run as a script, it makes the picture of the docs.

PYTHONPATH=tests python -m support.gradio_page docs/images/play.png
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from support import chromium
from support.chromium import Tab
from support.play import requested

# The command, in a process that says to which other machines it speaks.
TOLD = """
import sys
def hook(event, given):
    to = given[1] if event == "socket.connect" else given[0] if event == "socket.getaddrinfo" else None
    host = to[0] if isinstance(to, tuple) else to
    if host is not None and str(host).strip("b'") not in ("127.0.0.1", "localhost", "::1", ""):
        print("spoke to", to, file=sys.stderr, flush=True)
sys.addaudithook(hook)
from zigzag.cli import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def served(*words: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and its address.

    Args:
        words: of the command line. folder: for what it writes while it runs.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", TOLD, "play", "--port", "0", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding="utf-8", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "TMPDIR": str(folder)},
    )  # fmt: skip
    try:
        assert server.stdout is not None and server.stderr is not None
        line = server.stdout.readline()
        found = re.fullmatch(r"zigzag play: (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)
        assert found, line + server.stderr.read()
        yield server, found[1]
    finally:
        server.kill()
        server.communicate()


def open_page(page: Tab, address: str) -> None:
    """Opens the page, and waits until it listens: it then keeps a connection, by which the server knows of it."""
    page.look(1280, 1400)
    page.events.clear()
    page.open(address)
    page.until("!!document.querySelector('#draw')")
    end = time.monotonic() + 60
    while not any("/heartbeat/" in request for request in requested(page)):
        assert time.monotonic() < end, "the page does not begin"
        page.js("new Promise((then) => setTimeout(then, 100))")


def shoot(file: Path) -> None:
    """Draws the first pictures of the page, and takes one of it."""
    words = ("--model", "shapes-dit", "--method", "z", "--steps", "20", "--weak", "0")
    with (
        TemporaryDirectory() as folder,
        served(*words, folder=Path(folder)) as (_, address),
        chromium.chromium() as page,
    ):
        open_page(page, address)
        page.click("#draw")
        page.until("document.querySelector('#status').innerText.trim() === 'Done.'")
        page.until("!!document.querySelector('#plot img')")
        page.look(1280, 1560)
        page.js("scrollTo(0, 0)")
        page.js("new Promise((then) => setTimeout(then, 500))")
        page.shoot(file)


if __name__ == "__main__":
    shoot(Path(sys.argv[1]))
