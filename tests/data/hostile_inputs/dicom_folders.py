# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Folders as hospitals, archives and CDs hand them out."""

from __future__ import annotations

from pathlib import Path

from hostile_inputs.case import Case, Registry, body, noted, refused, right
from hostile_inputs.dicom_base import case, new_object, write_slices
from hostile_inputs.dicom_pixels import fields
from monai_medpruner.errors import EmptyFolderError, MixedSeriesError

__all__ = ["INPUTS"]

registry = Registry("DICOM")
INPUTS = registry.inputs


def beside(folder: Path, sop_class: str, modality: str, name: str) -> Case:
    """Write a series with an object that is no image beside it."""
    slices = write_slices(folder)
    new_object(sop_class, modality, "1.2.826.80").save_as(folder / name, enforce_file_format=True)
    return case(folder, slices=slices)


@registry.add("a media directory under the name DIRFILE in the series' folder", noted("media directory (1)"))
def dicom_dirfile(folder: Path) -> Case:
    return beside(folder, "1.2.840.10008.1.3.10", "", "DIRFILE")


@registry.add("a structure set beside the slices", noted("radiotherapy structure set (1)"))
def dicom_structure_set(folder: Path) -> Case:
    return beside(folder, "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT", "RS.dcm")


@registry.add("a dose report beside the slices", noted("dose report (1)"))
def dicom_dose_report(folder: Path) -> Case:
    return beside(folder, "1.2.840.10008.5.1.4.1.1.88.67", "SR", "SR.dcm")


@registry.add("a presentation state beside the slices", noted("presentation state (1)"))
def dicom_presentation_state(folder: Path) -> Case:
    return beside(folder, "1.2.840.10008.5.1.4.1.1.11.1", "PR", "PR.dcm")


@registry.add("a key object selection beside the slices", noted("key object selection (1)"))
def dicom_key_object(folder: Path) -> Case:
    return beside(folder, "1.2.840.10008.5.1.4.1.1.88.59", "KO", "KO.dcm")


@registry.add("a `._` file of macOS beside each slice, and `.DS_Store`", noted("were ignored: 9"))
def dicom_macos(folder: Path) -> Case:
    slices = write_slices(folder)
    for file in slices:
        file.with_name(f"._{file.name}").write_bytes(b"\0\x05\x16\x07\0\x02\0\0" + b"Mac OS X".ljust(16) + bytes(96))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + bytes(64))
    return case(folder, slices=slices)


@registry.add("`Thumbs.db`, a viewer program and a text beside the slices", noted("were ignored: 3"))
def dicom_viewer(folder: Path) -> Case:
    slices = write_slices(folder)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    (folder / "viewer.exe").write_bytes(b"MZ" + bytes(600))
    (folder / "README.TXT").write_text("Start viewer.exe", encoding="ascii")
    return case(folder, slices=slices)


@registry.add("the top folder of a CD: its series lies two folders below", right())
def dicom_cd(folder: Path) -> Case:
    slices = write_slices(folder / "DICOM" / "S0000", name="I{:04d}")
    return case(folder, slices=slices)


@registry.add("the top folder of a CD with a viewer and two series", refused(MixedSeriesError, "Choose one"))
def dicom_cd_two_series(folder: Path) -> Case:
    write_slices(folder / "DICOM" / "S0000", name="I{:04d}")
    write_slices(folder / "DICOM" / "S0001", hu=body(seed=1), series="1.2.826.79", name="I{:04d}")
    (folder / "AUTORUN.INF").write_text("[autorun]", encoding="ascii")
    return Case(folder)


@registry.add("a localizer that says so in the same series", noted("localizers of the series were passed over: 1"))
def dicom_localizer(folder: Path) -> Case:
    slices = write_slices(folder)
    write_slices(
        folder,
        fields(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        hu=body(seed=1)[..., :1],
        orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
        name="L{:04d}.dcm",
    )
    return case(folder, slices=slices)


@registry.add("a folder with no image at all", refused(EmptyFolderError, "no DICOM image among the 1 files"))
def dicom_no_image(folder: Path) -> Case:
    (folder / "report.txt").write_text("no finding", encoding="ascii")
    return Case(folder)


@registry.add("a folder with a dose report alone", refused(EmptyFolderError, "dose report (1)"))
def dicom_report_alone(folder: Path) -> Case:
    new_object("1.2.840.10008.5.1.4.1.1.88.67", "SR", "1.2.826.80").save_as(folder / "SR.dcm", enforce_file_format=True)
    return Case(folder)


@registry.add("escape sequences and an unknown character set in the patient's name", right())
def dicom_character_set(folder: Path) -> Case:
    slices = write_slices(folder, fields(PatientName="NAME=OTHER"))
    for file in slices:
        content = file.read_bytes()
        file.write_bytes(content.replace(b"NAME=OTHER", b"\x1b$B\xff=\x1b[2JX"))
    return case(folder, slices=slices)
