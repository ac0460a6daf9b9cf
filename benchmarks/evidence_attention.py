# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Distribution of attention by tissue and by position, and overlaid on slices with a lesion."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_recall import volume_names
from matplotlib.figure import Figure
from monai.transforms import Compose
from safetensors.torch import load_file

from monai_medpruner.data.phantom import ORGANS, PLANES
from monai_medpruner.transforms import HUWindowsd, LoadVolumed, SlicePlaned

#: attention, relative to uniform, above which a token counts as a sink
SINK = 3.0
_WINDOW = (-160, 340)
_EXAMPLES = 6
_TISSUES = {
    "air": (0,),
    "lungs": (ORGANS["right lung"], ORGANS["left lung"]),
    "fat and muscle": (ORGANS["fat"], ORGANS["muscle"]),
    "bones": (ORGANS["ribs"], ORGANS["spine"]),
    "heart and vessels": (ORGANS["heart"], ORGANS["aorta"], ORGANS["vessels"]),
    "bowel": (ORGANS["bowel"],),
    "liver, spleen, kidneys": tuple(ORGANS[f"{one}"] for one in ("liver", "spleen", "right kidney", "left kidney")),
}
_LESION = "lesion, at least 3 % of the token"
_LESION_SHARE = 0.03


def attention_lines(run: Path, data: Path, picture: Path) -> list[str]:
    """Return a Markdown table of the attention by tissue, and draw the picture.

    Args:
        run: folder of a variant that scored all slices.
        data: folder of the phantoms.
        picture: PNG file to write, with the mean attention by position and plane, and slices with a lesion.
    """
    truths = map(json.loads, (data / "phantoms.jsonl").read_text(encoding="utf-8").splitlines())
    planes = {Path(one["image"]).name: one["plane"] for one in truths}
    load = Compose(
        [
            LoadVolumed(["image", "organs", "lesion"]),
            SlicePlaned(["image", "organs", "lesion"]),
            HUWindowsd("image", [_WINDOW]),
        ]
    )
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in (_LESION, *_TISSUES)}
    places: dict[str, list[torch.Tensor]] = {plane: [] for plane in PLANES}
    examples: list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for volume, name in volume_names(run / "predictions.jsonl").items():
        record = load_file(run / "records" / f"{volume}.safetensors")
        folders = {"image": "volumes", "organs": "organs", "lesion": "lesions"}
        loaded = load({key: str(data / folder / name) for key, folder in folders.items()})
        image, organs, lesion = (loaded[key].as_tensor()[0].permute(2, 0, 1) for key in folders)
        grid = record["grids"][0].tolist()
        kept = record["slice_indices"]
        importance = record["importance"].reshape(len(kept), *grid)
        shown = _shown(organs[kept], lesion[kept] > 0, grid)
        for place, tissue in enumerate((*_TISSUES, _LESION)):
            scores[tissue].append(importance[shown == place])
        places[planes[name]].append(importance)
        if len(examples) < _EXAMPLES and bool(lesion.any()):
            widest = int((lesion[kept] > 0).flatten(1).sum(1).argmax())
            place = int(kept[widest])
            examples.append((f"{name[:14]}, slice {place + 1}", image[place], lesion[place] > 0, importance[widest]))
    _draw(places, examples, picture)
    return _table(scores)


def _shown(organs: torch.Tensor, lesion: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Return the dominant tissue of each token, ``(S, rows, columns)``, as an index; the lesion has the last one."""
    layers = [torch.isin(organs, torch.tensor(labels)) for labels in _TISSUES.values()]
    shares = torch.nn.functional.adaptive_avg_pool2d(torch.stack([*layers, lesion], 1).float(), tuple(grid))
    shown = shares[:, :-1].argmax(1)
    return torch.where(shares[:, -1] >= _LESION_SHARE, len(_TISSUES), shown)


def _table(scores: Mapping[str, Sequence[torch.Tensor]]) -> list[str]:
    joined = {tissue: torch.cat(list(parts)) for tissue, parts in scores.items()}
    every = torch.cat(list(joined.values()))
    sinks = float((every > SINK).sum())
    rows = [
        f"| dominant tissue of the token | share of tokens, % | mean attention | share of attention, % "
        f"| above {SINK:g}, % of tissue | above {SINK:g}, % of all above {SINK:g} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for tissue, values in joined.items():
        if not len(values):
            continue
        above = float((values > SINK).sum())
        cells = [100 * len(values) / len(every), float(values.mean()), 100 * float(values.sum() / every.sum())]
        cells += [100 * above / len(values), 100 * above / max(1.0, sinks)]
        rows.append(
            f"| {tissue} | {cells[0]:.1f} | {cells[1]:.2f} | " + " | ".join(f"{c:.1f}" for c in cells[2:]) + " |"
        )
    return rows


def _draw(places: Mapping[str, Sequence[torch.Tensor]], examples: Sequence[Any], picture: Path) -> None:
    columns = max(len(places), -(-_EXAMPLES // 2))
    figure = Figure(figsize=(3.2 * columns, 9), layout="constrained")
    panels = figure.subplots(3, columns, squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    drawn = None
    for axes, (plane, parts) in zip(panels[0], places.items(), strict=False):
        if parts:
            drawn = axes.imshow(torch.cat(list(parts)).mean(0), vmin=0, vmax=SINK, cmap="magma")
            axes.set_title(f"mean over {plane} slices", fontsize=9)
    for axes, (title, image, lesion, importance) in zip(panels[1:].ravel(), examples, strict=False):
        extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.imshow(importance, vmin=0, vmax=SINK, cmap="magma", alpha=0.5, extent=extent)
        axes.contour(np.asarray(lesion, dtype=float), levels=[0.5], colors="cyan", linewidths=1.2)
        axes.set_title(title, fontsize=9)
    if drawn is not None:
        figure.colorbar(drawn, ax=panels, shrink=0.5, label="attention received, relative to uniform")
    figure.savefig(picture, dpi=100)
