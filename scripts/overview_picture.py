# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Draw the figure of the README, docs/pruning_overview.png, from a real run: ``python scripts/overview_picture.py``.

The volume is the third phantom of ``medpruner phantom --preset small --count 3 --seed 7``, as in the README's run
command. The model is the small VideoLLaMA3 of bundles/medpruner_phantom. The upper part shows all slices, the lower
part four kept slices with their tokens.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Circle, Rectangle
from monai.transforms import Compose

from monai_medpruner.data.phantom import PRESETS, phantom_command
from monai_medpruner.engines import TransformersEngine, VolumeQA
from monai_medpruner.networks import Checkpoint, TransformersEncoder
from monai_medpruner.pruners import NucleusPruner
from monai_medpruner.results import SliceRecord
from monai_medpruner.training import PHANTOM_PROMPT
from monai_medpruner.transforms import HUWindowsd, InterSliceAnchorFilterd, LoadVolumed, SlicePlaned

REPOSITORY = Path(__file__).parents[1]
CHECKPOINT = REPOSITORY / "bundles" / "medpruner_phantom" / "models" / "video_llama_3"
TARGET = REPOSITORY / "docs" / "pruning_overview.png"
COUNT, SEED, WINDOW = 3, 7, (-160, 340)
GAMMA, GUARD_MM, GUARD_THRESHOLD, TAU, TEMPERATURE = 0.04, 25.0, 0.25, 0.1, 1.0
QUESTION = "Which organ bears the lesion?"
KEPT, MERGED, LESION, TEXT, FAINT = "#1565c0", "#ef6c00", "#00b8a9", "#212121", "#757575"
STRIP_COLUMNS, LARGE = 17, 4
SOURCE = "Synthetic coronal phantom; small VideoLLaMA3 trained on such phantoms; " + (
    f"γ {GAMMA:g}, guard {GUARD_MM:g} mm, τ {TAU:g}"
)


def main(target: Path = TARGET) -> None:
    """Write the figure and print the number of kept slices and the answer."""
    with TemporaryDirectory() as folder:
        phantom_command(COUNT, SEED, Path(folder), PRESETS["small"])
        truth = [json.loads(line) for line in (Path(folder) / "phantoms.jsonl").read_text("utf-8").splitlines()][-1]
        files = {"image": Path(folder) / truth["image"], "lesion": Path(folder) / truth["lesion_mask"]}
        load = Compose([LoadVolumed(list(files)), SlicePlaned(list(files)), HUWindowsd("image", [WINDOW])])
        loaded = load({name: str(path) for name, path in files.items()})
    slice_filter = InterSliceAnchorFilterd("image", threshold=GAMMA, guard_mm=GUARD_MM, guard_threshold=GUARD_THRESHOLD)
    selected = slice_filter({"image": loaded["image"]})["image"]
    slices, answer = answered(selected)
    kept = dict(zip(selected.meta["kept_indices"], slices, strict=True))
    figure = draw(loaded["image"][0].numpy(), loaded["lesion"][0].numpy() > 0, kept, _answer_text(answer, truth))
    figure.savefig(target, dpi=160, facecolor="white")
    sys.stdout.write(f"{target}: {len(kept)} slices kept, answer {answer!r}\n")


def answered(volume: Any) -> tuple[Sequence[SliceRecord], str]:
    """Return the record of each kept slice, and the model's answer to the question."""
    checkpoint = Checkpoint(CHECKPOINT, device="cpu")
    encoder = TransformersEncoder(checkpoint, NucleusPruner(tau=TAU, temperature=TEMPERATURE))
    network = VolumeQA(encoder, TransformersEngine(checkpoint, max_new_tokens=16), PHANTOM_PROMPT)
    (study,) = network(volume[None], [[QUESTION]])
    return study.record.slices, study.answers[0].text


def _answer_text(answer: str, truth: Mapping[str, Any]) -> str:
    right = ", ".join(one["organ"] for one in truth["lesions"])
    return f"“{QUESTION}”   Answer: {answer}   (truth: {right})"


