# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""How a vLLM server answers tensors that are none: with status 400, as other malformed input. Runs inside vLLM.

vLLM 0.32 lets the errors of ``torch.load`` pass, which its server takes for faults of its own (status 500).
"""

from __future__ import annotations

from typing import Any

from vllm.exceptions import VLLMError, VLLMValidationError
from vllm.multimodal.media import MediaConnector

__all__ = ["CheckedMediaConnector"]


class CheckedMediaConnector(MediaConnector):
    """The stock connector of media, registered under its own name by the plugin."""

    def fetch_image_embedding(self, data: str) -> Any:
        """Return the tensor that a request holds as base64 text."""
        try:
            return super().fetch_image_embedding(data)
        except (VLLMError, ValueError, MemoryError):
            raise
        except Exception as error:
            raise _refused(error) from error

    async def fetch_image_embedding_async(self, data: str) -> Any:
        """Return the tensor that a request holds as base64 text."""
        try:
            return await super().fetch_image_embedding_async(data)
        except (VLLMError, ValueError, MemoryError):
            raise
        except Exception as error:
            raise _refused(error) from error


def _refused(error: Exception) -> VLLMValidationError:
    return VLLMValidationError(f"a tensor cannot be read: {type(error).__name__}", parameter="image_embeds")
