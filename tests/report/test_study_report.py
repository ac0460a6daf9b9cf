# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The page of a study says what the record, the lines and the image say, and nothing in it runs but its own script."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from marked_series import MARKER, write_marked_series
from PIL import Image
from report_runs import record_of, write_ct, write_run

from monai_medpruner.cli.main import main
from monai_medpruner.report import write_keep_maps, write_reports
from monai_medpruner.report.lesion_shares import lesion_shares, outline
from monai_medpruner.report.pictures import slice_pictures
from monai_medpruner.report.report_data import RunOfStudy, flat_settings, stage_estimates
from monai_medpruner.report.study_image import study_image, study_mask
from monai_medpruner.results import StudyRecord, read_results

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e'\"&<b>\x1b]0;x\x07"


class Page(HTMLParser):
    """Elements, visible texts and the data of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.content = [], [], [], {}
        self.feed(text)
        self.data = json.loads(self.content["script"][0])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag in ("script", "style"):
            self.content.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, text):
        if self.open and self.open[-1] in ("script", "style"):
            self.content[self.open[-1]][-1] += text
        else:
            self.texts.append(text)

    @property
    def text(self):
        return " ".join(self.texts)


def page_of(folder, **options):
    ((path, note),) = write_reports(folder, **options)
    return Page(path.read_text(encoding="utf-8")), note


@pytest.fixture
def run(tmp_path):
    record = record_of(write_ct(tmp_path / "images" / "ct.nii.gz"))
    assert 2 < len(record.slice_indices) < 12
    return write_run(tmp_path / "out", record), record


def test_slices_and_tokens_are_the_records(run):
    folder, record = run
    page, note = page_of(folder)
    assert note is None
    states = [one["state"] for one in page.data["slices"]]
    assert [index for index, state in enumerate(states) if state == "kept"] == list(record.slice_indices)
    assert page.data["threshold"] == 0.02
    np.testing.assert_allclose(page.data["distances"], record.slice_distances, rtol=1e-4)
    assert page.data["gap"] == [*record.largest_gap[1:], pytest.approx(record.largest_gap_mm, abs=0.01)]
    tokens = page.data["runs"][0]["tokens"]
    assert sorted(map(int, tokens)) == list(record.slice_indices)
    for index, one in zip(record.slice_indices, record.slices, strict=True):
        told = tokens[str(index)]
        assert told["grid"] == [5, 7]
        assert [digit == "2" for digit in told["state"]] == one.primary.tolist()
        assert [digit == "1" for digit in told["state"]] == one.contextual.tolist()
        merged = dict(told["into"])
        for token in range(35):
            kept = bool(one.keep[token])
            assert merged.get(token, -1) == (-1 if kept else int(one.merged_into[token]))
        np.testing.assert_allclose(told["importance"], one.importance, rtol=6e-3)
    assert f"{len(record.slice_indices)} of 12" in page.texts
    assert f"{sum(record.kept_tokens):,} of {record.unpruned_tokens:,}" in page.texts
    assert "yes" in page.texts
    assert all(text in page.text for text in ("Not for clinical use.", "random weights", "nucleus"))


def test_the_curve_is_the_mass_of_the_nucleus(run):
    """Against a softmax in numpy: the fewest tokens that reach τ are where the curve crosses it."""
    folder, record = run
    page, _ = page_of(folder)
    one = record.slices[1]
    mass = np.exp(one.importance.numpy().astype(float) / 2.0)
    total = np.cumsum(np.sort(mass / mass.sum())[::-1])
    curve = page.data["runs"][0]["tokens"][str(record.slice_indices[1])]["curve"]
    np.testing.assert_allclose([share for _, share in curve], [0, *total], atol=1e-4)
    assert page.data["runs"][0]["mass"]["tau"] == 0.6


def test_pictures_are_the_files_slices(run):
    """By numpy, from the file: rows run to posterior, columns to the patient's left, slices upward."""
    folder, record = run
    page, _ = page_of(folder)
    voxels = np.asarray(nib.load(record.image).dataobj, dtype=float)
    windows = [(-160, 240), (-1350, 150), (-500, 1300)]
    assert [name.split(",")[1].strip() for name in page.data["windows"]] == [
        "−160 to 240 HU",
        "−1350 to 150 HU",
        "−500 to 1300 HU",
    ]
    for index, pictures in enumerate(page.data["pictures"]):
        assert len(pictures) == (3 if index in record.slice_indices else 1)
        for picture, (low, high) in zip(pictures, windows, strict=False):
            shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"), dtype=float)
            expected = (voxels[:, :, index].T.clip(low, high) - low) / (high - low) * 255
            assert shown.shape == (40, 56)
            assert np.abs(shown - expected).mean() < 6
    assert len(page.data["thumbs"]) == 12


