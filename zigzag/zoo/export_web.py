"""`python -m zigzag.zoo.export_web`: a page that draws shapes in a browser, by `shapes-dit`, and needs no server."""

from __future__ import annotations

import base64
import gzip
import json
from importlib.resources import files
from pathlib import Path

from zigzag.support.commands import Parser, ending
from zigzag.support.files import check_writable, replacing
from zigzag.zoo.learned import load
from zigzag.zoo.web.network import network_bytes, require_onnx
from zigzag.zoo.web.runtime import FILES, PACKAGE, VERSION, runtime_files
from zigzag.zoo.web.tables import tables

__all__ = ["PAGE", "built", "main"]

MODEL = "shapes-dit"
PAGE = (
    "index.html", "page.css", "noise.js", "walk.js", "detector.js", "runtime.js", "controls.js", "plot.js", "page.js",
)  # fmt: skip
"""The files of the page that lie in the package; `data-*.js` come beside them."""


def built(runtime: Path | None = None) -> dict[str, bytes]:
    """The files of the page by name; the same inputs give the same bytes.

    All are scripts and text that a page may load from a disk: what is no text stands in them in base64, compressed.

    Args:
        runtime: a copy of onnxruntime-web, as for `zigzag.zoo.web.runtime.runtime_files`.

    Raises:
        ImportError: without onnx, onnxscript, diffusers or safetensors, naming the extra that brings them.
        OSError, RuntimeError, ValueError: where the runtime is not to be had, or is another.
    """
    require_onnx()  # before anything is downloaded
    script, wasm = (runtime_files(runtime)[name] for name in FILES)
    model = load(MODEL)
    table = json.dumps(tables(model), ensure_ascii=False, separators=(",", ":"))
    pages = files("zigzag.zoo.web").joinpath("page")
    ours = f"// {PACKAGE} {VERSION}, MIT licence, Copyright (c) Microsoft Corporation.\n"
    return {
        "data-tables.js": f"const TABLES = {table};\n".encode(),
        "data-network.js": _packed("NETWORK", network_bytes(model.network)),
        "data-runtime.js": ours.encode() + _packed("RUNTIME", script) + _packed("WASM", wasm),
        **{name: pages.joinpath(name).read_bytes() for name in reversed(PAGE)},
    }


def _packed(name: str, data: bytes) -> bytes:
    text = base64.b64encode(gzip.compress(data, mtime=0)).decode()
    return f'const {name} = "{text}";\n'.encode()


def main() -> None:
    """The command line; exits with 2 and one line on bad input, with 130 when interrupted."""
    parser = Parser(
        prog="python -m zigzag.zoo.export_web",
        description="Writes a page that draws shapes in a browser: open its index.html, from a disk or any web host.",
    )
    parser.add_argument("--out", type=Path, default=Path("build/site/play"), help="folder of the page")
    parser.add_argument(
        "--runtime", type=Path, help=f"a copy of {PACKAGE} {VERSION}, folder or archive (default: npm is asked for it)"
    )
    args = parser.parse_args()
    out: Path = args.out
    with ending(parser.prog, f"what {out} held before is as it was, or new, file by file"):
        check_writable(out)
        page = built(args.runtime)
        for name, data in page.items():
            with replacing(out / name) as temporary:
                temporary.write_bytes(data)
        print(f"wrote {out / 'index.html'}, {sum(map(len, page.values())) / 1e6:.1f} MB in {len(page)} files")


if __name__ == "__main__":
    main()
