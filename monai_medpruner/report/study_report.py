# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""One page for each study of a run, which opens from disk and asks no network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from monai_medpruner import __version__
from monai_medpruner.atomic_write import atomic_write
from monai_medpruner.errors import MedPrunerError, OutputFolderError, SettingsError
from monai_medpruner.report.pictures import slice_pictures
from monai_medpruner.report.report_data import RunOfStudy, study_names, study_of_run, viewer_data
from monai_medpruner.report.report_page import PageParts, report_page
from monai_medpruner.report.slice_reasons import GuardBlock, guard_blocks, has_guard
from monai_medpruner.report.study_image import study_image, study_mask
from monai_medpruner.results import RunResults, read_results

__all__ = ["study_page", "write_reports"]


def write_reports(
    folder: str | Path,
    *,
    study: str | None = None,
    mask: Path | None = None,
    against: Path | None = None,
    deidentify: bool = False,
    skip_current: bool = False,
) -> Iterator[tuple[Path, str | None]]:
    """Write a page for each study of a run to ``reports/`` in its folder: ``NAME.html``, NAME being the record's.

    The image is read again from its path, by the transforms that the record names. Where that fails, the page has no
    pictures and says why.

    Args:
        folder: output folder of a run.
        study: beginning of a record's name, for one study of several.
        mask: label map of a lesion on the grid of the image, for a run about one image.
        against: output folder of another run about the same images.
        deidentify: leave out pixels, paths and UIDs. Questions and answers stay, word for word.
        skip_current: skip complete pages that were made of the same lines and record, without mask or other run.

    Yields:
        The path of each page that is written, and a note on what it lacks, or None.

    Raises:
        OutputFolderError: a folder is not that of a run, or cannot be written; or the other run has none of the
            studies.
        SettingsError: no study has that name, or a mask was given for several studies.
        VolumeError: the mask is on another grid, or the other run saw a study in another plane.
        VolumeReadError: the mask cannot be read.
    """
    results = read_results(folder)
    other = None if against is None else read_results(against)
    names = study_names(results, study)
    if mask is not None and len({results.record(name).volume_id for name in names}) > 1:
        raise SettingsError(
            f"a mask belongs to one image, and the run has {len(names)} studies: choose one with --study"
        )
    target = Path(folder) / "reports"
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputFolderError(f"cannot write to {target}: {error.strerror}") from error
    for name in names:
        run = study_of_run(results, name)
        path = target / f"{name}.html"
        made_of = _source(results, run, deidentify) if mask is None and other is None else None
        if skip_current and made_of is not None and _ends_with(path, made_of):
            continue
        page, note = study_page(run, None if other is None else _same_study(other, run), mask, deidentify)
        # a page that lacks something is made anew when it is asked for again
        atomic_write(path, page.encode() + (made_of if made_of is not None and note is None else b""))
        yield path, note


def study_page(
    run: RunOfStudy, other: RunOfStudy | None = None, mask: Path | None = None, deidentify: bool = False
) -> tuple[str, str | None]:
    """Return the page of a study, and a note on what it lacks, or None.

    Args:
        run: the study.
        other: the same study in another run.
        mask: label map of a lesion on the grid of the image.
        deidentify: leave out pixels, paths and UIDs.

    Raises:
        VolumeError: the mask is on another grid.
        VolumeReadError: the mask cannot be read.
    """
    record = run.record
    labels = None if mask is None else study_mask(mask, record)
    pictures, note = None, None
    windows: tuple[str, ...] = ()
    blocks: list[dict[int, GuardBlock]] = [{}, {}]
    if deidentify:
        note = "Pixels and paths were left out (--deidentify)."
    else:
        try:
            image = study_image(record)
            shown = set(record.slice_indices) | (set() if other is None else set(other.record.slice_indices))
            pictures, windows = slice_pictures(image, shown), image.names
            blocks[0] = guard_blocks(record, image.scaled)
            if other is not None and has_guard(other.record):
                # the windows may be others; the file is the same
                blocks[1] = guard_blocks(other.record, study_image(replace(other.record, image=record.image)).scaled)
        except MedPrunerError as error:
            note = f"No pictures: {error}"
    data = viewer_data(run, other, pictures, windows, blocks, labels)
    parts = PageParts(data, None if pictures is None else pictures.note, note, labels, deidentify)
    return report_page(run, other, parts), note


def _source(results: RunResults, run: RunOfStudy, deidentify: bool) -> bytes:
    """Return the last line of a page: a comment that changes with everything that the page is made of."""
    digest = hashlib.sha256((results.folder / "records" / f"{run.record.name}.safetensors").read_bytes())
    digest.update(json.dumps([__version__, deidentify, list(run.lines), list(run.failed)], sort_keys=True).encode())
    return f"<!-- made of {digest.hexdigest()} -->\n".encode()


def _ends_with(path: Path, ending: bytes) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(ending), os.SEEK_END)
            return file.read() == ending
    except OSError:  # there is no page, or a shorter file
        return False


def _same_study(other: RunResults, run: RunOfStudy) -> RunOfStudy:
    """Return the study of the same volume in another run, the one of the same question where there are several."""
    volume = run.record.volume_id
    found = [line["record"] for line in other.lines if line.get("volume_id") == volume and "record" in line]
    if not found:
        raise OutputFolderError(f"{other.folder} has no study of the same volume ({volume})")
    same = study_of_run(other, run.record.name if run.record.name in found else found[0])
    one, two = run.record.geometry, same.record.geometry
    if one.shape != two.shape or not np.allclose(one.affine.numpy(), two.affine.numpy(), atol=1e-3):
        raise OutputFolderError(f"{other.folder} has the volume in another plane or orientation: {volume}")
    return same
