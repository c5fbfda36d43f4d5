"""The picture of the architecture in docs/design.md is what the imports are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/design.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "zigzag"


def layers() -> dict[str, int]:
    """The parts in the picture, with the line that each stands in, from the bottom."""
    (picture,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    lines = [re.split(r"\s{2,}", line)[0].split(" · ") for line in reversed(picture.splitlines())]
    return {part: height for height, line in enumerate(lines) for part in line}


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """The parts of the package that a file imports, inside of functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "zigzag":
            names |= {f"zigzag.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    inside = (name.split(".") for name in names)
    return {words[1] for words in inside if words[0] == "zigzag" and len(words) > 1} & set(PARTS)


FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if part_of(file) not in ("__init__", "__main__")]
PARTS = sorted({part_of(file) for file in FILES})


def wrong(part: str, others: set[str], heights: dict[str, int]) -> set[str]:
    """What a part imports that does not stand below it."""
    return {other for other in others - {part} if heights[other] >= heights[part]}


def test_the_picture_has_every_part_once() -> None:
    assert sorted(layers()) == PARTS, "draw each part of the package into the picture of docs/design.md"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_from_below_it_only(part: str) -> None:
    heights = layers()
    for file in (file for file in FILES if part_of(file) == part):
        assert not wrong(part, imported(ast.parse(file.read_text(encoding="utf-8"))), heights), file


def test_an_import_from_above_or_beside_would_show() -> None:
    heights = layers()
    for code in ("from zigzag.sampling import walk", "import zigzag.sampling", "from zigzag import methods"):
        assert wrong("moves", imported(ast.parse(f"def late():\n    {code}")), heights)
    assert wrong("roles", {"visits"}, heights)
    assert not wrong("moves", {"strengths", "solvers"}, heights)
