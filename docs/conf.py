"""How Sphinx builds the site: ``python -m sphinx -W --keep-going docs site``. Nothing is fetched while it builds."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from coordsim import __version__  # noqa: E402 (the path above comes first)

project = "coordsim"
author = "The coordsim founders"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
exclude_patterns = ["_ext", "_static"]
source_suffix = {".md": "markdown"}
root_doc = "index"

myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_mock_imports = [] if find_spec("torch") else ["torch"]
"""The signatures of ``real_backend`` name types of torch; its documentation can be built without torch."""

html_theme = "furo"
html_title = f"coordsim {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
