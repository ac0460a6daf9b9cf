# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Tokens, attention and organ masks of real slices, from a real DINOv2 encoder, one file a slice in a work folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate, pad
from transformers import Dinov2Model

from monai_medpruner.pruners import attention_received, class_attention
from monai_medpruner.transforms import LoadVolume, SlicePlane
from monai_medpruner.transforms.body_mask import find_body

SIDE = 518  # pixels, the size that the encoder was trained at
PATCH = 14
GRID = SIDE // PATCH
BLOCKS = (2, 5, 8, 11)  # whose received attention is kept; 5 is the middle one of 12, 11 the last
WINDOW_HU = (-160.0, 240.0)
CROP_DEPTHS = (0.25, 0.45, 0.65)  # of the crops in turn, so that some slices show one part of the hippocampus alone
MR_PERCENTILES = (0.01, 0.99)
COVERED = 0.25  # a token belongs to the organ that covers most of it, from this share of its pixels on
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the encoder's image processor


@dataclass(frozen=True)
class Source:
    """One real volume, and which of its slices are encoded.

    Args:
        image: file of the volume.
        labels: file of the organs, on the same grid.
        slices: which slices: every one of so many, or, below 1, the one at this share of the depth.
        ct: whether voxels are in HU.
        group: slices that form one group for folds and intervals, in slices of the volume; None: the whole volume.
    """

    image: Path
    labels: Path
    slices: float
    ct: bool
    group: int | None

    def indices(self, depth: int) -> list[int]:
        """Indices of the slices that are encoded."""
        return [int(self.slices * depth)] if self.slices < 1 else list(range(0, depth, int(self.slices)))


def sources(data: Path, crop_step: int = 1) -> dict[str, list[Source]]:
    """The volumes of each data set in the folder of the real volumes; of the crops every ``crop_step``-th."""
    torso, whole = data / "ct_torso_nifti", data / "ct_full"
    crops = sorted((data / "mr_hippocampus" / "images").glob("*.nii.gz"))[::crop_step]
    return {
        "ct_torso": [Source(torso / "ct.nii.gz", torso / "ct_organs.nii.gz", 1, True, 9)],
        "ct_full": [Source(whole / "s0024.nii.gz", whole / "s0024_organs.nii.gz", 12, True, 36)],
        "mr_hippocampus": [
            Source(one, one.parents[1] / "labels" / one.name, CROP_DEPTHS[number % 3], False, None)
            for number, one in enumerate(crops)
        ],
    }


def square(plane: torch.Tensor, value: float) -> torch.Tensor:
    """Pad a plane ``(H, W)`` to a square, evenly on both sides."""
    height, width = plane.shape
    side = max(plane.shape)
    left, top = (side - width) // 2, (side - height) // 2
    return pad(plane, (left, side - width - left, top, side - height - top), value=value)


def resized(plane: torch.Tensor, mode: str) -> torch.Tensor:
    """Resize a square plane to the encoder's pixels, ``(SIDE, SIDE)``."""
    options = {"mode": mode} if mode == "nearest-exact" else {"mode": mode, "align_corners": False}
    return interpolate(plane[None, None].float(), (SIDE, SIDE), **options)[0, 0]


def token_labels(labels: torch.Tensor) -> np.ndarray:
    """Organ of each token, int64 ``(GRID * GRID,)``: the label with the most pixels, if it has enough; else 0.

    Args:
        labels: int ``(SIDE, SIDE)``, 0 where there is no organ.
    """
    patches = labels.reshape(GRID, PATCH, GRID, PATCH).permute(0, 2, 1, 3).reshape(GRID * GRID, PATCH * PATCH).long()
    counts = torch.zeros(len(patches), int(patches.max()) + 1, dtype=torch.long)
    counts.scatter_add_(1, patches, torch.ones_like(patches))
    counts[:, 0] = 0
    most, organ = counts.max(1)
    return torch.where(most >= COVERED * PATCH * PATCH, organ, 0).numpy()


def token_share(mask: torch.Tensor) -> np.ndarray:
    """Share of each token's pixels that a mask covers, float32 ``(GRID * GRID,)``."""
    return mask.float().reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)).flatten().numpy()


