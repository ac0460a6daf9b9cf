# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Draw the figure of docs/label.md: the overlay of a phantom over its CT.

``python scripts/label_picture.py model=phantom``. The arguments are those of ``--conf`` of the MONAI Label app.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from PIL import Image

from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.label.configuration import configuration
from monai_medpruner.label.parameters import OverlayParameters
from monai_medpruner.label.study_model import StudyModel

TARGET = Path(__file__).parents[1] / "docs" / "label_overlay.png"
COLORS = {1: (70, 110, 220), 2: (40, 190, 90), 3: (250, 150, 40)}
PHANTOMS, HEIGHT, WINDOW = 12, 260, (-160, 240)


def main(conf: dict[str, str]) -> None:
    """Write the figure."""
    with TemporaryDirectory() as folder:
        phantom_command(PHANTOMS, 7, Path(folder), PRESETS["small"])  # as in the training data of the model
        truths = [json.loads(line) for line in (Path(folder) / "phantoms.jsonl").read_text().splitlines()]
        truth = next(one for one in truths if one["plane"] == "axial" and one["lesions"])
        image = Path(folder) / truth["image"]
        app = StudyModel.from_configuration(configuration(conf))
        file, described = app.write_overlay(image, OverlayParameters(), Path(folder))
        voxels, labels, lesion = (_canonical(one) for one in (image, file, Path(folder) / truth["lesion_mask"]))
    depth = labels.shape[2]
    kept = [index for index in range(depth) if labels[..., index].any()]
    dropped = [index for index in range(depth) if index not in kept]
    center = int(lesion.sum((0, 1)).argmax())
    with_lesion = min(kept, key=lambda index: abs(index - center))
    chosen = sorted({with_lesion, *dropped[len(dropped) // 2 :][:1], kept[len(kept) // 4], kept[3 * len(kept) // 4]})
    tiles = [_tile(voxels[..., index], labels[..., index]) for index in chosen]
    picture = Image.new("RGB", (sum(tile.width for tile in tiles) + 6 * (len(tiles) - 1), HEIGHT), "white")
    left = 0
    for tile in tiles:
        picture.paste(tile, (left, 0))
        left += tile.width + 6
    picture.save(TARGET, optimize=True)
    print(f"slices {chosen} of {depth}, {described['slices']['kept']} kept, lesion around {center}: {TARGET}")


def _canonical(file: Path) -> np.ndarray:
    """Return the voxels in RAS orientation."""
    return np.asarray(nib.as_closest_canonical(nib.load(file)).dataobj)


def _tile(voxels: np.ndarray, labels: np.ndarray) -> Image.Image:
    low, high = WINDOW
    gray = np.clip((voxels - low) / (high - low), 0, 1)[..., None].repeat(3, -1) * 255
    for value, color in COLORS.items():
        gray[labels == value] = 0.65 * gray[labels == value] + 0.35 * np.array(color)
    # radiological convention: anterior up, the patient's right on the left
    upright = np.rot90(gray.astype(np.uint8))[:, ::-1]
    return Image.fromarray(upright).resize((HEIGHT * upright.shape[1] // upright.shape[0], HEIGHT), Image.NEAREST)


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
