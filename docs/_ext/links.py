"""Files outside of `docs/` are linked to as on GitHub; here they are pages."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

LINKS = {
    "](../../benchmarks/RESULTS.md": "](../results.md",
    "](../benchmarks/RESULTS.md": "](results.md",
    "](../README.md": "](index.md",
    "](../integrations/comfyui/README.md": "](comfyui.md",
    "](../../docs/": "](",
    "](example_workflows/": "](../integrations/comfyui/example_workflows/",
    "](CHANGELOG.md": "](changelog.md",
    "](CONTRIBUTING.md": "](contributing.md",
}


def point_here(app: Sphinx, *of: Any) -> None:
    """Turns the links of a page, or of a file that one includes, into links to pages. Its text comes last."""
    source: list[str] = of[-1]
    for link, page in LINKS.items():
        source[0] = source[0].replace(link, page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects it."""
    app.connect("source-read", point_here)
    app.connect("include-read", point_here)
    return {"parallel_read_safe": True}
