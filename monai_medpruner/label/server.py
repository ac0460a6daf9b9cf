# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Fixes for MONAI Label's server, applied when the app starts.

MONAI Label 0.8.5 blocks all requests during inference, logs questions, accepts any file of the machine in request
parameters, answers 500 to invalid requests and 200 to unknown images, and unpacks and writes files to any path in a
request. Routes that this app does not need are closed.
"""

from __future__ import annotations

import logging
import shutil
import traceback
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from requests_toolbelt import MultipartEncoder
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from monai_medpruner.errors import (
    MedPrunerError,
    ModelMemoryError,
    PackageVersionError,
    QuestionError,
    RequestError,
    UnknownStudyError,
    UnknownTaskError,
)
from monai_medpruner.label.guard import RequestGuard
from monai_medpruner.label.parameters import parse_parameters
from monai_medpruner.label.studies import upload_name
from monai_medpruner.terminal_text import package_logger

__all__ = ["check_server_version", "patch_server", "quiet_server_log"]

_SERVER_VERSION = "0.8.5"
_OUTPUTS = ("json", "image", "all")
#: error class -> HTTP status; the first match counts, and all other errors of this package concern the study
_STATUS: tuple[tuple[type[MedPrunerError], int], ...] = (
    (UnknownStudyError, 404),
    (UnknownTaskError, 404),
    (RequestError, 400),
    (QuestionError, 400),
    (ModelMemoryError, 503),
    (MedPrunerError, 422),
)
# max number of waiting and running requests; the server has 40 threads
_MAX_REQUESTS = 32

logger = package_logger(__name__)


def check_server_version() -> None:
    """Raise unless MONAI Label has the version for which the fixes were written.

    Raises:
        PackageVersionError: MONAI Label has another version.
    """
    found = version("monailabel")
    if found != _SERVER_VERSION:
        raise PackageVersionError(
            f"the app needs MONAI Label {_SERVER_VERSION}, found {found}. Install it with: pip "
            f"install --no-deps monailabel=={_SERVER_VERSION}"
        )


def quiet_server_log() -> None:
    """Keep file names, ids and parameters of requests out of the server's log."""
    logging.getLogger("monailabel").setLevel(logging.WARNING)


def patch_server(app: Any) -> None:
    """Insert this app's infer route before the server's own, and the request guard before all routes.

    Args:
        app: the MONAI Label app, run by the server of this process.
    """
    from monailabel.app import app as server

    if any(one.cls is RequestGuard for one in server.user_middleware):
        return
    prefix = settings.MONAI_LABEL_API_STR
    server.add_api_route(f"{prefix}/infer/{{model}}", _infer_route(app), methods=["POST"], tags=["Infer"])
    server.router.routes.insert(0, server.router.routes.pop())
    server.exception_handlers[MONAILabelException] = _refuse
    server.exception_handlers[MedPrunerError] = _refuse
    _restrict_cross_origin(server)
    remote = str(app.studies).startswith(("http://", "https://"))
    server.user_middleware.append(Middleware(RequestGuard, prefix=prefix, remote_studies=remote))
    # the server has already built its middleware stack at this point
    server.middleware_stack = server.build_middleware_stack()


def _restrict_cross_origin(server: Any) -> None:
    """Allow cross-origin requests only from the origins in ``MONAI_LABEL_CORS_ORIGINS``.

    By default, the server lets any page that the user opens read its studies.
    """
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    for index, one in enumerate(server.user_middleware):
        if one.cls is CORSMiddleware:
            server.user_middleware[index] = Middleware(CORSMiddleware, **{**one.kwargs, "allow_origins": origins})


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer an error in one of the server's own routes with 404 or 400 instead of 500."""
    status = 404 if isinstance(error, (ImageNotFoundException, LabelNotFoundException)) else 400
    return JSONResponse({"detail": getattr(error, "msg", str(error))}, status)


def _infer_route(app: Any) -> Any:
    """Return the infer route; it is not a coroutine, so the server runs it in a separate thread."""
    slots = BoundedSemaphore(_MAX_REQUESTS)

    def infer(
        model: str,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        output: str | None = None,
        user: Annotated[User | None, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))] = None,
    ) -> Response:
        if not slots.acquire(blocking=False):
            raise HTTPException(503, f"{_MAX_REQUESTS} requests are already waiting; try again later")
        try:
            with TemporaryDirectory() as folder:
                request = _request(model, image, session_id, params, file, output, Path(folder))
                return _response(app.infer(request), output)
        except MedPrunerError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            logger.info(f"a request was refused ({status}, {type(error).__name__})")
            raise HTTPException(status, str(error)) from error
        except Exception as error:
            # log the location without the message, because messages of other packages may contain patient data
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.error(f"a request failed with {type(error).__name__}:\n{frames}")
            raise HTTPException(500, "the request failed; see the server's log") from None
        finally:
            slots.release()

    return infer


def _request(
    model: str, image: str, session_id: str, params: str, file: Any, output: str | None, folder: Path
) -> dict[str, Any]:
    """Return the request in the app's format; an uploaded file is stored in the folder."""
    parsed = parse_parameters(params)
    fields: dict[str, str | None] = {"model": model, "image": image, "session_id": session_id}
    fields |= {"file": None, "result_dir": str(folder)}
    if set(fields) & set(parsed):
        raise RequestError("params must contain only parameters of the task, not model or image")
    if output is not None and output not in _OUTPUTS:
        raise RequestError(f"output must be one of {', '.join(_OUTPUTS)}")
    if file:
        place = folder / upload_name(file.filename)
        with place.open("wb") as stored:
            shutil.copyfileobj(file.file, stored)
        fields["file"] = str(place)
    return {**parsed, **fields}


def _response(result: dict[str, Any], output: str | None) -> Response:
    """Return the answer in the formats of MONAI Label's clients."""
    if result["file"] is None:
        if output == "image":
            raise RequestError("this task returns no image; output must be json")
        return JSONResponse(result["params"])
    if output == "json":
        return JSONResponse(result["params"])
    file = Path(result["file"])
    content = file.read_bytes()
    if output == "image":
        disposition = {"Content-Disposition": f'attachment; filename="{file.name}"'}
        return Response(content, media_type="application/octet-stream", headers=disposition)
    parts = {
        "params": (None, JSONResponse(result["params"]).body, "application/json"),
        "image": (file.name, content, "application/octet-stream"),
    }
    encoder = MultipartEncoder(fields=parts)
    return Response(encoder.to_string(), media_type=encoder.content_type)
