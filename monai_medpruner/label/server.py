# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What is mended of MONAI Label's server when the app starts.

Version 0.8.5 blocks all requests while one is inferred, logs questions, lets parameters of a request name any file of
the machine, answers 500 to wrong requests and 200 to unknown images, and unpacks and writes files wherever a request
says. Routes that this app has no use for are closed.
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

__all__ = ["check_server_version", "mend_server", "quiet_server_log"]

_SERVER_VERSION = "0.8.5"
_OUTPUTS = ("json", "image", "all")
#: the first that fits; the rest of this package's errors are about the study
_STATUS: tuple[tuple[type[MedPrunerError], int], ...] = (
    (UnknownStudyError, 404),
    (UnknownTaskError, 404),
    (RequestError, 400),
    (QuestionError, 400),
    (ModelMemoryError, 503),
    (MedPrunerError, 422),
)
# requests that wait or run; the server has 40 threads
_MOST_REQUESTS = 32

logger = logging.getLogger(__name__)


def check_server_version() -> None:
    """Refuse a server whose routes are not known to be those that are mended here.

    Raises:
        PackageVersionError: MONAI Label has another version.
    """
    found = version("monailabel")
    if found != _SERVER_VERSION:
        raise PackageVersionError(
            f"the app mends MONAI Label {_SERVER_VERSION} and knows no other; found is {found}. Install it with: pip "
            f"install --no-deps monailabel=={_SERVER_VERSION}"
        )


def quiet_server_log() -> None:
    """Keep what the server logs of requests out of the log: file names, ids and parameters."""
    logging.getLogger("monailabel").setLevel(logging.WARNING)


def mend_server(app: Any) -> None:
    """Put this app's infer route before the server's, and its guard around all routes.

    Args:
        app: the MONAI Label app; the server that runs it is the process's.
    """
    from monailabel.app import app as server

    if any(one.cls is RequestGuard for one in server.user_middleware):
        return
    prefix = settings.MONAI_LABEL_API_STR
    server.add_api_route(f"{prefix}/infer/{{model}}", _infer_route(app), methods=["POST"], tags=["Infer"])
    server.router.routes.insert(0, server.router.routes.pop())
    server.exception_handlers[MONAILabelException] = _refuse
    server.exception_handlers[MedPrunerError] = _refuse
    _close_to_other_sites(server)
    remote = str(app.studies).startswith(("http://", "https://"))
    server.user_middleware.append(Middleware(RequestGuard, prefix=prefix, remote_studies=remote))
    # the server has begun to start: its stack is built
    server.middleware_stack = server.build_middleware_stack()


def _close_to_other_sites(server: Any) -> None:
    """Let pages of other sites read answers only where ``MONAI_LABEL_CORS_ORIGINS`` names them.

    The server lets every page that the user opens read its studies.
    """
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    for index, one in enumerate(server.user_middleware):
        if one.cls is CORSMiddleware:
            server.user_middleware[index] = Middleware(CORSMiddleware, **{**one.kwargs, "allow_origins": origins})


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """Answer an error in a route of the server's own, which it would answer with 500."""
    status = 404 if isinstance(error, (ImageNotFoundException, LabelNotFoundException)) else 400
    return JSONResponse({"detail": getattr(error, "msg", str(error))}, status)


def _infer_route(app: Any) -> Any:
    """The route of the tasks; a plain function, so that the server runs it in a thread of its own."""
    places = BoundedSemaphore(_MOST_REQUESTS)

    def infer(
        model: str,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        output: str | None = None,
        user: Annotated[User | None, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))] = None,
    ) -> Response:
        if not places.acquire(blocking=False):
            raise HTTPException(503, f"{_MOST_REQUESTS} requests are waiting; ask again later")
        try:
            with TemporaryDirectory() as folder:
                request = _request(model, image, session_id, params, file, output, Path(folder))
                return _response(app.infer(request), output)
        except MedPrunerError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            logger.info(f"a request was refused ({status}, {type(error).__name__})")
            raise HTTPException(status, str(error)) from error
        except Exception as error:
            # where, not what: messages of other packages may hold values
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.error(f"a request failed with {type(error).__name__}:\n{frames}")
            raise HTTPException(500, "the request failed; the server's log says where") from None
        finally:
            places.release()

    return infer


def _request(
    model: str, image: str, session_id: str, params: str, file: Any, output: str | None, folder: Path
) -> dict[str, Any]:
    """The request as the app takes it; an uploaded file is stored in the folder."""
    parsed = parse_parameters(params)
    fields: dict[str, str | None] = {"model": model, "image": image, "session_id": session_id}
    fields |= {"file": None, "result_dir": str(folder)}
    if set(fields) & set(parsed):
        raise RequestError("params must hold the task's parameters alone, neither model nor image")
    if output is not None and output not in _OUTPUTS:
        raise RequestError(f"output must be one of {', '.join(_OUTPUTS)}")
    if file:
        place = folder / upload_name(file.filename)
        with place.open("wb") as stored:
            shutil.copyfileobj(file.file, stored)
        fields["file"] = str(place)
    return {**parsed, **fields}


def _response(result: dict[str, Any], output: str | None) -> Response:
    """The answer in the forms that MONAI Label's clients read."""
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
