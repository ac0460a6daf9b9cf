# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""vLLM behind its OpenAI-compatible server."""

from __future__ import annotations

import base64
import http.client
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from monai_medpruner.engines.conversation import Conversation
from monai_medpruner.engines.vllm.prompt_embeddings import prompt_embeddings
from monai_medpruner.engines.vllm.pruned_request import PrunedRequest
from monai_medpruner.engines.vllm.row_folder import write_rows
from monai_medpruner.engines.vllm.vllm_engine import Completion, VLLMEngine
from monai_medpruner.errors import EngineError, EngineUnreachableError, SettingsError
from monai_medpruner.networks import Checkpoint, EncodedStudy

__all__ = ["ServerVLLMEngine"]

# stated in full, since the server's defaults come from the checkpoint's generation_config.json
_GREEDY = {
    "temperature": 0,
    "top_p": 1.0,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


class ServerVLLMEngine(VLLMEngine):
    """A vLLM server, started with ``--enable-mm-embeds`` and this package installed beside it.

    Kept rows travel in the request, or through a folder that both sides reach: then each slice is written once, a
    request names it by its hash, and the server reads it with
    :class:`~monai_medpruner.engines.vllm.shared_rows.SharedRowsConnector`.

    The server writes the prompt by the checkpoint's chat template; an answer counts only if its ids are those that were
    written here. The seconds of "prefill" are those spent here; those of "decode" are the server's, with its own
    prefill and the time in its queue.

    Args:
        checkpoint: see :class:`VLLMEngine`.
        endpoint: address of the server, such as ``http://127.0.0.1:8000``.
        max_new_tokens: maximum length of an answer.
        language_model: for VideoLLaMA3, the folder that the server serves; see
            :class:`~monai_medpruner.engines.vllm.OfflineVLLMEngine`.
        row_folder: existing folder for the rows; None sends them in the requests.
        timeout_s: seconds to wait for an answer.
        connections: requests at once.

    Raises:
        SettingsError: the endpoint is no http address, or ``max_new_tokens`` is not positive.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        endpoint: str,
        *,
        max_new_tokens: int = 256,
        language_model: str | Path | None = None,
        row_folder: str | Path | None = None,
        timeout_s: float = 600.0,
        connections: int = 16,
    ) -> None:
        super().__init__(checkpoint, max_new_tokens=max_new_tokens)
        if not endpoint.startswith(("http://", "https://")):
            raise SettingsError(f"endpoint must be an http address such as http://127.0.0.1:8000, got {endpoint!r}")
        self.endpoint = endpoint.rstrip("/")
        self.language_model = None if language_model is None else str(language_model)
        self.row_folder = None if row_folder is None else Path(row_folder)
        self.timeout_s = timeout_s
        self.connections = connections
        self._served: str | None = None

    def _complete(
        self,
        asked: Sequence[tuple[EncodedStudy, Conversation]],
        requests: Sequence[PrunedRequest],
        limits: Sequence[int],
    ) -> list[Completion]:
        # bodies are written in the threads, since many of them together may be gigabytes
        with ThreadPoolExecutor(min(self.connections, len(requests))) as threads:
            return list(threads.map(self._one, asked, requests, limits))

    def _body(self, asked: tuple[EncodedStudy, Conversation], request: PrunedRequest) -> tuple[str, dict[str, Any]]:
        """The address of the API that takes a request, and the prompt in its form."""
        if self.by_embeddings:
            if self.row_folder is not None:
                raise SettingsError(
                    f"row_folder is not for {self.checkpoint.name}: its whole prompt is sent; leave it out"
                )
            if self.language_model is None:
                raise SettingsError("give the folder of the exported language model, which the server serves")
            return "/v1/completions", {"prompt_embeds": _base64(prompt_embeddings(request, self.language_model))}
        study, conversation = asked
        numbers = [index + 1 for index in study.record.slice_indices]
        return "/v1/chat/completions", {"messages": _messages(self._image_parts(request), conversation, numbers)}

    def _image_parts(self, request: PrunedRequest) -> list[dict[str, Any]]:
        """The slices as the server's API takes them, with their rows unless these are written to the folder."""
        names = request.slice_names() if self.row_folder is None else write_rows(self.row_folder, request)
        parts = []
        for rows, positions, extent, name in zip(request.rows, request.positions, request.extents, names, strict=True):
            fields: dict[str, Any] = {} if self.row_folder is not None else {"image_embeds": _base64(rows)}
            fields |= {
                "kept_count": [len(positions)],
                "kept_positions": positions.flatten().tolist(),
                "kept_extent": [extent],
                "kept_written": [0],
            }
            parts.append({"type": "image_embeds", "image_embeds": fields, "uuid": name})
        return parts

    def _one(self, asked: tuple[EncodedStudy, Conversation], request: PrunedRequest, limit: int) -> Completion:
        path, prompt = self._body(asked, request)
        sampling = {"max_tokens": limit, "return_token_ids": True, **_GREEDY}
        started = perf_counter()
        reply = self._send(path, {"model": self._model_name(), **sampling, **prompt})
        # the server does not tell its prefill from its decoding
        seconds = {"decode": perf_counter() - started}
        choice = reply["choices"][0]
        written = reply.get("prompt_token_ids") or choice.get("prompt_token_ids")
        if not self.by_embeddings and written != request.full_ids:
            raise EngineError(
                "the server wrote another prompt than this side: it serves another checkpoint or chat template, or "
                "runs without the plugin of monai_medpruner"
            )
        details = (reply.get("usage") or {}).get("prompt_tokens_details") or {}
        cut = choice.get("finish_reason") == "length"
        return Completion(choice["token_ids"], cut, details.get("cached_tokens") or 0, seconds)

    def _model_name(self) -> str:
        """The name under which the server serves its model."""
        if self._served is None:
            self._served = str(self._send("/v1/models")["data"][0]["id"])
        return self._served

    def _send(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.endpoint + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            if self.row_folder is not None and error.code >= 500:
                said += f" (its log has the reason; does it read the rows from {self.row_folder}?)"
            raise EngineError(f"the vLLM server refused the request with status {error.code}: {said}") from error
        except TimeoutError as error:
            raise EngineError(f"the vLLM server did not answer within {self.timeout_s:g} seconds") from error
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:  # also an answer that is cut off
            reason = getattr(error, "reason", error)
            raise EngineUnreachableError(f"no answer from the vLLM server at {self.endpoint}: {reason}") from error

    def describe(self) -> dict[str, Any]:
        """Return the engine's name and settings as JSON values."""
        return {**super().describe(), "where": "server"}


def _messages(slices: Sequence[dict[str, Any]], conversation: Conversation, numbers: list[int]) -> list[dict[str, Any]]:
    """The conversation in the form of the server's API, slices as embeddings.

    Args:
        slices: the parts of the message that stand for the slices.
        conversation: the texts.
        numbers: of the slices, from 1.
    """
    content = conversation.prompt.content(numbers, conversation.turns[0], "")
    images = iter(slices)
    messages: list[dict[str, Any]] = []
    if system := conversation.prompt.system:
        messages.append({"role": "system", "content": [{"type": "text", "text": system}]})
    parts = [next(images) if one["type"] == "image" else one for one in content]
    messages.append({"role": "user", "content": parts})
    for number, turn in enumerate(conversation.turns[1:]):
        role = "user" if number % 2 else "assistant"
        messages.append({"role": role, "content": [{"type": "text", "text": turn}]})
    return messages


def _base64(tensor: torch.Tensor) -> str:
    buffer = io.BytesIO()
    torch.save(tensor.contiguous(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()
