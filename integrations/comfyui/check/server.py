"""A ComfyUI server on loopback, with zigzag's nodes and the tiny networks, that is stopped in the end."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

__all__ = ["Failed", "Server", "serving"]

HERE = Path(__file__).parent
SECONDS = 600.0  # for the server to come up, and for a prompt


class Failed(RuntimeError):
    """Raised for a prompt that ComfyUI refused or could not execute, with its words."""


class Server(NamedTuple):
    """Where it is."""

    address: str

    def ask(self, path: str, body: object = None) -> Any:
        """The JSON at a path, or the answer to a JSON posted there."""
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(f"{self.address}{path}", data=data), timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except HTTPError as error:
            raise Failed(error.read().decode()) from error

    def post(self, prompt: dict[str, Any]) -> str:
        """Queues a prompt."""
        return str(self.ask("/prompt", {"prompt": prompt})["prompt_id"])

    def outputs(self, job: str) -> dict[str, Any]:
        """What the output nodes of a prompt showed, by node, when it is done.

        Raises:
            Failed: with the message of the node that failed, or of the interruption.
        """
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            history = self.ask(f"/history/{job}")
            if (entry := history.get(job)) and entry["status"]["status_str"]:
                for kind, said in entry["status"]["messages"]:
                    if kind in ("execution_error", "execution_interrupted"):
                        raise Failed(said.get("exception_message", kind))
                outputs: dict[str, Any] = entry["outputs"]
                return outputs
            time.sleep(0.02)
        raise TimeoutError(f"prompt {job} was not done after {SECONDS:g} s")


@contextmanager
def serving(checkout: Path, python: str) -> Iterator[Server]:
    """Starts the server of a checkout, in a folder of its own for everything that it writes, and stops it.

    Raises:
        RuntimeError: if it ends before it answers, with the last that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        base, log = Path(folder), Path(folder, "log")
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir()
        (base / "custom_nodes/zigzag").symlink_to(HERE.parent)
        (base / "custom_nodes/tiny").symlink_to(HERE / "tiny")
        (base / "input/example.png").write_bytes(picture(64))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", folder,
            "--database-url", "sqlite:///:memory:", "--disable-api-nodes", "--disable-auto-launch",
        ]  # fmt: skip
        path = os.pathsep.join([str(HERE.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        with (
            log.open("w") as said,
            subprocess.Popen(
                command, cwd=checkout, env=os.environ | {"PYTHONPATH": path}, stdout=said, stderr=said
            ) as process,
        ):
            try:
                server = Server(f"http://127.0.0.1:{port}")
                await_up(server, process, log)
                yield server
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def await_up(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for the first answer."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            server.ask("/object_info/ZigzagSampler")
            return
        except (URLError, ConnectionError):
            time.sleep(0.5)
    raise RuntimeError(f"ComfyUI did not come up; it said\n{log.read_text()[-3000:]}")


def picture(side: int) -> bytes:
    """A PNG of a gradient, its lower half transparent: what there is to be inpainted."""
    rows = b"".join(
        b"\0" + b"".join(bytes([4 * x % 256, 4 * y % 256, 128, 255 * (2 * y < side)]) for x in range(side))
        for y in range(side)
    )
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
