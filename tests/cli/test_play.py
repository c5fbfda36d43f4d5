"""`zigzag play` as it begins, without a page: what it refuses, each in one line."""

from __future__ import annotations

import importlib
import socket
import sys

import pytest

from zigzag.cli import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["play", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    return error


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zigzag.cli.generate_learned.load", None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(capsys, "--port", str(port))
    assert f"port {port} of 127.0.0.1 is not to be had (Address already in use): pass another --port" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "65536"), "port must be from 0 to 65535, got 65536"),
        (("--port", "-1"), "port must be from 0 to 65535, got -1"),
        (("--host", "no such host"), "host no such host is not to be had"),
        (("--host", "192.0.2.1"), "of 192.0.2.1 is not to be had"),
        (("--steps", "0"), "steps must be at least 1, got 0"),
        (("--method", "z2", "--span", "2"), "--span means nothing to z2"),
        (("--image-size", "64"), "--image-size means nothing to shapes-dit"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, *words)


def test_without_gradio_the_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("zigzag.cli.generate_learned.load", None)
    assert "a page needs gradio: pip install 'zigzag-diffusion[play]'" in refused(capsys, "--port", "0")


def test_a_proxy_is_no_way_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.request import proxy_bypass_environment

    from zigzag.cli.play import _unproxied

    monkeypatch.setenv("http_proxy", "http://elsewhere:3128")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("no_proxy", _unproxied("10.0.0.1"))
    assert all(proxy_bypass_environment(host) for host in ("127.0.0.1", "localhost", "10.0.0.1", "example.org"))
    assert not proxy_bypass_environment("example.com")


def test_nothing_but_the_command_imports_gradio() -> None:
    importlib.import_module("zigzag.cli.play")
    assert "gradio" not in sys.modules
