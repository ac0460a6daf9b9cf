# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What the page of a study shows, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from monai_medpruner.errors import SettingsError
from monai_medpruner.report.lesion_shares import LesionShares, lesion_shares, outline
from monai_medpruner.report.lesion_verdict import lesion_verdict, lesion_why
from monai_medpruner.report.pictures import Pictures
from monai_medpruner.report.slice_reasons import GuardBlock, filter_threshold, slice_reasons
from monai_medpruner.report.token_facts import mass_line, slice_tokens
from monai_medpruner.results import STAGES, RunResults, SliceGap, StudyRecord

__all__ = [
    "LesionFacts",
    "RunOfStudy",
    "flat_settings",
    "gap_text",
    "lesion_table",
    "stage_estimates",
    "study_names",
    "study_of_run",
    "unread_gap",
    "viewer_data",
    "without_files",
]

_MOST_LABELS = 20
_LEFT_OUT = "(left out)"
#: a path on this or another system; an id on the Hub, "owner/name", is none
_PATH = re.compile(r"^(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\)|^[^\s]*[/\\][^\s]*[/\\]|\.(gz|nii|dcm|npy)$")
_FILE = re.compile(r"\S+\.(?:nii(?:\.gz)?|dcm|ima|npy|png|jpe?g)\b|\S*[/\\]\S*[/\\]\S*", re.IGNORECASE)
_IDENTIFIERS = ("series_uid",)
_GAMMA = "InterSliceAnchorFilter › threshold"  # the one setting whose option has another name


@dataclass(frozen=True, eq=False)
class RunOfStudy:
    """A study in one run.

    Args:
        record: of the study.
        lines: its result lines, at least one.
        failed: lines about the same image that have no record.
    """

    record: StudyRecord
    lines: Sequence[Mapping[str, Any]]
    failed: Sequence[Mapping[str, Any]] = ()


def study_names(results: RunResults, beginning: str | None = None) -> list[str]:
    """Return the names of the records of a run, or of those that begin so; at least one.

    Raises:
        SettingsError: there is none.
    """
    names = [name for name in results.record_names if name.startswith(beginning or "")]
    if not names:
        known = (
            "the run has no study that was encoded"
            if not results.record_names
            else f"no study begins with {beginning!r}"
        )
        raise SettingsError(f"{known}: {len(results.record_names)} in {results.folder}")
    return names


def study_of_run(results: RunResults, name: str) -> RunOfStudy:
    """Return a study with its lines.

    Args:
        results: of the run.
        name: of its record.
    """
    lines = [line for line in results.lines if line.get("record") == name]
    image = lines[0].get("image")
    failed = [line for line in results.lines if "record" not in line and line.get("image") == image]
    return RunOfStudy(results.record(name), lines, failed)


def viewer_data(
    run: RunOfStudy,
    other: RunOfStudy | None,
    pictures: Pictures | None,
    windows: Sequence[str],
    blocks: Sequence[dict[int, GuardBlock]],
    mask: np.ndarray | None,
) -> dict[str, Any]:
    """Return what the scripts of the page draw: slices, distances, tokens, pictures, outlines.

    Args:
        run: the study.
        other: the same study in another run.
        pictures: of its slices; None for none.
        windows: names of the pictures of a kept slice.
        blocks: of :func:`~.slice_reasons.guard_blocks`, of the study and of the other run's.
        mask: labels ``(H, W, D)`` in the view of the record; None for none.
    """
    record, geometry = run.record, run.record.geometry
    spacing = np.linalg.norm(geometry.affine.numpy()[:3, :2], axis=0)
    gap, distances = unread_gap(record), record.slice_distances
    data: dict[str, Any] = {
        "size": list(geometry.shape[:2]),
        "spacing": [float(one) for one in spacing] if np.isfinite(spacing).all() and spacing.min() > 0 else [1.0, 1.0],
        "crop": None if geometry.crop is None else [list(one) for one in geometry.crop],
        "slices": slice_reasons(record, blocks[0]),
        "distances": None if distances is None else [None if isnan(one) else float(f"{one:.5g}") for one in distances],
        "threshold": filter_threshold(record),
        "gap": None if gap is None else [gap.first, gap.last, round(gap.length_mm, 2)],
        "positions": [round(one, 3) for one in geometry.slice_positions_mm] or None,
        "windows": list(windows),
        "pictures": None if pictures is None else pictures.slices,
        "thumbs": None if pictures is None else pictures.thumbs,
        "outlines": _outlines(mask),
        "runs": [_tokens_of(run)] + ([] if other is None else [_tokens_of(other)]),
    }
    if other is not None:
        data["other"] = slice_reasons(other.record, blocks[1])
    return data


