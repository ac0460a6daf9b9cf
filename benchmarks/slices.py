# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Compare the slice rules at equal numbers of slices, over window and spacing: lesions, organs and gaps.

    python benchmarks/slices.py ../shared/data
    python benchmarks/slice_rules.py --page docs/slice_rules.md

Every rule gets the same number of slices of each volume and finds its own parameter for it. The filter is also run at
fixed thresholds, with and without its guard, and compared with as many evenly spaced slices of the same volume.
Counted are lesions without a kept slice, organs without a kept slice, and the largest gap. Larger spacings are every
second or fourth slice of a volume. Each data set is written to the JSON file when it is done; an interrupted run goes
on with the next one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from slice_rules import BALLS_MM, balls_met, machine, stack_of
from slice_rules import RULES as ALL_RULES

from monai_medpruner.data.phantom import PRESETS, generate_phantom, phantom_seed
from monai_medpruner.training import load_phantom
from monai_medpruner.transforms import HUWindows, LoadVolume, SlicePlane
from monai_medpruner.transforms.slice_rules import AnchorRule, EvenlySpaced, SliceRule, SliceStack

#: the guard's own threshold is fixed, so that it is compared at fixed thresholds of the filter alone
RULES = {name: rule for name, rule in ALL_RULES.items() if "guard" not in name}
NUMBERS = (96, 48, 24, 12, 6)
WINDOWS = ("soft_tissue", "lung")
GAMMAS = (0.01, 0.02, 0.03, 0.04, 0.06)
SMALL_MM = 15.0
RESAMPLES = 1000
#: title -> preset, what is changed in it, steps between the slices that a spacing keeps, and windows
PHANTOMS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], tuple[str, ...]]] = {
    "small": ("small", {}, (1, 2), WINDOWS),
    "default, thin slices": ("default", {"in_plane_sizes": (160,), "depth": (112, 128)}, (1,), WINDOWS[:1]),
}


@dataclass(frozen=True)
class Case:
    """A volume as the rules see it, and what its slices show.

    Args:
        stack: of the volume.
        organs: slices that show each organ, one set per organ that the volume shows.
        lesion: slices that show the lesion; None where there is none.
        diameter_mm: of the lesion.
    """

    stack: SliceStack
    organs: tuple[frozenset[int], ...] = ()
    lesion: frozenset[int] | None = None
    diameter_mm: float = 0.0


def shown_in(labels: torch.Tensor) -> dict[int, frozenset[int]]:
    """Slices that show each label of ``(H, W, D)``, 0 left out."""
    found: dict[int, set[int]] = {}
    for index in range(labels.shape[-1]):
        for label in labels[..., index].unique().tolist():
            found.setdefault(int(label), set()).add(index)
    return {label: frozenset(slices) for label, slices in sorted(found.items()) if label}


def thinned(case: Case, step: int) -> Case:
    """The volume that has every ``step``-th slice of another one; its lesion is None where no slice shows it."""
    stack = case.stack
    fewer = replace(stack, voxels=stack.voxels[..., ::step], positions_mm=stack.positions_mm[::step])
    organs = (_kept_of(one, step) for one in case.organs)
    lesion = None if case.lesion is None else _kept_of(case.lesion, step) or None
    return replace(case, stack=fewer, organs=tuple(one for one in organs if one), lesion=lesion)


