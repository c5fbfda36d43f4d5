"""The command that makes the page: the same files every time, whole or not at all, and one line where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("safetensors")
from zigzag.zoo import export_web
from zigzag.zoo.export_web import PAGE, main

RUNTIME = {"a.mjs": b"export {}", "b.wasm": b"\0asm"}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long, or comes from elsewhere, replaced."""
    monkeypatch.setattr(export_web, "require_onnx", lambda: None)
    monkeypatch.setattr(export_web, "FILES", tuple(RUNTIME))
    monkeypatch.setattr(export_web, "runtime_files", lambda package: RUNTIME)
    monkeypatch.setattr(export_web, "network_bytes", lambda network: b"onnx")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["export_web", *words])
    main()


def read(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_every_file_that_the_page_loads_is_written_and_the_same_twice(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        run(monkeypatch, "--out", str(tmp_path / name))
    files = read(tmp_path / "one")
    assert read(tmp_path / "two") == files
    page = files["index.html"].decode()
    loaded = {part.split('"')[0] for part in page.split('src="')[1:]} | {"page.css", "index.html"}
    assert loaded == files.keys() >= set(PAGE)
    assert f"wrote {tmp_path / 'one' / 'index.html'}" in capsys.readouterr().out


def test_a_fault_on_the_way_leaves_the_page_as_it_was(
    parts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "--out", str(tmp_path / "page"))
    before = read(tmp_path / "page")

    def damaged(name: str) -> None:
        raise ValueError("the weights are damaged")

    monkeypatch.setattr(export_web, "load", damaged)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--out", str(tmp_path / "page"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == "python -m zigzag.zoo.export_web: error: the weights are damaged\n"
    assert read(tmp_path / "page") == before


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_onnx_the_extra_is_named_before_anything_is_downloaded(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(export_web, "runtime_files", lambda package: pytest.fail("asked for"))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--out", str(tmp_path / "page"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"needs {package}, and Python 3.11: pip install 'zigzag-diffusion[web]'" in said and said.count("\n") == 1
    assert not list((tmp_path / "page").iterdir())


def test_a_folder_that_is_a_file_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        run(monkeypatch, "--out", str(tmp_path / "file"))
    assert "is a file, where a folder is wanted" in capsys.readouterr().err
