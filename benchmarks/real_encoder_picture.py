# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Where a real encoder's attention goes: slices, the attention that their tokens receive, and what a selector keeps."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image
from real_encoder_features import GRID, Source, planes, resized
from real_encoder_selectors import SELECTORS, read_features

PLACES = (("ct_torso", 0.25), ("ct_torso", 0.7), ("ct_full", 0.4))
SHARE = 0.1
LARGEST = 4.0  # of the attention's scale, relative to uniform


def draw_sinks(sets: dict[str, list[Source]], work: Path, file: Path) -> None:
    """Draw a few slices of the CTs.

    Columns: the slice with its organs outlined; the attention that tokens receive in the middle and in the last block;
    the tenth of all tokens, and the tenth among body tokens, with the highest attention in the last block, those of no
    organ in red.
    """
    titles = (
        "slice and organs",
        "attention, block 6 of 12",
        "attention, last block",
        "highest 10 %",
        "the same in the body",
    )
    figure = Figure(figsize=(10, 2.05 * len(PLACES)), layout="constrained")
    axes = figure.subplots(len(PLACES), len(titles))
    for row, (name, depth) in zip(axes, PLACES, strict=True):
        found = sets[name]
        number = int(depth * len(found)) if len(found) > 1 else 0
        features = read_features(found[number], number, work / name)
        index = int(depth * len(features.tokens)) if len(found) == 1 else 0
        plane = resized(list(planes(found[number]))[index][2], "bilinear").numpy()
        organs = features.organs[index].view(GRID, GRID)
        for axis, block in zip(row[1:3], (1, 3), strict=True):
            axis.imshow(features.received[index, block].view(GRID, GRID), vmin=0, vmax=LARGEST, cmap="viridis")
        row[0].imshow(plane, cmap="gray")
        row[0].contour(np.kron((organs > 0).numpy(), np.ones((14, 14))), [0.5], colors="tab:cyan", linewidths=0.6)
        for axis, selector in zip(row[3:], ("nucleus", "body, nucleus"), strict=True):
            keep = SELECTORS[selector](features, SHARE)[0][index].view(GRID, GRID)
            kinds = torch.where(keep, torch.where(organs > 0, 1, 2), 0)
            axis.imshow(plane, cmap="gray", extent=(0, GRID, GRID, 0))
            shown = np.ma.masked_equal(kinds.numpy(), 0)
            colors = ListedColormap(["tab:cyan", "tab:red"])
            axis.imshow(shown, cmap=colors, vmin=1, vmax=2, alpha=0.75, extent=(0, GRID, GRID, 0))
        row[0].set_ylabel(name)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=60)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.open(drawn).convert("RGB").quantize(128).save(file, optimize=True)  # a third of the size