def unread_gap(record: StudyRecord) -> SliceGap | None:
    """Return the largest gap between kept slices; None where it is unknown, or all of its slices were read."""
    gap = record.largest_gap
    if gap is None or gap.length_mm <= 0:
        return None
    read = set(record.slice_indices) - set(record.dropped_slices)
    return None if read.issuperset(range(gap.first, gap.last + 1)) else gap


def gap_text(record: StudyRecord) -> str:
    """Return the length of the largest unread gap in words."""
    if record.largest_gap is None:
        return "unknown"
    gap = unread_gap(record)
    return "none" if gap is None else f"{gap.length_mm:.1f} mm"


def _tokens_of(run: RunOfStudy) -> dict[str, Any]:
    return {
        "tokens": slice_tokens(run.record),
        "mass": mass_line(run.record.settings),
        "crop": None if run.record.geometry.crop is None else [list(one) for one in run.record.geometry.crop],
    }


def _outlines(mask: np.ndarray | None) -> dict[int, str] | None:
    if mask is None:
        return None
    return {int(index): outline(mask[..., index] > 0) for index in np.flatnonzero((mask > 0).any((0, 1)))}


@dataclass(frozen=True)
class LesionFacts:
    """What became of one label of a mask.

    Args:
        name: of the label.
        shares: what each stage kept.
        verdict: a sentence: whether the model was given it.
        why: more sentences; empty for none.
    """

    name: str
    shares: LesionShares
    verdict: str
    why: str


def lesion_table(mask: np.ndarray, record: StudyRecord) -> list[LesionFacts]:
    """Return the facts of each label of a mask; of all together where there are too many.

    Args:
        mask: labels ``(H, W, D)`` in the view of the record.
        record: of the study.
    """
    values = [int(value) for value in np.unique(mask) if value > 0]
    if not values:
        return []
    if len(values) > _MOST_LABELS:
        masks = [(f"all {len(values)} labels", mask > 0)]
    elif len(values) == 1:
        masks = [("lesion", mask == values[0])]
    else:
        masks = [(f"label {value}", mask == value) for value in values]
    table = []
    for name, one in masks:
        shares = lesion_shares(one, record)
        table.append(LesionFacts(name, shares, lesion_verdict(shares, record), lesion_why(one, shares, record)))
    return table


def stage_estimates(run: RunOfStudy) -> tuple[dict[str, float], dict[str, float] | None, str]:
    """Return the seconds of the stages, an estimate without pruning, and how it was made.

    The encoder's time grows with the pixels that it gets, hence with its tokens before pruning; the language model's
    prefill at least in proportion to the prompt. Loading and decoding stay as they are.
    """
    record, line = run.record, run.lines[0]
    measured = {stage: float(line.get("seconds", {}).get(stage, 0.0)) for stage in STAGES}
    encoded = sum(one.keep.numel() for one in record.slices)
    kept, prompt = sum(record.kept_tokens), int(line.get("prompt_tokens", 0))
    if not measured["encode"] or not prompt:
        return measured, None, "No estimate without pruning: the study came from a cache, or nothing was generated."
    unpruned = dict(measured, filter=0.0, select=0.0)
    unpruned["encode"] *= record.unpruned_tokens / encoded
    unpruned["prefill"] *= (prompt - kept + record.unpruned_tokens) / prompt
    return (
        measured,
        unpruned,
        "Estimated from this run, not measured: encoding in proportion to the tokens before pruning, prefill in "
        "proportion to the prompt (its attention grows faster, so this is a lower bound). For measured times see "
        "medpruner benchmark.",
    )


def flat_settings(settings: Mapping[str, Any], deidentified: bool) -> list[tuple[str, str]]:
    """Return settings as pairs of a name and a text; with ``deidentified`` no paths and no UIDs."""
    rows: list[tuple[str, str]] = []

    def visit(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            if set(value) == {"name", "arguments"}:
                visit(f"{name} › {value['name']}" if name else str(value["name"]), value["arguments"])
                return
            for key, one in value.items():
                if key not in ("keys", "allow_missing_keys"):
                    visit(f"{name} › {key}" if name else str(key), one)
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            for one in value:
                stage = one.get("stage") if isinstance(one, Mapping) else None
                visit(name if stage is None else f"{name} › {stage}", one if stage is None else one["transforms"])
        else:
            if name.endswith(_GAMMA):
                name = f"{name} (γ, --gamma)"
            hidden = deidentified and (name.split(" › ")[-1] in _IDENTIFIERS or _is_path(value)) and value is not None
            rows.append((name, _LEFT_OUT if hidden else "none" if value is None else str(value)))

    visit("", settings)
    return rows


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and _PATH.search(value) is not None


def without_files(note: str) -> str:
    """Return a note without the names and paths of files in it."""
    return _FILE.sub(_LEFT_OUT, note)
