# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""HTML from texts that nobody trusts: every text is escaped, and no style or script comes from an attribute."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from typing import Any

from monai_medpruner.terminal_text import printable

__all__ = ["Html", "element", "inline_hash", "script_data", "text"]

_EMPTY = ("br", "hr", "input", "meta")


class Html(str):
    """Text that is HTML already."""


def text(value: object) -> Html:
    """Return a value as HTML that shows it; control characters and marks of direction as ``\\uXXXX``."""
    return value if isinstance(value, Html) else Html(html.escape(printable(str(value))))


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        tag: name of the element.
        children: HTML, or any values, which are escaped; None is left out.
        attributes: by name; a trailing underscore is dropped, other underscores become hyphens. True writes the name
            alone; None and False write nothing.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    content = "".join(text(child) for child in children if child is not None)
    return Html(f"<{tag}{written}>" if tag in _EMPTY else f"<{tag}{written}>{content}</{tag}>")


def script_data(value: Any) -> Html:
    """Return a value as JSON that can stand in a script element, whatever its texts hold."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False)  # in ASCII
    return Html(written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def inline_hash(content: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows this inline style or script alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
