# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which requests reach MONAI Label's routes at all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from monai_medpruner.errors import RequestError
from monai_medpruner.label.parameters import check_identifier

__all__ = ["RequestGuard"]

#: first parts of the paths that are served, with the methods; the others train, score, run batches, exchange model
#: files, show the log or load the app anew
_SERVED: dict[str, tuple[str, ...]] = {
    "": ("GET",),
    "docs": ("GET",),
    "openapi.json": ("GET",),
    "favicon.ico": ("GET",),
    "static": ("GET",),
    "ohif": ("GET",),
    "info": ("GET",),
    "infer": ("POST",),
    "datastore": ("GET", "PUT", "DELETE"),
    "session": ("GET", "PUT", "DELETE"),
    "activelearning": ("POST",),
    "auth": ("GET", "POST"),
}
# to the DICOMweb server, for OHIF
_REMOTE = {"proxy": ("GET", "POST")}
_IDENTIFIERS = {"image", "label", "id", "tag", "session_id"}

Scope = dict[str, Any]
Channel = Callable[..., Awaitable[Any]]


class RequestGuard:
    """ASGI middleware: answers 404 to paths that are not served, and 400 to identifiers that could be paths.

    Args:
        app: what the others reach.
        prefix: of all paths.
        remote_studies: whether the studies are on a DICOMweb server, to which the server may then pass requests on.
    """

    def __init__(self, app: Callable[[Scope, Channel, Channel], Awaitable[None]], prefix: str, remote_studies: bool):
        self.app = app
        self.prefix = prefix
        self.served = {**_SERVED, **(_REMOTE if remote_studies else {})}

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        """Pass a request on, or answer it."""
        refusal = self.refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
            return
        status, detail = refusal
        body = json.dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where a request is refused; None where it may pass."""
        # uvicorn puts --root_path before the path
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(self.prefix)
        parts = path.strip("/").split("/")
        methods = self.served.get(parts[0], ())
        # browsers ask before they send a request from another site's page; HEAD is GET without its content
        if scope["method"] not in (*methods, "OPTIONS", *(("HEAD",) if "GET" in methods else ())):
            return 404, "this app does not serve this path"
        if parts[0] == "infer" and len(parts) != 2:
            return 404, "this app does not serve this path"
        if ".." in parts or "\\" in path:
            return 400, "the path must not lead upward"
        try:
            for name, value in parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=100):
                if name in _IDENTIFIERS:
                    check_identifier(name, value)
                elif name == "uncompress" and value.lower() not in ("false", "0", "no", "off"):
                    return 400, "archives are not unpacked; upload the files of the series themselves"
        except RequestError as error:
            return 400, str(error)
        except ValueError:
            return 400, "the query holds too many fields"
        return None
