# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Keys and values of a prompt's beginning in a cache folder, for runs of another day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.networks.cache_folder import CacheFolder
from monai_medpruner.results import package_versions
from monai_medpruner.results.sealed_file import seal_tensors, unseal_tensors
from monai_medpruner.terminal_text import package_logger

__all__ = ["PromptFiles"]

logger = package_logger(__name__)

_FORMAT = "monai_medpruner.prompt/1"
_KIND = ".prompt"
# of a folder's size: a larger file would drive out many studies, each of which saves more time
_LARGEST_SHARE = 0.1

Layers = list[tuple[torch.Tensor, torch.Tensor]]


class PromptFiles:
    """The beginnings of prompts, by the content of everything that they are made of.

    A beginning is found where the model, the packages' versions, all inputs of the language model and the slices'
    tokens are the same, byte for byte. A damaged file counts as absent, with a warning.

    Args:
        folder: shared with the encoded studies.
        describe: tells what the model is and how it runs, as JSON values; called once the model is loaded.
    """

    def __init__(self, folder: CacheFolder, describe: Callable[[], Mapping[str, Any]]) -> None:
        self.folder = folder
        self.describe = describe

    def digest(self, entries: Mapping[str, torch.Tensor], tokens: Sequence[torch.Tensor]) -> str:
        """Return the hash of all that keys and values are made of, 64 hexadecimal digits.

        Args:
            entries: inputs of the language model for the beginning, per token.
            tokens: of the slices, and their DeepStack rows.
        """
        versions = {name: version for name, version in package_versions().items() if name != "python"}
        found = hashlib.sha256(json.dumps([dict(self.describe()), versions], sort_keys=True).encode())
        for name, one in [*sorted(entries.items()), *((str(number), rows) for number, rows in enumerate(tokens))]:
            found.update(f"{name} {one.dtype} {tuple(one.shape)}".encode())
            found.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def read(self, digest: str, device: torch.device) -> Layers | None:
        """Return keys and values of each layer; None where they are not there."""
        file = self.folder.file(digest, _KIND)
        try:
            tensors, described = unseal_tensors(file.read_bytes(), _FORMAT)
            if described["digest"] != digest:
                raise ValueError("it holds another prompt than its name says")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SafetensorError) as error:
            logger.warning("a file of the cache folder is not used, its prompt is run again: %s", error)
            return None
        self.folder.mark_used(file)
        layers = range(len(tensors) // 2)
        return [(tensors[f"{one}.keys"].to(device), tensors[f"{one}.values"].to(device)) for one in layers]

    def write(self, digest: str, layers: Layers) -> None:
        """Keep keys and values, unless they are larger than a tenth of what the folder may be."""
        if sum(one.nbytes for pair in layers for one in pair) > _LARGEST_SHARE * self.folder.size_bytes:
            return

        def save(path: Path) -> None:
            named = ((f"{number}.{name}", one) for number, pair in enumerate(layers) for name, one in _named(pair))
            tensors = {name: one.detach().cpu().contiguous() for name, one in named}
            atomic_write(path, seal_tensors(tensors, {"format": _FORMAT, "digest": digest}))

        self.folder.write(self.folder.file(digest, _KIND), save)


def _named(pair: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    return [("keys", pair[0]), ("values", pair[1])]
