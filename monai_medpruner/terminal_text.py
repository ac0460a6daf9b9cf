# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Text of models, files and users, written so that a terminal shows it and does nothing else with it.

Answers, file names and tables may hold control characters: escape sequences that move the cursor, change a window's
title or hide lines, and marks that reverse the direction of text. They are shown as ``\\u001b`` instead. Files keep the
text as it is.
"""

from __future__ import annotations

import logging
import re

__all__ = ["package_logger", "printable"]

#: C0 and C1 controls but tab and line feed; marks of direction; separators of lines and paragraphs; lone surrogates
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with its control characters as ``\\uXXXX``, which is also how JSON writes them.

    Args:
        text: any text; tabs and line feeds stay.
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class _PrintableMessages(logging.Filter):
    """Lets every message pass, in printable form."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message."""
        record.msg, record.args = printable(record.getMessage()), ()
        return True


_PRINTABLE = _PrintableMessages()


def package_logger(name: str) -> logging.Logger:
    """Return the logger of a module; its messages reach handlers in printable form.

    Args:
        name: name of the module.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_PRINTABLE)  # a second time changes nothing
    return logger