def test_windows_of_other_images(tmp_path):
    """Percentiles of MR, and voxels that were scaled before, have no HU."""
    path = write_ct(tmp_path / "mr.nii.gz")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.int16(1100), image.affine), path)
    assert study_image(record_of(path, modality="mr")).names == ("As the model saw it (percentile)",)
    np.save(tmp_path / "ct.npy", np.random.default_rng(0).random((1, 6, 40, 56), dtype=np.float32))
    assert study_image(record_of(tmp_path / "ct.npy")).names == ("As the model saw it (unit)",)


def test_nothing_but_the_own_script_can_run(tmp_path):
    path = write_ct(tmp_path / "<img src=x onerror=alert(3)>" / "ct.nii.gz")
    record = record_of(path, model={"model_id": HOSTILE, "model_type": HOSTILE, "random_weights": False})
    record = replace(record, notes=(HOSTILE,), plane=HOSTILE)
    folder = write_run(tmp_path / "out", record, [(HOSTILE, HOSTILE), ("plain", HOSTILE)], notes=[HOSTILE])
    ((written, _),) = write_reports(folder)
    page = Page(written.read_text(encoding="utf-8"))
    names = [name for name, _ in page.elements]
    assert names.count("script") == 2
    assert not {"img", "b", "iframe", "object", "link", "base", "form"} & set(names)
    assert not [
        key
        for _, attributes in page.elements
        for key in attributes
        if key.startswith("on") or key in ("style", "src", "href")
    ]
    (policy,) = [attributes["content"] for name, attributes in page.elements if attributes.get("http-equiv")]
    allowed = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (page.content["script"][1], page.content["style"][0])
    ]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert policy.endswith(f"style-src 'sha256-{allowed[1]}'; script-src 'sha256-{allowed[0]}'")
    assert "http" not in page.content["script"][1].replace("http://www.w3.org/2000/svg", "")
    assert "http" not in page.content["style"][0]
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
    assert page.text.count(shown) > 6


def test_deidentified(tmp_path, capsys):
    path = write_ct(tmp_path / "Doe_Jane" / "ct.nii.gz")
    record = record_of(path, model={"model_id": str(tmp_path / "Doe_Jane" / "weights"), "model_type": "qwen3_vl"})
    settings = json.loads(json.dumps(record.settings).replace('"series_uid": null', '"series_uid": "1.2.3.4711"'))
    folder = write_run(
        tmp_path / "out", replace(record, settings=settings), notes=["left out: Doe_Jane_003.PNG, odd", f"see {path}"]
    )
    main(["report", str(folder), "--deidentify", "--mask", str(path.with_name("mask.nii.gz"))])
    written = capsys.readouterr()
    assert "left out" in written.err
    text = (folder / "reports" / f"{record.name}.html").read_text(encoding="utf-8")
    assert not [part for part in ("Doe", "4711", str(tmp_path), "ct.nii.gz", "UklGR", "weights<") if part in text]
    page = Page(text)
    assert page.data["pictures"] is None
    assert page.data["runs"][0]["tokens"]
    assert "Seen:" in page.text
    assert {"left out: (left out), odd", "see (left out)"} <= set(page.texts)


def test_no_text_of_a_dicom_header(tmp_path):
    """With or without pixels; the maps for viewers have none either."""
    record = record_of(write_marked_series(tmp_path / "series", count=6))
    folder = write_run(tmp_path / "out", record)
    for deidentify in (False, True):
        ((path, _),) = write_reports(folder, deidentify=deidentify)
        assert MARKER not in path.read_text(encoding="utf-8")
    for path, _ in write_keep_maps(folder):
        if path is not None and path.suffix == ".gz":
            assert MARKER.encode() not in gzip.decompress(path.read_bytes())