def draw(image: np.ndarray, lesion: np.ndarray, kept: Mapping[int, SliceRecord], answer: str) -> Figure:
    """Draw all slices of a volume ``(H, W, D)`` in [0, 1], and some kept ones with their tokens and the lesion."""
    depth, patches = image.shape[2], next(iter(kept.values())).keep.numel()
    tokens = sum(int(one.keep.sum()) for one in kept.values())
    rows = -(-depth // STRIP_COLUMNS)
    heights = [0.42 + 0.6 * rows, 3.35]
    figure = Figure(figsize=(10, sum(heights)))
    strip, large = figure.subfigures(2, 1, height_ratios=heights)
    _title(strip, f"1  Slice filter: {len(kept)} of {depth} slices are kept")
    note = "framed: kept    dimmed: dropped    dot: the lesion is in this slice"
    strip.text(0.988, 1 - 0.17 / heights[0], note, color=FAINT, fontsize=9, va="center", ha="right")
    for index, axes in enumerate(strip.subplots(rows, STRIP_COLUMNS, squeeze=False).ravel()):
        _small(axes, image, lesion, index, index in kept)
    strip.subplots_adjust(left=0.012, right=0.988, top=1 - 0.36 / heights[0], bottom=0.02, hspace=0.1, wspace=0.1)
    share = 100 * tokens / (depth * patches)
    _title(
        large,
        f"2  Token pruning: {tokens} of {depth} × {patches} = {depth * patches:,} tokens are kept ({share:.1f} %)",
    )
    panels = large.subplots(1, LARGE)
    for axes, index in zip(panels, _chosen(lesion, list(kept)), strict=True):
        _large(axes, image[..., index], lesion[..., index], index, kept[index])
    large.subplots_adjust(left=0.012, right=0.988, top=0.83, bottom=0.205, wspace=0.03)
    legend = [(KEPT, "selected token"), (MERGED, "contextual token: the others, merged"), (LESION, "lesion")]
    for place, (color, text) in zip((0.012, 0.16, 0.46), legend, strict=True):
        large.text(place, 0.155, "■", color=color, fontsize=11, va="center")
        large.text(place + 0.016, 0.155, text, color=TEXT, fontsize=9, va="center")
    large.text(0.012, 0.09, answer, color=TEXT, fontsize=10.5, weight="bold", va="center")
    large.text(0.012, 0.03, SOURCE, color=FAINT, fontsize=9, va="center")
    return figure


def _title(figure: SubFigure, text: str) -> None:
    height = figure.bbox.height / figure.figure.dpi
    figure.text(0.012, 1 - 0.17 / height, text, color=TEXT, fontsize=12, weight="bold", va="center")


def _small(axes: Axes, image: np.ndarray, lesion: np.ndarray, index: int, kept: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(kept)
        spine.set(color=KEPT, linewidth=1.8)
    if index >= image.shape[2]:
        axes.set_visible(False)
        return
    axes.imshow(image[..., index], cmap="gray", vmin=0, vmax=1, alpha=1 if kept else 0.3)
    if lesion[..., index].any():
        axes.plot([0.9], [0.9], marker="o", color=LESION, markersize=4, transform=axes.transAxes)


def _large(axes: Axes, image: np.ndarray, lesion: np.ndarray, index: int, record: SliceRecord) -> None:
    axes.set_axis_off()
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    rows, columns = record.grid
    height, width = image.shape[0] / rows, image.shape[1] / columns
    for token in range(rows * columns):
        left, top = token % columns * width - 0.5, token // columns * height - 0.5
        if not record.keep[token]:
            axes.add_patch(Rectangle((left, top), width, height, facecolor="black", alpha=0.45, linewidth=0))
    for mask, color in ((record.contextual, MERGED), (record.primary, KEPT)):
        for token in mask.nonzero().ravel().tolist():
            left, top = token % columns * width - 0.5, token // columns * height - 0.5
            axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=2.5))
    if lesion.any():
        row, column = np.argwhere(lesion).mean(0)
        axes.add_patch(Circle((column, row), 5, fill=False, edgecolor=LESION, linewidth=2))
    axes.set_title(
        f"slice {index + 1}: {int(record.keep.sum())} of {record.keep.numel()} tokens", fontsize=9.5, color=TEXT, pad=4
    )


def _chosen(lesion: np.ndarray, kept: Sequence[int]) -> list[int]:
    """Return the kept slice with most of the lesion, and evenly spaced kept slices without it."""
    most = max(kept, key=lambda index: int(lesion[..., index].sum()))
    others = [index for index in kept if not lesion[..., index].any()]
    return sorted([most, *(others[len(others) * place // (LARGE + 1)] for place in (1, 3, 4))])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