def _kept_of(slices: frozenset[int], step: int) -> frozenset[int]:
    return frozenset(index // step for index in slices if index % step == 0)


def measured(cases: Sequence[Case], kept: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What kept slices meet of some volumes."""
    met: dict[str, list[int]] = {"small": [], "large": []}
    for case, slices in zip(cases, kept, strict=True):
        if case.lesion is not None:
            met["small" if case.diameter_mm < SMALL_MM else "large"].append(int(bool(case.lesion & set(slices))))
    organs = [int(not organ & set(one)) for case, one in zip(cases, kept, strict=True) for organ in case.organs]
    gaps = [case.stack.largest_gap(one).length_mm for case, one in zip(cases, kept, strict=True)]
    pairs = [(case.stack.positions_mm, one) for case, one in zip(cases, kept, strict=True)]
    balls = {f"{size:g}": round(float(np.mean([balls_met(*pair, size) for pair in pairs])), 4) for size in BALLS_MM}
    return {
        "kept": round(float(np.mean([len(one) for one in kept])), 2),
        "lesions_small": [sum(met["small"]), len(met["small"])],
        "lesions_large": [sum(met["large"]), len(met["large"])],
        "organs_lost": [sum(organs), len(organs)],
        "gap_mm": round(float(np.mean(gaps)), 2),
        "balls": balls,
    }


def lesions_met(cases: Sequence[Case], kept: Sequence[Sequence[int]]) -> np.ndarray:
    """Whether each lesion has a kept slice, one value per volume with a lesion."""
    pairs = zip(cases, kept, strict=True)
    return np.array([bool(case.lesion & set(one)) for case, one in pairs if case.lesion is not None], float)


def difference(ours: np.ndarray, other: np.ndarray, seed: int = 0) -> list[float] | None:
    """Difference of two paired means in points, with its 95 % bootstrap interval over volumes; None without any."""
    if not len(ours):
        return None
    gain = 100 * (ours - other)
    drawn = np.random.default_rng(seed).integers(len(gain), size=(RESAMPLES, len(gain)))
    low, high = np.percentile(gain[drawn].mean(1), [2.5, 97.5])
    return [round(float(one), 1) for one in (gain.mean(), low, high)]


def chosen(rule: SliceRule, cases: Sequence[Case], number: int) -> list[list[int]]:
    """Slices that a rule keeps of each volume, at most a number."""
    return [rule.at_most(case.stack, number).choose(case.stack).kept for case in cases]


def rows_of(cases: Sequence[Case], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rule at every number of slices; paired differences are against the filter."""
    rows = []
    for number in NUMBERS:
        if number >= min(case.stack.depth for case in cases):
            continue
        kept = {name: chosen(rule, cases, number) for name, rule in RULES.items()}
        filtered = lesions_met(cases, kept["anchor"])
        for name, slices in kept.items():
            gain = difference(lesions_met(cases, slices), filtered)
            rows.append({**facts, "number": number, "rule": name, **measured(cases, slices), "against_filter": gain})
    return rows


def gamma_rows(cases: Sequence[Case], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """The filter at fixed thresholds, with and without the guard, and as many evenly spaced slices of each volume."""
    rows = []
    for gamma in GAMMAS:
        for guard in (None, 25.0):
            rule = AnchorRule(gamma, guard_mm=guard)
            kept = [rule.choose(case.stack).kept for case in cases]
            even = [EvenlySpaced().at_most(case.stack, len(one)) for case, one in zip(cases, kept, strict=True)]
            spaced = [one.choose(case.stack).kept for one, case in zip(even, cases, strict=True)]
            gain = difference(lesions_met(cases, spaced), lesions_met(cases, kept))
            parts = {"filter": measured(cases, kept), "even": measured(cases, spaced), "even_minus_filter": gain}
            rows.append({**facts, "gamma": gamma, "guard_mm": guard, **parts})
    return rows


def phantom_cases(title: str, count: int, seed: int, window: str) -> list[Case]:
    """Phantoms with and without a lesion."""
    preset, changes, *_ = PHANTOMS[title]
    view = Compose([SlicePlane()])
    cases = []
    for number in range(count):
        phantom = generate_phantom(phantom_seed(seed, number), replace(PRESETS[preset], **changes))
        image, organs, mask = (
            view(load_phantom(phantom, one)) for one in (None, phantom.organs, phantom.lesion_mask)
        )  # fmt: skip
        lesions = shown_in(mask.as_tensor()[0])
        lesion = frozenset().union(*lesions.values()) if lesions else None
        diameter = phantom.lesions[0].diameter_mm if phantom.lesions else 0.0
        stack = stack_of(HUWindows(window)(image))
        cases.append(Case(stack, tuple(shown_in(organs.as_tensor()[0]).values()), lesion, diameter))
    return cases


@dataclass(frozen=True)
class Real:
    """A set of real volumes.

    Args:
        images: files, or folders of a series.
        labels: files of the organs, as many; empty where there are none.
        windows: of HU; one without a name for images of other units.
        steps: between the slices that a spacing keeps.
    """

    images: Sequence[Path]
    labels: Sequence[Path] = ()
    windows: tuple[str, ...] = WINDOWS
    steps: tuple[int, ...] = (1,)


def real_sets(data: Path) -> dict[str, Real]:
    """All real volumes, by title."""
    torso, crops = data / "ct_torso_nifti", sorted((data / "mr_hippocampus" / "images").glob("*.nii.gz"))
    full = data / "ct_full"
    percentile = ("percentile",)
    return {
        "CT, chest to abdomen": Real([torso / "ct.nii.gz"], [torso / "ct_organs.nii.gz"], steps=(1, 2)),
        "CT, part of an abdomen": Real([torso / "ct_small.nii.gz"], [torso / "ct_small_organs.nii.gz"]),
        "CT, part of a torso (DICOM)": Real([data / "ct_torso_dicom"]),
        "CT, head, tilted, uneven gaps": Real([data / "ct_head_tilted_dicom"]),
        "MR, part of a torso": Real([data / "mr_torso_nifti" / "mr_small.nii.gz"], windows=percentile),
        "MR, hippocampus crops": Real(crops, [one.parents[1] / "labels" / one.name for one in crops], percentile),
        "CT, torso": Real([full / "s0024.nii.gz"], [full / "s0024_organs.nii.gz"], WINDOWS[:1], (2, 4)),
    }


def scaled(image: MetaTensor, window: str) -> MetaTensor:
    """Intensities in 0 to 1: a window of HU, or from the 1st to the 99th percentile."""
    if window != "percentile":
        return HUWindows(window)(image)
    voxels = image.as_tensor()
    ends = np.quantile(voxels.numpy(), (0.01, 0.99))
    return MetaTensor(((voxels - ends[0]) / (ends[1] - ends[0])).clamp(0, 1).float(), meta=image.meta)


def real_cases(one: Real, window: str) -> list[Case]:
    """Real volumes and the organs of their slices."""
    view, cases = SlicePlane(), []
    for number, path in enumerate(one.images):
        image = view(LoadVolume()(path))
        organs: tuple[frozenset[int], ...] = ()
        if one.labels:
            organs = tuple(shown_in(view(LoadVolume()(one.labels[number])).as_tensor()[0]).values())
        cases.append(Case(stack_of(scaled(image, window)), organs))
    return cases


def data_sets(data: Path | None) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """Every combination to be measured, those that take longest last: kind, title, window, steps."""
    for title, one in real_sets(data).items() if data else ():
        for window in one.windows:
            yield "real", title, window, one.steps
    for title, (_, _, steps, windows) in PHANTOMS.items():
        for window in windows:
            yield "phantom", title, window, steps


def measure(kind: str, title: str, window: str, steps: Sequence[int], options: Any) -> dict[str, Any]:
    """All rows of a data set with one window."""
    if kind == "phantom":
        cases = phantom_cases(title, options.count, options.seed, window)
    else:
        cases = real_cases(real_sets(options.data)[title], window)
    rows, gammas = [], []
    for step in steps:
        fewer = [thinned(case, step) for case in cases]
        distance = [np.median(np.abs(np.diff(case.stack.positions_mm))) for case in fewer]
        depth = [case.stack.depth for case in fewer]
        facts = {"step": step, "spacing_mm": round(float(np.mean(distance)), 1), "slices": round(float(np.mean(depth)))}
        rows += rows_of(fewer, facts)
        gammas += gamma_rows(fewer, facts)
    return {"kind": kind, "title": title, "window": window, "volumes": len(cases), "rows": rows, "gammas": gammas}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the real volumes; left out without one")
    parser.add_argument("--count", type=int, default=40, help="number of phantoms of each kind")
    parser.add_argument("--seed", type=int, default=1818)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/slices.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    facts = {"machine": machine(), "count": options.count, "seed": options.seed}
    found = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {**facts, "sets": []}
    if {name: found[name] for name in ("count", "seed")} != {"count": options.count, "seed": options.seed}:
        parser.error(f"{options.out} holds another count or seed: remove it, or name another file")
    done = {(one["kind"], one["title"], one["window"]) for one in found["sets"]}
    for kind, title, window, steps in data_sets(options.data):
        if (kind, title, window) in done:
            continue
        found["sets"].append(measure(kind, title, window, steps, options))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=None) + "\n", encoding="utf-8")
        print(f"{title}, {window}: done", flush=True)


if __name__ == "__main__":
    main()
