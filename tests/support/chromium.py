"""A headless Chromium, driven through a pipe by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from typing import Any

# The pipe is at the descriptors 3 and 4; nothing of the browser's own goes to a network.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


def found() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    """A tab: commands of the protocol, and the events that came meanwhile.

    Attributes:
        events: all so far, each with `method` and `params`.
    """

    def __init__(self, to: int, out: int) -> None:
        self._to, self._out, self._read, self._ids = to, out, b"", count(1)
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, /, seconds: float = 120, **params: Any) -> dict[str, Any]:
        """What the browser answers to a command."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data, until = json.dumps(message).encode() + b"\0", time.monotonic() + seconds
        while data:
            data = data[os.write(self._to, data) :]
        while (answer := self._next(until)).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            if not select([self._out], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("Chromium has not answered")
            if not (more := os.read(self._out, 1 << 20)):
                raise RuntimeError("Chromium has ended")
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def js(self, expression: str) -> Any:
        """The value of an expression on the page, of a promise when it is there."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        return answer["result"].get("value")

    def call(self, function: str, *given: Any) -> Any:
        """What a function on the page gives for values that JSON has."""
        return self.js(f"({function})(...{json.dumps(given)})")

    def open(self, url: str) -> None:
        """Opens a page, and waits until its scripts have run."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        until = time.monotonic() + 60
        while self.js("document.readyState + location.href.startsWith('about:')") != "completefalse":
            if time.monotonic() > until:
                raise TimeoutError(f"{url} does not load")
            time.sleep(0.05)

    def until(self, expression: str, seconds: float = 60) -> Any:
        """The value of an expression on the page, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {expression}\n{self.js('document.body.innerText')}")
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, as a hand would."""
        x, y = self.call(
            """(selector) => {
              const element = document.querySelector(selector);
              element.scrollIntoView({ block: "center" });
              const box = element.getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            }""",
            selector,
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def fill(self, selector: str, text: str) -> None:
        """Types a text in the place of what is in a field, and leaves it."""
        self.click(selector)
        self.call("(selector) => document.querySelector(selector).select()", selector)
        if text:
            self.send("Input.insertText", text=text)
        else:
            self.send("Input.dispatchKeyEvent", type="keyDown", key="Delete", windowsVirtualKeyCode=46)
        self.js("document.activeElement.blur()")

    def look(self, width: int, height: int, scheme: str = "light") -> None:
        """Sets the size of the window, in pixels, and the colours that the user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other: "Tab", "Enter", "ArrowDown", or a character."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40, " ": 32}
        for key in keys:
            text = {"Enter": "\r", "Tab": "", "ArrowDown": ""}.get(key, key)
            press = {"key": key, "text": text, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
            self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **press)
            self.send("Input.dispatchKeyEvent", type="keyUp", **press)

    def shoot(self, file: Path) -> None:
        """Writes a picture of the whole page, as PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(flags: Sequence[str] = ()) -> Iterator[Tab]:
    """A browser with an empty profile, and one tab."""
    program = found()
    if program is None:
        raise RuntimeError("there is no Chromium")
    (theirs, to), (out, back) = os.pipe(), os.pipe()

    def pipes() -> None:
        # By way of high numbers: what is now at 3 or 4 may be one of the four.
        for k, descriptor in ((103, theirs), (104, back)):
            os.dup2(descriptor, k)
        for k in (3, 4):
            os.dup2(100 + k, k)

    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, **quiet)  # type: ignore[call-overload]
        os.close(theirs)
        os.close(back)
        try:
            yield Tab(to, out)
        finally:
            # Its end of the pipe closed, the browser ends by itself.
            os.close(to)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(out)
