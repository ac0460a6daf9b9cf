# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A whole prompt as embeddings, for language models that vLLM loads without their vision part."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from monai_medpruner.engines.vllm.pruned_request import PrunedRequest
from monai_medpruner.errors import CheckpointError

__all__ = ["prompt_embeddings"]

_TABLE = "model.embed_tokens.weight"


def prompt_embeddings(request: PrunedRequest, language_model: str) -> torch.Tensor:
    """Return the input of the language model, ``(L, C)``: rows of its table, and those of the kept tokens.

    Args:
        request: the prompt.
        language_model: folder of the exported language model.

    Raises:
        CheckpointError: the folder holds no table of embeddings.
    """
    ids = torch.tensor(request.full_ids)
    visual = ids == request.image_token_id
    used, places = ids[~visual].unique(return_inverse=True)
    kept = torch.cat(list(request.rows))
    rows = kept.new_empty(len(ids), kept.shape[1])  # stored weights may be of a smaller type than what runs
    rows[~visual] = _table_rows(Path(language_model), used.tolist())[places].to(kept.dtype)
    rows[visual] = kept
    return rows


def _table_rows(folder: Path, ids: list[int]) -> torch.Tensor:
    """Read some rows of the table, none else."""
    index = folder / "model.safetensors.index.json"
    name = "model.safetensors"
    try:
        if index.exists():
            name = json.loads(index.read_text(encoding="utf-8"))["weight_map"][_TABLE]
        with safe_open(folder / name, "pt") as file:
            table = file.get_slice(_TABLE)
            return torch.cat([table[one : one + 1] for one in ids])
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no {_TABLE}; write it with 'medpruner export_language_model'") from error
