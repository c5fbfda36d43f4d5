"""Docstrings of this package as reStructuredText, and a build that fails where a public name has no entry."""

from __future__ import annotations

import importlib
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

# What users import from. Each name in their `__all__` has an entry under one of them.
PUBLIC = (
    "zigzag",
    "zigzag.solvers",
    "zigzag.guidance",
    "zigzag.strengths",
    "zigzag.presets",
    "zigzag.inversion",
    "zigzag.capture.graphs",
    "zigzag.zoo",
    "zigzag.zoo.shapes",
    "zigzag.evaluation.engines",
    "zigzag.testing",
    "zigzag.evaluation.prompts",
    "zigzag.evaluation.scorers",
    "zigzag.adapters.diffusers",
)


def mark_code(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A block that stands further in, after prose and a blank line, is code, as in Markdown."""
    marked: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if not before and starts_code(line, marked):
            marked += [f"{'    ' * (depth(line) // 4 - 1)}::", ""]
        marked.append(line)
    lines[:] = marked


def join_names(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Several attributes described in one line are one name to napoleon, which takes the first for a type."""
    if what in ("property", "attribute", "data") and lines:
        lines[0] = f": {lines[0]}"  # an empty type: or what stands before a colon would be taken for one
    inside = False
    for n, line in enumerate(lines):
        inside = line == "Attributes:" or (inside and (not line or line.startswith(" ")))
        if inside and (names := re.match(r"    \w+(, \w+)+(?=: )", line)):
            lines[n] = names[0].replace(", ", ",") + line[names.end() :]


def starts_code(line: str, above: list[str]) -> bool:
    """Whether a line after a blank one begins a block of code."""
    prose = next((text for text in reversed(above) if text), "")
    inside = depth(line) > depth(prose) and not prose.lstrip().startswith((".. ", ":"))
    return bool(line) and inside and not prose.endswith("::")


def depth(line: str) -> int:
    """How far in a line stands."""
    return len(line) - len(line.lstrip())


def check_public(app: Sphinx, env: Any) -> None:
    """Raises for a public name without an entry."""
    domain = env.get_domain("py")
    documented = {id(found) for name in domain.objects if (found := lookup(name)) is not None}
    missing = [
        f"{module}.{name}"
        for module in PUBLIC
        for name in importlib.import_module(module).__all__
        if f"{module}.{name}" not in domain.objects and id(lookup(f"{module}.{name}")) not in documented
    ]
    if missing:
        raise ExtensionError(f"public names without an entry in docs/reference: {', '.join(missing)}")


def lookup(name: str) -> Any:
    """The object of a dotted name, or None."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects all."""
    app.connect("autodoc-process-docstring", join_names, priority=400)
    app.connect("autodoc-process-docstring", mark_code, priority=400)  # before napoleon takes the sections apart
    app.connect("env-check-consistency", check_public)
    return {"parallel_read_safe": True}
