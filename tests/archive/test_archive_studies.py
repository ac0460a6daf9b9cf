# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The studies of an archive, their questions and the ids of these."""

from __future__ import annotations

import json
import logging

import pytest

from monai_medpruner.archive import archive_items, study_paths
from monai_medpruner.errors import QuestionError, SettingsError

DICOM = b"\0" * 128 + b"DICM" + b"\0" * 64


def write(folder, **files):
    """Write files, by names in which __ stands for a slash and _ for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def below(folder, found):
    return [path.removeprefix(f"{folder}/") for path in found]


def test_files_and_folders_at_any_depth(tmp_path):
    write(tmp_path, a_nii=b"", p1__s1__b_nii_gz=b"", p1__s2__one=DICOM, p1__s2__two_dcm=DICOM, p2__c_NPY=b"")
    assert below(tmp_path, study_paths(tmp_path)) == ["a.nii", "p1/s1/b.nii.gz", "p1/s2", "p2/c.NPY"]


def test_what_is_no_study_is_told(tmp_path, caplog):
    write(tmp_path, a_nii=b"", notes_txt=b"x", p1__list_csv=b"image\n", _git__b_nii=b"", _hidden=b"")
    with caplog.at_level(logging.WARNING):
        assert below(tmp_path, study_paths(tmp_path)) == ["a.nii"]
    told = caplog.text
    assert "2 files are neither NIfTI nor DICOM" in told
    assert "notes.txt" in told
    assert "list.csv" in told


def test_a_folder_of_a_cd_is_one_study(tmp_path):
    """The media directory has its storage class in its file meta information."""
    uid = b"1.2.840.10008.1.3.10\0"
    meta = b"\2\0\2\0UI" + len(uid).to_bytes(2, "little") + uid
    length = b"\2\0\0\0UL\4\0" + len(meta).to_bytes(4, "little")
    write(tmp_path, cd__DICOMDIR=b"\0" * 128 + b"DICM" + length + meta, cd__IMAGES__one=DICOM)
    assert below(tmp_path, study_paths(tmp_path)) == ["cd"]


@pytest.fixture
def two(tmp_path):
    return write(tmp_path / "studies", a_nii=b"", p__b_nii=b"")


def test_a_text_file_asks_about_every_study(two, tmp_path):
    (tmp_path / "questions.txt").write_text("Is there a nodule?\n\n  Which plane?  \n", encoding="utf-8")
    items = archive_items(two, tmp_path / "questions.txt")
    assert [(item["image"], item["question"], item["prompt"]) for item in items] == [
        (str(two / name), question, question)
        for name in ("a.nii", "p/b.nii")
        for question in ("Is there a nodule?", "Which plane?")
    ]
    assert len({item["id"] for item in items}) == 4


def test_ids_stay_where_the_archive_is_moved(two, tmp_path):
    (tmp_path / "questions.txt").write_text("a?\nb?\n", encoding="utf-8")
    before = archive_items(two, tmp_path / "questions.txt")
    moved = two.rename(tmp_path / "elsewhere")
    after = archive_items(moved, tmp_path / "questions.txt")
    assert [item["id"] for item in after] == [item["id"] for item in before]
    assert [item["image"] for item in after] != [item["image"] for item in before]


def questions(folder, *lines):
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def test_stated_ids(two):
    """One that belongs to one question is kept; one that is asked about every study becomes an id for each."""
    own = {"question": "a?", "image": "a.nii", "id": "mine"}
    items = archive_items(two, questions(two, own, {"question": "b?", "id": "shared"}))
    assert [item["id"] for item in items if item["question"] == "a?"] == ["mine"]
    others = [item["id"] for item in items if item["question"] == "b?"]
    assert len(set(others)) == 2
    assert "shared" not in others


def test_an_id_twice_for_one_study_is_refused(two):
    file = questions(two, {"question": "a?", "id": "one"}, {"question": "b?", "id": "one"})
    with pytest.raises(SettingsError, match="the id 'one' is given to several questions"):
        archive_items(two, file)


def test_a_table_of_studies_one_of_which_is_missing(two):
    """It is listed: the run records its error and goes on."""
    table = two / "studies.csv"
    table.write_text("image,question\na.nii,own?\nabsent.nii,\n", encoding="utf-8")
    items = archive_items(table, questions(two, {"question": "all?"}))
    found = [(item["image"].rsplit("/", 1)[1], item["question"]) for item in items]
    assert found == [("a.nii", "own?"), ("a.nii", "all?"), ("absent.nii", "all?")]


def test_what_is_refused(two, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="neither a folder of studies nor a CSV"):
        archive_items(tmp_path / "absent", None)
    with pytest.raises(SettingsError, match="no studies"):
        archive_items(tmp_path / "empty", None)
    with pytest.raises(QuestionError, match="no question for 2 of 2"):
        archive_items(two, None)
    with pytest.raises(SettingsError, match="cannot be read as a text file"):
        archive_items(two, tmp_path / "absent.txt")
    with pytest.raises(QuestionError, match="6 characters; the maximum is 5"):
        archive_items(two, questions(two, {"question": "abcde?"}), max_characters=5)