def test_settings_without_paths():
    settings = {
        "a": "/home/x/y",
        "b": "owner/name",
        "c": "C:\\x",
        "d": ["k"],
        "e": None,
        "f": {"name": "T", "arguments": {"keys": 1, "x": 2}},
    }
    rows = dict(flat_settings(settings, deidentified=True))
    assert rows == {
        "a": "(left out)",
        "b": "owner/name",
        "c": "(left out)",
        "d": "['k']",
        "e": "none",
        "f › T › x": "2",
    }
    assert dict(flat_settings(settings, deidentified=False))["a"] == "/home/x/y"


def test_an_image_that_changed_or_is_gone(run):
    folder, record = run
    image = nib.load(record.image)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + np.int16(1), image.affine), record.image)
    page, note = page_of(folder)
    assert "not the one of the record" in note
    assert page.data["pictures"] is None
    assert note in page.text
    (folder.parent / "images" / "ct.nii.gz").unlink()
    _, note = page_of(folder)
    assert "does not exist" in note


@pytest.mark.parametrize("crop", [None, ((4, 33), (9, 50))])
def test_what_was_kept_of_a_lesion(run, crop):
    """Against loops over voxels and tokens."""
    _, record = run
    record = replace(record, geometry=replace(record.geometry, crop=crop))
    mask = study_mask(Path(record.image).with_name("mask.nii.gz"), record) > 0
    (top, bottom), (left, right) = crop or ((0, 40), (0, 56))
    counts = dict.fromkeys(("read", "encoded", "selected", "contextual", "merged"), 0)
    for row, column, index in np.argwhere(mask):
        if index not in record.slice_indices:
            continue
        counts["read"] += 1
        if not (top <= row < bottom and left <= column < right):
            continue
        counts["encoded"] += 1
        one = record.slices[record.slice_indices.index(index)]
        token = int((row - top + 0.5) / (bottom - top) * 5) * 7 + int((column - left + 0.5) / (right - left) * 7)
        counts["selected"] += bool(one.primary[token])
        counts["contextual"] += bool(one.contextual[token])
        counts["merged"] += not one.keep[token] and int(one.merged_into[token]) >= 0
    found = lesion_shares(mask, record)
    assert found.slices == (4, 5, 6)
    assert found.kept_slices == tuple(index for index in (4, 5, 6) if index in record.slice_indices)
    for name, count in counts.items():
        assert getattr(found, name) == pytest.approx(count / mask.sum()), name


def test_the_mask_lies_where_the_file_has_it(run):
    _, record = run
    voxels = np.asarray(nib.load(record.image).dataobj)
    mask = study_mask(Path(record.image).with_name("mask.nii.gz"), record)
    bright = (voxels > 130) & (voxels < 200)
    np.testing.assert_array_equal(mask, bright.transpose(1, 0, 2))


def test_outline_is_every_edge_once():
    mask = np.random.default_rng(0).random((9, 7)) > 0.5
    expected = set()
    padded = np.pad(mask, 1)
    for row in range(10):
        for column in range(8):
            if padded[row, column + 1] != padded[row + 1, column + 1] and column < 7:
                expected.add((column, row, "h"))
            if padded[row + 1, column] != padded[row + 1, column + 1] and row < 9:
                expected.add((column, row, "v"))
    found = []
    for part in outline(mask).split("M")[1:]:
        kind = "h" if "h" in part else "v"
        start, length = part.split(kind)
        x, y = map(int, start.split())
        found += [(x + step * (kind == "h"), y + step * (kind == "v"), kind) for step in range(int(length))]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_lesion_that_nobody_saw(tmp_path):
    path = write_ct(tmp_path / "ct.nii.gz")
    folder = write_run(tmp_path / "out", record_of(path, threshold=0.9))
    page, _ = page_of(folder, mask=path.with_name("mask.nii.gz"))
    assert "Not seen: its slices differ from their anchor by" in page.text
    assert sorted(map(int, page.data["outlines"])) == [4, 5, 6]
    assert "0 of 3 (slices 4 to 6)" in page.texts
    assert {"not seen", "0 of its 3 slices read, 0% in selected tokens"} <= set(page.texts)
    for index in (4, 5, 6):
        assert f"slice {index}, {page.data['slices'][index]['why']}" in page.text
    assert "By importance" not in page.text