def planes(source: Source) -> Iterator[tuple[int, float, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Index, position in mm, intensities in 0 to 1, labels and body of each slice that is encoded, all squares."""
    view = SlicePlane("axial")
    image, labels = (view(LoadVolume()(path)) for path in (source.image, source.labels))
    positions = image.meta["slice_positions_mm"]
    voxels = image.as_tensor()[0].float()
    if source.ct:
        found = find_body(voxels, [float(size) for size in image.pixdim])
        if found is None:
            raise ValueError(f"{source.image.name} holds no air, so that its body cannot be told from it")
        mask, steps = found
        low, high = WINDOW_HU
    else:  # a crop of the head: all of it is body, but not the margins of the square
        mask, steps = np.ones(voxels.movedim(-1, 0).shape, bool), (1, 1, 1)
        low, high = (float(one) for one in torch.quantile(voxels.flatten(), torch.tensor(MR_PERCENTILES)))
    scaled = ((voxels - low) / (high - low)).clamp(0, 1)
    for index in source.indices(voxels.shape[-1]):
        body = torch.from_numpy(mask[index // steps[2]]).float()
        body = body.repeat_interleave(steps[0], 0).repeat_interleave(steps[1], 1)[: voxels.shape[0], : voxels.shape[1]]
        parts = (scaled[..., index], labels.as_tensor()[0, ..., index].round(), body)
        yield index, float(positions[index]), *(square(one, 0.0) for one in parts)


@torch.inference_mode()
def encode(model: Dinov2Model, plane: torch.Tensor) -> dict[str, np.ndarray]:
    """Tokens and signals of one slice.

    Args:
        model: DINOv2 without register tokens.
        plane: ``(SIDE, SIDE)`` in 0 to 1.

    Returns:
        ``tokens`` ``(M, C)`` after the last norm and ``keys`` ``(M, d)`` of the last block, float16; ``norms`` ``(M,)``
        of the tokens before that norm; ``received`` ``(4, M)`` in :data:`BLOCKS` and ``class`` ``(12, M)``, relative to
        uniform attention, float32.
    """
    pixels = torch.stack([(plane - mean) / std for mean, std in zip(_MEAN, _STD, strict=True)])[None]
    seen: dict[str, list[torch.Tensor]] = {"query": [], "key": [], "last": []}
    layers = model.encoder.layer
    handles = [layer.attention.q_proj.register_forward_hook(_remember(seen["query"])) for layer in layers]
    handles += [layer.attention.k_proj.register_forward_hook(_remember(seen["key"])) for layer in layers]
    handles.append(layers[-1].register_forward_hook(_remember(seen["last"])))
    try:
        tokens = model(pixels).last_hidden_state[0, 1:]
    finally:
        for handle in handles:
            handle.remove()
    heads = model.config.num_attention_heads
    query, key = (
        [one[0].unflatten(-1, (heads, -1)).transpose(0, 1) for one in seen[name]] for name in ("query", "key")
    )
    received = [attention_received(query[block][:, 1:], key[block][:, 1:]) for block in BLOCKS]
    of_class = [class_attention(one[:, :1], other) for one, other in zip(query, key, strict=True)]
    return {
        "tokens": tokens.half().numpy(),
        "keys": key[-1][:, 1:].mean(0).half().numpy(),
        "norms": seen["last"][0][0, 1:].norm(dim=-1).numpy(),
        "received": torch.stack(received).numpy(),
        "class": torch.stack(of_class).numpy(),
    }


def _remember(into: list[torch.Tensor]):  # type: ignore[no-untyped-def]
    def hook(_: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        into.append(output[0] if isinstance(output, tuple) else output)

    return hook


def encode_all(model: Dinov2Model, found: Sequence[Source], folder: Path) -> float:
    """Encode the slices that the folder does not hold yet; one file each.

    Returns:
        Seconds of CPU time that it took.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    for number, source in enumerate(found):
        done = folder / f"{number:03d}.done"
        if done.exists():
            continue
        for index, position, plane, labels, body in planes(source):
            file = folder / f"{number:03d}_{index:04d}.npz"
            if file.exists():
                continue
            pixels = resized(plane, "bilinear")
            facts = {
                "organs": token_labels(resized(labels, "nearest-exact")),
                "body": token_share(resized(body, "nearest-exact")) >= 0.5,
                "intensity": token_share(pixels),
                "position_mm": np.float64(position),
            }
            written = file.with_suffix(".part")
            with written.open("wb") as stream:
                np.savez(stream, **facts, **encode(model, pixels))
            written.replace(file)
        done.touch()
        print(f"{folder.name}: volume {number + 1} of {len(found)}, {time.process_time() - start:.0f} s", flush=True)
    return time.process_time() - start
