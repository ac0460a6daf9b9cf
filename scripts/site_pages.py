# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Sphinx extension of docs/conf.py: what the site has beyond the pages of the repository.

- The table of contents, which the README lacks.
- Notebooks as pages, with their stored outputs.
- The help of every command, in place of ``<!-- commands -->``.
- The marks of blocks: ``<!-- not run: REASON -->``, why the tests do not run it, and ``<!-- needs: WHAT -->``, the
  weights or the GPU that it needs.
- Pictures of formulas, and of mermaid diagrams (``scripts/site_pictures.py`` draws those): drawing them in the browser
  would need the network.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from docutils import nodes
from matplotlib.mathtext import math_to_image
from myst_parser.parsers.sphinx_ import MystParser
from site_diagrams import DIAGRAM, REPOSITORY, diagram_picture
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from monai_medpruner.cli.main import COMMANDS, main

CONTENTS = {
    "": ("docs/get_started", "docs/concepts", "docs/how_to", "docs/faq", "docs/glossary"),
    "Notebooks": ("notebooks/*",),
    "More tasks": ("docs/evaluation", "docs/serving", "docs/label", "docs/new_family", "CONTRIBUTING"),
    "Evidence": ("docs/evidence*", "docs/slice_rules", "docs/performance", "docs/reliability", "docs/reproduce"),
    "Reference": ("docs/settings", "docs/commands", "docs/reference/index", "docs/architecture"),
    "Bundles": ("bundles/*/docs/README", "bundles/*/models/*/README"),
    "Project": ("CHANGELOG", "SECURITY", "CODE_OF_CONDUCT"),
}
NOT_RUN = re.compile(r"^<!-- not run: (.*?) -->$", re.MULTILINE)
NEEDS = re.compile(r"^<!-- needs: (.*?) -->$", re.MULTILINE)
HEADING = re.compile(r"^(#+ )", re.MULTILINE)


class NotebookParser(MystParser):
    """Reads a notebook as a page."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the cells and their stored outputs."""
        super().parse(notebook_page(json.loads(inputstring)), document)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the parts."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.add_html_math_renderer("mathtext", (draw_formula, None), (draw_formula, None))
    app.connect("source-read", change_source)
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def change_source(app: Sphinx, name: str, source: list[str]) -> None:
    """Change the text of a page as it is read."""
    if name.startswith("notebooks/"):
        return
    text = NOT_RUN.sub(r"{.mark}\nNot run by the tests: \1.\n", source[0])
    text = NEEDS.sub(r"{.mark}\nNeeds \1; the tests run it with a small model of random weights.\n", text)
    text = DIAGRAM.sub(lambda found: _picture(found[1], name), text)
    if name == app.config.root_doc:
        text += contents()
    if name == "docs/commands":
        text = text.replace("<!-- commands -->", commands_help())
    if name.startswith("bundles/") and name.endswith("docs/README"):  # the zoo's form has several headings of level one
        text = f"# {name.split('/')[1]}\n\n" + HEADING.sub(r"#\1", text)
    source[0] = text


def draw_formula(writer: Any, node: nodes.Element) -> None:
    """Write a formula as a picture; MathJax would be loaded from the network.

    Raises:
        SkipNode: always; the picture is all there is of the node.
    """
    drawn = io.BytesIO()
    # Matplotlib knows no sizes of delimiters and no newlines
    known = re.sub(r"\\[bB]igg?", "", " ".join(node.astext().split()))
    math_to_image(f"${known}$", drawn, format="svg", color="gray")
    content = base64.b64encode(drawn.getvalue()).decode()
    picture = f'<img src="data:image/svg+xml;base64,{content}" alt="{html.escape(node.astext())}">'
    writer.body.append(picture if isinstance(node, nodes.math) else f"<p>{picture}</p>")
    raise nodes.SkipNode


def contents() -> str:
    """Return the table of contents of the site, which its margin shows."""
    parts = []
    for caption, names in CONTENTS.items():
        lines = [":hidden:", ":glob:", ":titlesonly:", *([f":caption: {caption}"] if caption else [])]
        parts.append("\n".join(["```{toctree}", *lines, "", *names, "```"]))
    return "\n\n" + "\n\n".join(parts) + "\n"


def notebook_page(notebook: Mapping[str, Any]) -> str:
    """Return a notebook as Markdown, its pictures inside."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                content = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![Output of the cell](data:image/png;base64,{content})")
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def commands_help() -> str:
    """Return the help of every command."""
    parts = []
    width = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        for name in COMMANDS:
            printed = io.StringIO()
            with redirect_stdout(printed), suppress(SystemExit):
                main([name, "--help"])
            parts.append(f"## medpruner {name}\n\n```text\n{printed.getvalue().strip()}\n```")
    finally:
        if width is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = width
    return "\n\n".join(parts)


def _picture(diagram: str, page: str) -> str:
    picture = diagram_picture(diagram)
    if not picture.exists():
        raise ExtensionError(f"{page}: a diagram has no picture; python scripts/site_pictures.py draws it")
    return f"![Diagram](/{picture.relative_to(REPOSITORY).as_posix()})"


def write_index(app: Sphinx, error: Exception | None) -> None:
    """Let the folder of the site open at the README's page."""
    if error is None and app.builder.format == "html":
        target = f"{app.config.root_doc}.html"
        text = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
        Path(app.outdir, "index.html").write_text(f'{text}<a href="{target}">{target}</a>\n', encoding="utf-8")
