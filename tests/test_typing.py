"""The script that `make types` shows to the type checkers as a user's uses the whole public API."""

from __future__ import annotations

import ast
from pathlib import Path

import zigzag

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests/data/uses_everything.py"


def test_the_script_uses_every_public_name() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(zigzag.__all__) <= used


def test_the_checkers_are_shown_the_script() -> None:
    types = (ROOT / "Makefile").read_text(encoding="utf-8").split("types:")[1].split("\n\n")[0]
    assert "mypy" in types
    assert "pyright" in types
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for tool in ("tool.mypy", "tool.pyright"):
        section = settings.split(f"[{tool}]\n")[1].split("\n[")[0]
        assert "tests/data/uses_everything.py" in section
        assert "strict" in section
