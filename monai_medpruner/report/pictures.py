# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Slices as WebP pictures in a page of limited size."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from monai_medpruner.report.study_image import StudyImage

__all__ = ["MOST_BYTES", "Pictures", "slice_pictures"]

#: bytes that the pictures of a page may take, as text; a hundred kept slices of 512 by 512 in three windows
MOST_BYTES = 13_500_000
_DROPPED_SIDE, _THUMB_SIDE = 256, 96
_DROPPED_QUALITY, _THUMB_QUALITY = 55, 45
#: quality and share of the side, best first; the last one is taken whatever it costs
_STEPS = ((85, 1.0), (75, 1.0), (60, 1.0), (45, 1.0), (45, 0.75), (45, 0.5), (40, 0.35), (35, 0.25))
_SAMPLES = 8
_SAFETY = 1.1  # between the samples and all slices


@dataclass(frozen=True)
class Pictures:
    """Pictures of the slices of a study, as base64 text of WebP files.

    Args:
        slices: for each slice its pictures: one for each window for a kept slice, one for a dropped one.
        thumbs: for each slice a small picture.
        note: how large and how good they are.
    """

    slices: list[list[str]]
    thumbs: list[str]
    note: str


def slice_pictures(image: StudyImage, kept: Collection[int], most_bytes: int = MOST_BYTES) -> Pictures:
    """Make the pictures of all slices: kept ones as large and good as the size of the page allows.

    Args:
        image: of the study.
        kept: indices of the slices that are shown in all windows.
        most_bytes: that the pictures may take together, as text.
    """
    depth = image.scaled.shape[-1]
    height, width = (int(one) for one in image.scaled.shape[1:3])
    thumbs = [_webp(image.windows[0](index), _THUMB_SIDE, _THUMB_QUALITY) for index in range(depth)]
    dropped = {i: _webp(image.windows[0](i), _DROPPED_SIDE, _DROPPED_QUALITY) for i in range(depth) if i not in kept}
    room = most_bytes - sum(map(len, thumbs)) - sum(map(len, dropped.values()))
    quality, share = _affordable(image, sorted(kept), room)
    side = max(1, round(max(height, width) * share))
    slices = [
        [dropped[index]] if index in dropped else [_webp(window(index), side, quality) for window in image.windows]
        for index in range(depth)
    ]
    smaller = f", reduced to {share:.0%} of their size to keep the page small" if share < 1 else " at full size"
    note = (
        f"Kept slices{smaller} ({height} × {width} pixels), {len(image.windows)} window(s), WebP quality {quality}; "
        f"dropped slices in one window at {_DROPPED_SIDE} pixels at most. Compressed: not for reading findings."
    )
    return Pictures(slices, thumbs, note)


def _affordable(image: StudyImage, kept: Sequence[int], room: float) -> tuple[int, float]:
    """The best step whose pictures of all kept slices fit, judged by some of them."""
    samples = [kept[place] for place in np.linspace(0, len(kept) - 1, min(_SAMPLES, len(kept)), dtype=int)]
    side = max(image.scaled.shape[1:3])
    for quality, share in _STEPS:
        sizes = [len(_webp(one(i), max(1, round(side * share)), quality)) for i in samples for one in image.windows]
        if sum(sizes) / len(samples) * len(kept) * _SAFETY <= room:
            return quality, share
    return _STEPS[-1]


def _webp(pixels: np.ndarray, longest: int, quality: int) -> str:
    """A picture as base64 text, shrunk where its longer side is above ``longest``."""
    picture = Image.fromarray(pixels)
    scale = longest / max(picture.size)
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=2)
    return base64.b64encode(stream.getvalue()).decode()
