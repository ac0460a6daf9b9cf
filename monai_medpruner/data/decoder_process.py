# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Processes that decode DICOM files, since a damaged or hostile file may abort or block the process that decodes it.

They are started by ``subprocess``, which works in the workers of a data loader and in scripts without a main guard.
They are kept for the next volume, since loading ITK takes seconds, and end with this process.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

from monai_medpruner.data import dicom_decoder
from monai_medpruner.data.dicom_decoder import read_message, write_message

__all__ = ["DecoderProcess", "DecoderProcessError", "borrow_decoder"]

#: seconds that a process may take to load ITK, also from a slow disk
_START_SECONDS = 300.0
#: seconds in which a process that waits has to respond
_RESPOND_SECONDS = 10.0
#: seconds between two looks at the memory of a process, where the system does not limit it
_WATCH_SECONDS = 0.05
#: processes that are kept while none of them is needed
_MAX_IDLE = 2
_PROGRAM = Path(dicom_decoder.__file__)


class DecoderProcessError(Exception):
    """A decoder process could not answer; the text says why."""


class DecoderProcess:
    """One process that runs :py:mod:`monai_medpruner.data.dicom_decoder`. Not safe with threads."""

    def __init__(self) -> None:
        threads = dict.fromkeys(
            ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
        )
        path = os.pathsep.join(i for i in sys.path if i)  # ITK is found where this process finds it
        if not sys.executable:
            raise DecoderProcessError("the Python interpreter that would run the DICOM decoder is unknown")
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_PROGRAM)],
                bufsize=0,  # forked processes close their copies of the pipes, and must not write or wait for a lock
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libraries may print patient data
                env={**os.environ, **threads, "PYTHONPATH": path},
            )
        except OSError as error:
            raise DecoderProcessError(f"the DICOM decoder cannot be started: {error.strerror}") from error
        self._started = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(
        self, request: dict[str, Any], count: int, file_seconds: float, series_seconds: float, memory_bytes: int
    ) -> Iterator[Any]:
        """Send a request and yield one reply for each file; a reply with ``fault`` or ``memory`` is the last.

        Args:
            request: see :py:mod:`monai_medpruner.data.dicom_decoder`.
            count: number of files, and of replies.
            file_seconds: longest time until the next reply.
            series_seconds: longest time for all replies.
            memory_bytes: bytes that the process may allocate for the request.

        Raises:
            DecoderProcessError: if the process ends, or has to be ended, before it has answered.
        """
        assert self._process.stdin is not None
        with _Watch(self._process, memory_bytes) as watch:
            if not self._started:
                watch.allow(_START_SECONDS, f"the DICOM decoder did not start within {_START_SECONDS:g} seconds")
                self._receive(watch)
                self._started = True
            end = monotonic() + series_seconds
            slow = "and was stopped. The file is damaged, or the time limit too short for the storage it lies on"
            try:
                # what the parent cannot see to, because it was killed itself, the process does: a little later
                write_message(
                    self._process.stdin, {**request, "memory_bytes": memory_bytes, "seconds": file_seconds + 5}
                )
            except OSError as error:
                raise DecoderProcessError(self._obituary()) from error
            for _ in range(count):
                left = end - monotonic()
                if left < file_seconds:
                    watch.allow(
                        max(left, 0.0), f"decoding the series took longer than {series_seconds:g} seconds {slow}"
                    )
                else:
                    watch.allow(file_seconds, f"decoding it took longer than {file_seconds:g} seconds {slow}")
                reply = self._receive(watch)
                yield reply
                if "fault" in reply or "memory" in reply:
                    return

    def _receive(self, watch: _Watch) -> Any:
        assert self._process.stdout is not None
        try:
            reply = read_message(self._process.stdout)
        except ValueError as error:
            raise DecoderProcessError("the DICOM decoder sent no valid reply") from error
        if reply is None:
            raise DecoderProcessError(watch.reason or self._obituary())
        return reply

    def _obituary(self) -> str:
        """Return how the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if not self._started:
            return f"the DICOM decoder could not be started (exit status {code}); is the package itk intact?"
        if code is None or code >= 0:
            return f"the DICOM decoder ended unexpectedly (exit status {code})"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        if name == "SIGKILL":
            return "the DICOM decoder was killed, perhaps because memory ran out"
        return f"the DICOM decoder ended with {name}: the file is damaged, or has values that the decoder cannot handle"

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def responds(self) -> bool:
        """Whether the process can take a request: it loads ITK, or it waits and was not ended meanwhile."""
        if not self._started or not self.alive:
            return self.alive
        assert self._process.stdin is not None
        with _Watch(self._process, sys.maxsize) as watch:
            watch.allow(_RESPOND_SECONDS, "the DICOM decoder did not respond")
            try:
                write_message(self._process.stdin, {"ping": True})
                self._receive(watch)
            except (OSError, DecoderProcessError):
                return False
        return True

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self.forget()
        self._process.wait()

    def forget(self) -> None:
        """Close the pipes, at whose end the process ends unless another process holds copies of them."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()


