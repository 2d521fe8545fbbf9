"""Sphinx's configuration: ``tox -e docs`` builds docs/_build/html, and fails on a warning."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from nestmmu import __version__

project = "nestmmu"
author = "The nestmmu developers"
copyright = "The nestmmu developers. Apache-2.0"  # noqa: A001  (Sphinx's name)
version = release = __version__

extensions = ["sphinx.ext.autodoc", "hook_pages"]
exclude_patterns = ["_build"]
templates_path: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"nestmmu {version}"
