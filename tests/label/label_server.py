# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A real MONAI Label server on loopback, and small studies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

#: threshold for the tiny model; low enough that tokens are dropped
TINY_CONF = {"model": "tiny", "max_new_tokens": "6", "report_tokens": "6", "tau": "0.5", "temperature": "0.05"}
#: rows, columns and slices run against the patient's axes, and the axes are swapped
FLIPPED_AFFINE = np.array([[0, -0.8, 0, 40], [0.8, 0, 0, -30], [0, 0, -2.5, 90], [0, 0, 0, 1.0]])


def write_study(path: Path, shape=(160, 192, 12), seed=0, affine=FLIPPED_AFFINE) -> Path:
    """Write a NIfTI file in HU. Every second slice repeats the previous one, so that the filter drops it."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-150, 250, (*(size // 8 for size in shape[:2]), shape[2] // 2), dtype=np.int16)
    voxels = voxels.repeat(8, 0).repeat(8, 1).repeat(2, 2)
    voxels[0, 0] = -1000
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@dataclass
class Server:
    """A running server and its client functions."""

    url: str
    process: subprocess.Popen
    studies: Path
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def request(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        """Return the status and the text of a response, also for errors."""
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def infer(self, task: str, query: str, params: Any = None) -> tuple[int, Any]:
        """Post a form as curl does."""
        text = params if isinstance(params, str) else json.dumps(params or {})
        boundary = "0123456789"
        form = f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{text}\r\n--{boundary}--\r\n'
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, answer = self.request("POST", f"/infer/{task}?{query}", form.encode(), headers)
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer


def start_server(folder: Path, studies: Path, conf: dict[str, str], repository: Path, **variables: str) -> Server:
    """Start a server as documented, and wait until it responds."""
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(repository)}
    # as in an activated environment: monailabel is a shell script
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **home, "PATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
    app = subprocess.run(
        [sys.executable, "-m", "monai_medpruner", "label_app"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["monailabel", "start_server", "--app", app, "--studies", str(studies)]
    for name, value in conf.items():
        words += ["--conf", name, value]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    log_file = folder / "server.log"
    with log_file.open("w") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, studies, log_file)
    for _ in range(240):
        if process.poll() is not None:
            pytest.fail(f"the server stopped:\n{server.log()[-3000:]}")
        try:
            if server.request("GET", "/openapi.json")[0] == 200:
                return server
        except OSError:
            time.sleep(0.5)
    process.kill()
    pytest.fail(f"the server did not start:\n{server.log()[-3000:]}")
