# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What all pages share: one file whose only scripts and styles are its own, the warnings, and the tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from monai_medpruner.report.html import Html, element, inline_hash, script_data, text

__all__ = ["asset", "model_name", "page_header", "page_shell", "tiles"]

_PHANTOM_BUNDLE = "medpruner_phantom"


def page_shell(
    title: str, *body: Html | None, script: str = "", style: str = "", data: Any = None, served: bool = False
) -> str:
    """Return a page.

    Args:
        title: of the window.
        body: elements; None is left out.
        script: runs after that of the button for light and dark.
        style: after that of all pages.
        data: what the script reads from the element ``data``, as JSON.
        served: the page comes from a server, and may load scripts and data from it.
    """
    style, code = asset("report.css") + style, asset("theme.js") + script
    own, fetched = (" 'self'", "connect-src 'self'; ") if served else ("", "")
    policy = (
        f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; {fetched}"
        f"style-src {inline_hash(style)}; script-src {inline_hash(code)}{own}"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    )
    scripts = [
        None if data is None else element("script", script_data(data), type="application/json", id="data"),
        element("script", Html(code)),
    ]
    return f'<!DOCTYPE html>\n<html lang="en">\n{head}\n{element("body", *body, *scripts)}\n</html>\n'


def page_header(title: str, subtitle: object, models: Iterable[Mapping[str, Any]], shown: Html | None = None) -> Html:
    """Return the top of a page.

    Args:
        title: heading.
        subtitle: below it.
        models: "model" of the settings of the runs, for warnings.
        shown: of :func:`tiles`; None for none.
    """
    warnings = dict.fromkeys(one for model in models for one in _model_warnings(model))
    return element(
        "header",
        element(
            "p", element("strong", "Not for clinical use."), *(text(f" {one}") for one in warnings), class_="banner"
        ),
        element("h1", title),
        element("p", subtitle, class_="model"),
        element("button", "Light or dark", type="button", id="theme", class_="noprint"),
        shown,
    )


def tiles(rows: Iterable[tuple[object, object, object]]) -> Html:
    """Return name, value and remark of each row as a tile."""
    return element(
        "dl",
        *(element("div", element("dt", a), element("dd", b), element("dd", c, class_="sub")) for a, b, c in rows),
        class_="tiles",
    )


def model_name(model: Mapping[str, Any], deidentified: bool = False) -> str:
    """Return what a page calls a model: its id on the Hub, or the name of its folder."""
    name = PurePath(str(model.get("model_id", "unknown")))
    if deidentified and name.is_absolute():
        return "(left out)"
    return str(name) if len(name.parts) <= 2 and not name.is_absolute() else name.name


def asset(name: str) -> str:
    """Return the text of a file that belongs to the pages."""
    return files("monai_medpruner.report").joinpath("assets", name).read_text(encoding="utf-8")


def _model_warnings(model: Mapping[str, Any]) -> list[str]:
    warnings = []
    if model.get("random_weights"):
        warnings.append("The model has random weights: its answers mean nothing.")
    if _PHANTOM_BUNDLE in PurePath(str(model.get("model_id"))).parts:
        warnings.append("The model was trained on synthetic phantoms: its answers about patients mean nothing.")
    return warnings
