# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of Sphinx for the documentation site, which ``scripts/build_site`` builds into build/site.

The source folder is the repository, so that the links between README, docs, notebooks and bundles are the same on the
site as in the repository. Sphinx and not MkDocs: MONAI uses it, the docstrings have its roles, and Material for MkDocs
ends in 2027. Nothing is loaded from the network at view time.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from monai_medpruner import __version__ as release  # noqa: E402

project = "monai_medpruner"
copyright = "monai_medpruner contributors. Apache-2.0. For research; not for clinical use"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "site_pages"]
root_doc = "README"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md"),
    *("docs/**.md", "notebooks/*.ipynb", "bundles/*/docs/README.md", "bundles/*/models/*/README.md"),
]
# folders that are not searched
exclude_patterns = [".*", "build", "out", "monai_medpruner", "tests", "benchmarks", "phantoms", "dist"]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
# the headings of the bundles' READMEs are those of MONAI's model zoo, which leave out a level
suppress_warnings = ["myst.header"]
highlight_language = "text"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# fields of a NamedTuple are documented once
napoleon_use_ivar = True
add_module_names = False
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "furo"
html_math_renderer = "mathtext"
html_title = f"monai_medpruner {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