def test_why_a_lesion_was_seen(run):
    """The rank of its highest token, by a loop over voxels: the first of 12 slices is read, of the lesion's not all."""
    folder, record = run
    path = Path(record.image).with_name("mask.nii.gz")
    ranks = []
    for row, column, index in np.argwhere(study_mask(path, record)):
        if index in record.slice_indices:
            one = record.slices[record.slice_indices.index(index)]
            own = one.importance[int((row + 0.5) / 40 * 5) * 7 + int((column + 0.5) / 56 * 7)]
            ranks.append((1 + sum(own < other for other in one.importance.tolist()), index))
    place, index = min(ranks)
    page, _ = page_of(folder, mask=path)
    assert f"the highest of its tokens is number {place} of 35 in slice {index}, where 17 were selected." in page.text
    missed = {4, 5, 6} - set(record.slice_indices)
    assert ("Not read: " in page.text) == bool(missed)
    assert [attributes["href"] for name, attributes in page.elements if name == "a"] == ["#lesion"]


def test_no_gap_where_every_slice_is_read(run):
    folder, record = run
    page, _ = page_of(folder)
    assert f"{record.largest_gap_mm:.1f} mm" in page.texts
    whole = record_of(Path(record.image), threshold=0.0)
    assert whole.largest_gap_mm == pytest.approx(3.0)
    page, _ = page_of(write_run(folder.parent / "whole", whole))
    assert page.data["gap"] is None
    assert {"none", "slices at most 3.0 mm apart"} <= set(page.texts)


def test_the_guards_block(tmp_path):
    """The block with the largest mean difference to the anchor, by loops over the file's voxels."""
    path = write_ct(tmp_path / "ct.nii.gz")
    record = record_of(path, threshold=0.2, guard_mm=8.0, guard_threshold=0.2)
    folder = write_run(tmp_path / "out", record)
    page, _ = page_of(folder)
    guarded = [index for index, one in enumerate(page.data["slices"]) if one["state"] == "guard"]
    assert guarded == [index for index in record.slice_indices if index]
    voxels = np.asarray(nib.load(path).dataobj, dtype=float).clip(-160, 240)
    voxels = ((voxels + 160) / 400).transpose(1, 0, 2)
    rows, columns = round(8 / 0.9), round(8 / 0.8)
    for anchor, index in pairwise(record.slice_indices):
        difference = voxels[..., index] - voxels[..., anchor]
        means = {
            (r, min(r + rows, 40), c, min(c + columns, 56)): abs(difference[r : r + rows, c : c + columns].mean())
            for r in range(0, 40, rows)
            for c in range(0, 56, columns)
        }
        largest = max(means, key=means.get)
        assert page.data["slices"][index]["block"] == list(largest)
        assert f"{means[largest]:.3f}" in page.data["slices"][index]["why"]


def test_a_guard_without_the_image(tmp_path):
    """Of the other run, whose path leads nowhere, and of a page without pixels."""
    path = write_ct(tmp_path / "ct.nii.gz")
    plain = write_run(tmp_path / "plain", record_of(path, threshold=0.2))
    guarded = record_of(path, threshold=0.2, guard_mm=8.0, guard_threshold=0.2)
    folder = write_run(tmp_path / "out", replace(guarded, image="nowhere.nii.gz"))
    page, note = page_of(plain, against=folder)
    assert note is None
    expected = list(guarded.slice_indices[1:])
    assert [index for index, one in enumerate(page.data["other"]) if one["state"] == "guard"] == expected
    page, _ = page_of(folder, deidentify=True)
    why = [one["why"] for one in page.data["slices"]]
    assert [index for index, one in enumerate(why) if one.startswith("kept by the guard: distance")] == expected


def test_against_another_run(tmp_path, capsys):
    path = write_ct(tmp_path / "ct.nii.gz")
    ours, theirs = record_of(path), record_of(path, threshold=0.05, seed=1)
    questions = ("same?", "other?")
    first = write_run(tmp_path / "first", ours, [(questions[0], "Yes."), (questions[1], "left")])
    second = write_run(tmp_path / "second", theirs, [(questions[0], "yes."), (questions[1], "right")])
    page, _ = page_of(first, against=second)
    assert page.text.index("other?") < page.text.index("same?")
    assert page.texts.count("differs: ") == 1
    kept = [index for index, one in enumerate(page.data["other"]) if one["state"] == "kept"]
    assert kept == list(theirs.slice_indices) != list(ours.slice_indices)
    assert sorted(map(int, page.data["runs"][1]["tokens"])) == kept
    assert "preprocessing › filter › InterSliceAnchorFilter › threshold (γ, --gamma)" in page.texts
    assert page.texts.index("0.02") + 1 == page.texts.index("0.05")
    coronal = write_run(tmp_path / "coronal", record_of(path, plane="coronal"))
    other = write_run(tmp_path / "third", record_of(write_ct(tmp_path / "b.nii.gz", seed=1)))
    for folder, message in ((coronal, "another plane"), (other, "no study of the same volume")):
        with pytest.raises(SystemExit):
            main(["report", str(first), "--against", str(folder)])
        assert message in capsys.readouterr().err


