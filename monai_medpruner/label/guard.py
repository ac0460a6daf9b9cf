# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Filtering of requests before they reach MONAI Label's routes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from monai_medpruner.errors import RequestError
from monai_medpruner.label.parameters import check_identifier

__all__ = ["RequestGuard"]

#: first segment of the allowed paths -> allowed methods; other paths train, score, run batches, exchange model files,
#: show the log or reload the app
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
# proxy to the DICOMweb server, used by OHIF
_REMOTE = {"proxy": ("GET", "POST")}
_IDENTIFIERS = {"image", "label", "id", "tag", "session_id"}

Scope = dict[str, Any]
Channel = Callable[..., Awaitable[Any]]


class RequestGuard:
    """ASGI middleware that answers 404 to paths that are not allowed, and 400 to identifiers that could be paths.

    Args:
        app: application that handles the allowed requests.
        prefix: prefix of all paths.
        remote_studies: whether the studies are on a DICOMweb server; requests to its proxy are then allowed.
    """

    def __init__(self, app: Callable[[Scope, Channel, Channel], Awaitable[None]], prefix: str, remote_studies: bool):
        self.app = app
        self.prefix = prefix
        self.served = {**_SERVED, **(_REMOTE if remote_studies else {})}

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        """Forward a request, or answer it with an error."""
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
        """Return status and reason if a request is rejected; None if it is allowed."""
        # uvicorn puts --root_path before the path
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(self.prefix)
        parts = path.strip("/").split("/")
        methods = self.served.get(parts[0], ())
        # OPTIONS is the browsers' preflight request for pages of other sites; HEAD is GET without content
        if scope["method"] not in (*methods, "OPTIONS", *(("HEAD",) if "GET" in methods else ())):
            return 404, "this app does not serve this path"
        if parts[0] == "infer" and len(parts) != 2:
            return 404, "this app does not serve this path"
        if ".." in parts or "\\" in path:
            return 400, "the path must not contain '..' or a backslash"
        try:
            for name, value in parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=100):
                if name in _IDENTIFIERS:
                    check_identifier(name, value)
                elif name == "uncompress" and value.lower() not in ("false", "0", "no", "off"):
                    return 400, "archives are not unpacked; upload the files of the series individually"
        except RequestError as error:
            return 400, str(error)
        except ValueError:
            return 400, "the query has more than 100 fields"
        return None
