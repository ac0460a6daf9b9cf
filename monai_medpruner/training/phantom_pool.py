# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A pool of training phantoms, generated in parallel and cached on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from monai_medpruner.data.phantom import PhantomSettings, generate_phantom, phantom_seed
from monai_medpruner.training.training_phantom import (
    FINDINGS,
    Preprocessing,
    TrainingPhantom,
    add_lesion,
    training_phantom,
)

__all__ = ["PhantomPool"]

_PHANTOMS_PER_FILE = 36  # planes, phases and findings are balanced over this many consecutive seeds


class PhantomPool(Sequence[TrainingPhantom]):
    """Phantoms of consecutive seeds, generated once, cached in a folder and held in memory.

    Args:
        folder: folder of the cached files, which are reused if the arguments are the same.
        seed: seed of the phantoms; a benchmark with another seed contains none of them.
        count: number of phantoms, rounded up to a multiple of 36, over which cases are balanced.
        settings: ranges to sample from.
        preprocessing: see :func:`training_phantom`.
        added_lesions: number of lesions added per phantom, each as a separate phantom of the slices around it, without
            answers (:func:`add_lesion`).
        token_pixels: see :func:`training_phantom`.
        workers: number of processes that generate phantoms; None for one per processor.
    """

    def __init__(
        self,
        folder: str | Path,
        seed: int,
        count: int,
        settings: PhantomSettings,
        preprocessing: Preprocessing,
        added_lesions: int = 0,
        token_pixels: int = 16,
        workers: int | None = None,
    ) -> None:
        described = repr(
            (
                asdict(settings),
                [repr(vars(one)) for one in getattr(preprocessing, "transforms", [preprocessing])],
                token_pixels,
                added_lesions,
            )
        )
        place = Path(folder) / f"seed_{seed}_{sha256(_without_addresses(described).encode()).hexdigest()[:12]}"
        place.mkdir(parents=True, exist_ok=True)
        blocks = range(-(-count // _PHANTOMS_PER_FILE))
        missing = [block for block in blocks if not _block_file(place, block).is_file()]
        if missing:
            arguments = (seed, settings, preprocessing, added_lesions, token_pixels)
            _generate(place, missing, arguments, min(workers or os.cpu_count() or 1, len(missing)))
        self.phantoms = [phantom for block in blocks for phantom in _read_block(_block_file(place, block))]

    def __len__(self) -> int:
        return len(self.phantoms)

    def __getitem__(self, index: Any) -> Any:
        return self.phantoms[index]


def _generate(place: Path, blocks: Sequence[int], arguments: tuple[Any, ...], workers: int) -> None:
    """Write the missing blocks, with one single-threaded process per worker."""
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        tasks = [executor.submit(_write_block, place, block, *arguments) for block in blocks]
        for task in tqdm(tasks, desc=f"files of {_PHANTOMS_PER_FILE} phantoms"):
            task.result()


def _without_addresses(text: str) -> str:
    """Remove memory addresses from a description, so that it is the same in every run."""
    return re.sub(r"0x[0-9a-f]+", "", text)


def _block_file(place: Path, block: int) -> Path:
    return place / f"block_{block:04d}.pt"


def _write_block(
    place: Path,
    block: int,
    seed: int,
    settings: PhantomSettings,
    preprocessing: Preprocessing,
    added_lesions: int,
    token_pixels: int,
) -> None:
    """Generate the phantoms of one block and write them atomically."""
    first = phantom_seed(seed, block * _PHANTOMS_PER_FILE)
    phantoms = []
    for number in range(first, first + _PHANTOMS_PER_FILE):
        phantom = generate_phantom(number, settings)
        phantoms.append(training_phantom(phantom, preprocessing, token_pixels))
        generator = np.random.default_rng([number, 2])
        for _ in range(added_lesions):
            finding = FINDINGS[generator.integers(len(FINDINGS))]
            if (added := add_lesion(phantom, finding, settings, generator)) is not None:
                phantoms.append(replace(training_phantom(added, preprocessing, token_pixels), answers={}))
    file = _block_file(place, block)
    part = file.with_suffix(f".{os.getpid()}")
    torch.save([_as_tensors(one) for one in phantoms], part)
    part.replace(file)


def _read_block(file: Path) -> list[TrainingPhantom]:
    read = torch.load(file, weights_only=True)  # runs nothing
    return [TrainingPhantom(**{name: _array(value) for name, value in fields.items()}) for fields in read]


def _as_tensors(phantom: TrainingPhantom) -> dict[str, Any]:
    """Return a phantom's fields, with tensors for arrays, which the safe loader of PyTorch takes."""
    return {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for name, value in vars(phantom).items()
    }


def _array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
