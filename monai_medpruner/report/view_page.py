# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The HTML of a study's page with NiiVue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_medpruner.report.html import Html, element
from monai_medpruner.report.page_shell import asset, page_header, page_shell
from monai_medpruner.report.report_data import RunOfStudy
from monai_medpruner.report.report_page import model_text, study_tiles, study_title

__all__ = ["view_page"]

_LEGEND = (
    ("selected", "selected token"),
    ("contextual", "contextual token: the mean of several"),
    ("merged", "slice was read, token merged or dropped"),
    ("unread", "not seen: slice dropped, or cropped away"),
)
#: id of each value at the crosshair -> its name
_READOUT = {
    "place": "Position",
    "value": "Voxel",
    "slice": "Slice",
    "reason": "Why",
    "token": "Token",
    "weight": "Importance",
    "inside": "Lesion",
}


def view_page(run: RunOfStudy, data: Mapping[str, Any]) -> str:
    """Return the page. It loads NiiVue and the volumes from the server that it comes from, and nothing else.

    Args:
        run: the study.
        data: of the script ``view.js``.
    """
    return page_shell(
        f"Three planes: {study_title(run.record)}",
        page_header(
            study_title(run.record), model_text(run.lines[0]), [run.lines[0].get("settings", {}).get("model", {})]
        ),
        element("main", *_viewer(data), element("h2", "What was kept"), study_tiles(run.record)),
        element("footer", "Not for clinical use. Slices are counted from 0, as in --slices and in the records."),
        script=asset("view.js"),
        style=asset("view.css"),
        data=data,
        served=True,
    )


def _viewer(data: Mapping[str, Any]) -> list[Html]:
    return [
        element("noscript", element("p", "The viewer needs JavaScript.", class_="note")),
        element("p", id="problem", class_="note", role="alert", hidden=True),
        element(
            "div",
            element("div", id="windows", class_="choices", role="group", aria_label="Window"),
            element("div", id="overlays", class_="choices", role="group", aria_label="Overlay"),
            element(
                "label",
                "Opacity ",
                element("input", type="range", id="opacity", min="0", max="100", value="80"),
                class_="opacity",
            ),
            class_="controls",
        ),
        element("div", element("canvas", id="planes", tabindex="0", aria_label="Three planes"), class_="planes"),
        element("div", _readout(data), _legend(data), class_="beside"),
        element(
            "p",
            "Radiological display: the patient's right is on the left of the picture. Click or drag: move the "
            "crosshair. Wheel: slices. Drag with the right button: window. Keys: left and right change the slice, "
            "page up and down go to the nearest kept one, 1 to 9 choose the window, t tokens, h importance, o lesion.",
            class_="legend",
        ),
    ]


def _readout(data: Mapping[str, Any]) -> Html:
    absent = {"weight": data["highImportance"] is None, "inside": not data["mask"]}
    rows = [
        element("div", element("dt", name), element("dd", "–", id=key))
        for key, name in _READOUT.items()
        if not absent.get(key)
    ]
    return element("section", element("h2", "At the crosshair"), element("dl", *rows, aria_live="polite"))


def _legend(data: Mapping[str, Any]) -> Html:
    tokens = [element("li", element("span", class_=f"swatch {kind}"), text, id=f"key_{kind}") for kind, text in _LEGEND]
    importance = None
    if data["highImportance"] is not None:
        importance = element(
            "p",
            "0",
            element("span", class_="ramp"),
            f"{data['highImportance']:.2g} and more; 1 is the mean of a slice",
            id="ramp",
            hidden=True,
        )
    lesion = element("p", element("span", class_="swatch lesion"), "lesion, of the mask") if data["mask"] else None
    return element("section", element("h2", "Legend"), element("ul", *tokens, id="keys"), importance, lesion)