def test_times_without_pruning(run):
    folder, record = run
    results = read_results(folder)
    measured, unpruned, note = stage_estimates(RunOfStudy(record, results.lines))
    assert measured == {"load": 0.5, "filter": 0.25, "encode": 2.0, "select": 0.125, "prefill": 1.0, "decode": 0.5}
    kept, slices = sum(record.kept_tokens), len(record.slice_indices)
    assert unpruned["encode"] == pytest.approx(2.0 * 12 / slices)
    assert unpruned["prefill"] == pytest.approx((10 + 12 * 35) / (10 + kept))
    assert (unpruned["load"], unpruned["filter"], unpruned["select"], unpruned["decode"]) == (0.5, 0, 0, 0.5)
    assert "not measured" in note
    cached = [{**results.lines[0], "seconds": {}}]
    assert stage_estimates(RunOfStudy(record, cached))[1] is None


def test_pictures_stay_within_their_limit(tmp_path):
    """Of noise, which compresses worst: first the quality falls, then the size, and the note says so."""
    path = tmp_path / "ct.nii.gz"
    noise = np.random.default_rng(0).integers(-1000, 1000, (128, 128, 12), dtype=np.int16)
    nib.save(nib.Nifti1Image(noise, np.diag([-1.0, -1.0, 3.0, 1.0])), path)
    image = study_image(record_of(path, threshold=None))
    for limit, reduced in ((2_000_000, False), (700_000, False), (220_000, True)):
        pictures = slice_pictures(image, set(range(12)), limit)
        sizes = [len(one) for own in pictures.slices for one in own] + list(map(len, pictures.thumbs))
        assert sum(sizes) <= limit
        assert ("reduced to" in pictures.note) is reduced
        assert ("at full size" in pictures.note) is not reduced


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--study", "zz"], "no study begins with 'zz'"),
        (["--mask", "wrong.nii.gz"], "the mask is on another grid"),
        (["--mask", "none.nii.gz"], "does not exist"),
        (["--against", "."], "has neither answers.jsonl"),
    ],
)
def test_errors(run, capsys, monkeypatch, words, message):
    folder, _ = run
    nib.save(
        nib.Nifti1Image(np.ones((56, 40, 12), np.uint8), np.diag([-0.8, -0.9, 3.5, 1.0])),
        folder.parent / "wrong.nii.gz",
    )
    monkeypatch.chdir(folder.parent)
    with pytest.raises(SystemExit) as exit_:
        main(["report", str(folder), *words])
    assert exit_.value.code == 1
    assert message in capsys.readouterr().err


def test_a_mask_and_several_studies(tmp_path, capsys):
    path, other = write_ct(tmp_path / "a" / "ct.nii.gz"), write_ct(tmp_path / "b" / "ct.nii.gz", seed=1)
    folder = write_run(tmp_path / "out", record_of(path))
    second = record_of(other)
    second.save(folder / "records" / f"{second.name}.safetensors")
    extra = write_run(tmp_path / "extra", second)
    with (folder / "answers.jsonl").open("ab") as file:
        file.write((extra / "answers.jsonl").read_bytes())
    words = ["report", str(folder), "--mask", str(path.with_name("mask.nii.gz"))]
    with pytest.raises(SystemExit):
        main(words)
    assert "choose one with --study" in capsys.readouterr().err
    main([*words, "--study", StudyRecord.load(next((folder / "records").iterdir())).name])
    assert len(list((folder / "reports").iterdir())) == 1


def test_without_scores(tmp_path):
    path = write_ct(tmp_path / "ct.nii.gz")
    folder = write_run(tmp_path / "out", record_of(path, threshold=None, scores=False, pruner=None))
    page, _ = page_of(folder)
    assert page.data["distances"] is None
    assert all("curve" not in one for one in page.data["runs"][0]["tokens"].values())
    assert {one["why"] for one in page.data["slices"]} == {"kept by the rule for slices"}
