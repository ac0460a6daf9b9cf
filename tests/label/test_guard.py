# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Which requests reach MONAI Label's routes. test_server.py sends them to a real server."""

from __future__ import annotations

import pytest

from monai_medpruner.label.guard import RequestGuard


def status(method, path, query="", remote=False, prefix="", root_path=""):
    """Return the status of the refusal, or None if the request passes."""
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "root_path": root_path}
    refusal = RequestGuard(None, prefix, remote).refusal(scope)
    return None if refusal is None else refusal[0]


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/info/", ""),
        ("HEAD", "/info/", ""),
        ("OPTIONS", "/infer/ask", ""),
        ("POST", "/infer/ask", "image=ct%201&output=json"),
        ("POST", "/infer/ask", "image=&session_id="),
        ("PUT", "/datastore/label", "image=ct&tag=final"),
        ("PUT", "/session/", "uncompress=false&expiry=100"),
        ("GET", "/", ""),
    ],
)
def test_allowed_requests(method, path, query):
    assert status(method, path, query) is None
    assert status(method, "/api" + path, query, prefix="/api") is None
    assert status(method, "/proxied" + path, query, root_path="/proxied") is None


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("POST", "/infer/wsi/ask", "", 404),
        ("GET", "/infer/ask", "", 404),
        ("DELETE", "/info/", "", 404),
        ("POST", "/elsewhere", "", 404),
        ("GET", "/static/../../x", "", 400),
        ("GET", "/static/a\\..\\x", "", 400),
        ("POST", "/infer/ask", "image=ct&image=..%2Fct", 400),
        ("POST", "/infer/ask", "image=%00", 400),
        ("DELETE", "/datastore/label", "id=ct&tag=..", 400),
        ("PUT", "/session/", "uncompress=1", 400),
        ("GET", "/info/", "&".join(["a=1"] * 101), 400),
    ],
)
def test_refused_requests(method, path, query, expected):
    assert status(method, path, query) == expected
    assert status(method, "/proxied" + path, query, root_path="/proxied") == expected


def test_requests_are_forwarded_only_for_remote_studies():
    assert status("GET", "/proxy/dicom/wado/studies") == 404
    assert status("GET", "/proxy/dicom/wado/studies", remote=True) is None
