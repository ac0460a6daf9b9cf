# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""vLLM's embedding-cache connector for rows of kept tokens in a shared folder. Runs inside vLLM.

A server is started with::

    --ec-transfer-config '{"ec_connector": "SharedRowsConnector", "ec_role": "ec_consumer",
        "ec_connector_module_path": "monai_medpruner.engines.vllm.shared_rows",
        "ec_connector_extra_config": {"folder": "/shared/rows"}}'

The scheduler's side reads and checks the rows of a request before the request is scheduled, in threads, while other
requests run. A request whose rows are missing, damaged or of another slice fails alone, and rows that were read cannot
vanish between check and use. The workers' side only puts them where vLLM keeps the outputs of encoders.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.ec_transfer.ec_connector.base import ECConnectorBase, ECConnectorMetadata, ECConnectorRole
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from monai_medpruner.engines.vllm.pruned_images import row_width
from monai_medpruner.engines.vllm.row_folder import read_rows
from monai_medpruner.errors import EngineError

__all__ = ["SharedRowsConnector"]

_logger = init_logger(f"vllm.{__name__}")

#: requests whose rows are read or wait in memory at once; further ones wait unread
_MOST_READ = 32
_THREADS = 4
#: seconds that a file system may take for a request's rows
_PATIENCE_S = 30.0


@dataclass
class _GivenRows(ECConnectorMetadata):
    """Rows that the scheduler hands to the workers, by the name of the slice."""

    rows: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class _Read:
    """A request's rows on their way into memory."""

    names: frozenset[str]
    rows: Future[dict[str, torch.Tensor]]
    started: float = field(default_factory=time.monotonic)


class SharedRowsConnector(ECConnectorBase):
    """Hands over rows that a client wrote with :func:`~monai_medpruner.engines.vllm.row_folder.write_rows`."""

    def __init__(self, vllm_config: Any, role: ECConnectorRole) -> None:
        super().__init__(vllm_config=vllm_config, role=role)
        folder = vllm_config.ec_transfer_config.get_from_extra_config("folder", None)
        if not folder or not Path(folder).is_dir():
            raise ValueError("ec_connector_extra_config must name an existing folder: {'folder': '/shared/rows'}")
        if self.is_producer:
            raise ValueError("ec_role must be ec_consumer: the client writes the rows")
        self._folder = Path(folder)
        self._dtype = vllm_config.model_config.dtype
        self._width = row_width(vllm_config.model_config.hf_config)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="rows")
        self._reads: dict[str, _Read] = {}
        self._given: dict[str, torch.Tensor] = {}
        self._failed: set[str] = set()

    # the scheduler's side

    def ensure_cache_available(self, request: Any, num_computed_tokens: int) -> bool:
        """Whether the request can be scheduled: the rows of all slices that are still to be computed are in memory."""
        features = [
            one
            for one in request.mm_features
            if _is_elsewhere(one) and one.mm_position.offset + one.mm_position.length > num_computed_tokens
        ]
        key = request.request_id
        if not features:
            self._reads.pop(key, None)
            return True
        read = self._reads.get(key)
        if read is None or not {one.identifier for one in features} <= read.names:
            if read is None and len(self._reads) >= _MOST_READ:
                return False
            names = frozenset(one.identifier for one in features)
            self._reads[key] = read = _Read(names, self._threads.submit(self._read, features))
        return self._is_read(key, read)

    def _is_read(self, key: str, read: _Read) -> bool:
        if not read.rows.done():
            if time.monotonic() - read.started > _PATIENCE_S:
                self._fail(key, f"the rows of its slices were not read within {_PATIENCE_S:.0f} s")
            return False
        error = read.rows.exception()
        if error is not None:
            self._fail(key, str(error))
            return False
        return True

    def _fail(self, key: str, reason: str) -> None:
        if key not in self._failed:
            _logger.error("request %s fails: %s", key, reason)
            self._failed.add(key)

    def _read(self, features: list[Any]) -> dict[str, torch.Tensor]:
        found = {}
        for one in features:
            data = {name: one.data[name].data for name in ("kept_count", "kept_positions", "kept_extent")}
            positions = data["kept_positions"].reshape(-1, 3)
            rows = read_rows(self._folder, one.identifier, positions, int(data["kept_extent"]))
            expected = (int(data["kept_count"]), self._width)
            if tuple(rows.shape) != expected:
                raise EngineError(f"the rows of a slice must have the shape {expected}, got {tuple(rows.shape)}")
            if not bool(rows.isfinite().all()):
                raise EngineError("the rows of a slice hold values that are not finite")
            found[one.identifier] = rows
        return found

    def take_unavailable_requests(self) -> set[str]:
        """The requests that fail, once each."""
        failed, self._failed = self._failed, set()
        return failed

    def has_cache_item(self, identifier: str) -> bool:
        """Whether the rows of a slice are in memory, for any request."""
        return self._in_memory(identifier) is not None

    def _in_memory(self, identifier: str) -> torch.Tensor | None:
        for read in self._reads.values():
            if identifier in read.names and read.rows.done() and read.rows.exception() is None:
                return read.rows.result()[identifier]
        return None

    def update_state_after_alloc(self, request: Any, index: int) -> None:
        """Hand a slice's rows to the workers with the next step."""
        name = request.mm_features[index].identifier
        rows = self._in_memory(name)
        if rows is not None:
            self._given[name] = rows

    def build_connector_meta(self, scheduler_output: Any) -> ECConnectorMetadata:
        """The rows that this step hands to the workers."""
        given, self._given = _GivenRows(self._given), {}
        return given

    def request_finished(self, request: Any) -> tuple[bool, dict[str, Any] | None]:
        """Forget the rows of a request, however it ended."""
        self._reads.pop(request.request_id, None)
        self._failed.discard(request.request_id)
        return False, None

    def shutdown(self) -> None:
        """Begin no further reads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # the workers' side

    def start_load_caches(self, encoder_cache: dict[str, torch.Tensor], **kwargs: Any) -> None:
        """Put the rows where the model runner looks for the outputs of encoders."""
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, _GivenRows)
        device = current_platform.device_type
        if current_platform.is_cuda_alike():
            device = f"{device}:{current_platform.current_device()}"
        with gpu_sync_allowed():
            for name, rows in metadata.rows.items():
                encoder_cache.setdefault(name, rows.to(device, self._dtype))

    def save_caches(self, encoder_cache: dict[str, torch.Tensor], mm_hash: str, **kwargs: Any) -> None:
        """Write nothing: the rows come from the client."""


def _is_elsewhere(feature: Any) -> bool:
    """Whether a request names a pruned slice without its rows."""
    return feature.data is not None and "kept_count" in feature.data and "image_embeds" not in feature.data