class _Watch:
    """A thread that kills a process at a deadline, or for its memory where the system does not limit that."""

    def __init__(self, process: subprocess.Popen[bytes], memory_bytes: int) -> None:
        self.reason: str | None = None
        self._process = process
        self._memory_bytes = None if sys.platform == "linux" else memory_bytes
        self._deadline = self._waits_until = float("inf")
        self._text = ""
        self._changed = threading.Condition()
        self._done = False
        self._thread = threading.Thread(target=self._run, name="DICOM decoder watch", daemon=True)

    def allow(self, seconds: float, text: str) -> None:
        """Kill the process ``seconds`` from now, and state ``text`` as the reason."""
        with self._changed:
            self._deadline, self._text = monotonic() + seconds, text
            # the thread sees a later deadline when an earlier one has passed: no need to wake it for each file
            if seconds < self._waits_until - monotonic():
                self._changed.notify()

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._done = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._done:
                if monotonic() >= self._deadline:
                    self._kill(self._text)
                    return
                if self._memory_bytes is not None and self._used() > self._memory_bytes:
                    self._kill("decoding it needs too much memory")
                    return
                self._waits_until = self._deadline
                if self._memory_bytes is not None:
                    self._waits_until = min(self._deadline, monotonic() + _WATCH_SECONDS)
                wait = self._waits_until - monotonic()
                self._changed.wait(None if wait == float("inf") else max(wait, 0.0))

    def _kill(self, reason: str) -> None:
        self.reason = reason
        self._process.kill()

    def _used(self) -> int:
        try:
            return psutil.Process(self._process.pid).memory_info().rss
        except psutil.Error:
            return 0  # it has ended


class _Pool:
    """The decoder processes of this process; safe with threads."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[DecoderProcess] = []
        self._all: set[DecoderProcess] = set()

    def take(self) -> DecoderProcess:
        """Return an idle process, or a new one."""
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.responds():
                    return decoder
                self._all.discard(decoder)
                decoder.end()
            decoder = DecoderProcess()
            self._all.add(decoder)
            return decoder

    def give_back(self, decoder: DecoderProcess) -> None:
        """Keep a process that has answered."""
        with self._lock:
            if decoder.alive and len(self._idle) < _MAX_IDLE and decoder in self._all:
                self._idle.append(decoder)
                return
            self._all.discard(decoder)
        decoder.end()

    def replace(self, decoder: DecoderProcess) -> None:
        """End a process that has failed, and start others that load ITK until they are needed.

        Where one file ended the decoder, the next one may as well: one process waits for the next volume, and a spare
        beside it, so that after a second failure a volume does not wait for ITK.
        """
        with self._lock:
            known = decoder in self._all
            self._all.discard(decoder)
            while known and len(self._idle) < _MAX_IDLE:
                try:
                    spare = DecoderProcess()
                except DecoderProcessError:
                    break  # the next volume tries again, and reports it
                self._all.add(spare)
                self._idle.insert(0, spare)  # those that have loaded ITK are taken first
        decoder.end()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            decoders, self._all, self._idle = self._all, set(), []
        for decoder in decoders:
            decoder.end()

    def leave(self) -> None:
        """Give up the processes of the parent in a forked process, and the lock, which another thread may have held."""
        for decoder in self._all:
            decoder.forget()
        self._reset()


_pool = _Pool()
atexit.register(_pool.close)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pool.leave)


@contextmanager
def borrow_decoder() -> Iterator[DecoderProcess]:
    """Lend a decoder process of this process; after any exception it is replaced by another.

    Raises:
        DecoderProcessError: if no process can be started.
    """
    decoder = _pool.take()
    try:
        yield decoder
    except BaseException:
        _pool.replace(decoder)
        raise
    _pool.give_back(decoder)
