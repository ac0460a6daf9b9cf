# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A real vLLM server on the CPU, for tests and measurements."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CPU_SETTINGS", "post", "serve"]

#: little memory for keys and values, no binding to cores, no reports of use
CPU_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_START_S = 600


@contextmanager
def serve(model: Path, log: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve a model on a free local port.

    Args:
        model: folder of the checkpoint.
        log: file for what the server writes.
        options: further options of the server.
        environment: further environment variables.

    Yields:
        The server's address.

    Raises:
        RuntimeError: the server ended or was not ready in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *options]
    command += ["--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "8192"]
    settings = {**os.environ, **CPU_SETTINGS, **(environment or {})}
    with log.open("w", encoding="utf-8") as file:
        # a session of its own, since the server has a process for its engine
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=settings, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(process, address, log)
        yield address
        if process.poll() is not None:
            raise RuntimeError(f"the vLLM server ended:\n{log.read_text(encoding='utf-8')[-4000:]}")
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < _START_S and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"the vLLM server is not ready:\n{log.read_text(encoding='utf-8')[-4000:]}")


def post(address: str, path: str, body: Any, timeout_s: float = 120) -> tuple[int, dict[str, Any]]:
    """Return the status and the content of a server's reply, also of a refusal."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")
