# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A server of a few files in memory, for the browser of this machine alone."""

from __future__ import annotations

import errno
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

from monai_medpruner.errors import SettingsError
from monai_medpruner.terminal_text import package_logger

__all__ = ["LocalServer", "ServedFile"]

logger = package_logger(__name__)

_ADDRESS = "127.0.0.1"
#: a page of another site that had its name resolved to this machine sends its own name as the host. The port may
#: differ from the server's: that of an SSH tunnel does
_HOSTS = (_ADDRESS, "localhost")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class ServedFile:
    """A file in memory.

    Args:
        content: its bytes.
        media_type: for the browser, such as ``text/javascript``.
    """

    content: bytes
    media_type: str = "application/octet-stream"


class LocalServer(ThreadingTCPServer):
    """Serves files in memory on 127.0.0.1, below a path that cannot be guessed.

    Other users of the machine reach its ports too; they do not know the path. Nothing is written to disk, and no file
    on disk is ever opened for a request. A context manager: the port is free afterward.

    Args:
        files: by name; the one of the empty name is the page.
        port: 0 for any free one.

    Raises:
        SettingsError: the port cannot be used.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, files: Mapping[str, ServedFile], port: int = 0) -> None:
        self.files = files
        self.root = f"/{secrets.token_urlsafe(16)}/"
        if not 0 <= port < 2**16:
            raise SettingsError(f"port must lie in 0 to 65535, got {port}")
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise SettingsError(f"port {port} {why}: choose another with --port, or 0 for any free one") from error

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{_ADDRESS}:{self.server_address[1]}{self.root}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a request; a browser that closes a connection early is no error."""
        raised = sys.exc_info()[1]
        if not isinstance(raised, ConnectionError):
            logger.error("a request failed: %s", type(raised).__name__)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the files of the server, by their exact names."""

    server: LocalServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "medpruner", ""
    timeout = _PATIENCE

    def do_GET(self) -> None:
        if (found := self._find()) is not None:
            self._head(found)
            self.wfile.write(found.content)

    def do_HEAD(self) -> None:
        if (found := self._find()) is not None:
            self._head(found)

    def _find(self) -> ServedFile | None:
        """Return what is asked for, or refuse and return None."""
        if not _is_local(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "Only for 127.0.0.1 and localhost")
            return None
        path, root = self.path.encode(), self.server.root.encode()
        found = self.server.files.get(self.path[len(root) :])
        # a comparison whose time tells nothing of the path
        if found is None or not secrets.compare_digest(path[: len(root)], root):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return found

    def _head(self, found: ServedFile) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", found.media_type)
        self.send_header("Content-Length", str(len(found.content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing for each request: the path is secret."""


def _is_local(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _HOSTS
    except ValueError:
        return False
