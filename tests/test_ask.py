# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner ask``."""

from __future__ import annotations

import json

import jsonschema
import pytest

from monai_medpruner.bundles import bundle_for_model
from monai_medpruner.cli import main as command_line
from monai_medpruner.errors import ModelMemoryError, UnsupportedModelError
from monai_medpruner.networks import TransformersEncoder
from monai_medpruner.results import LINE_SCHEMA
from monai_medpruner.settings import bundle_folders
from monai_medpruner.terminal_text import printable
from monai_medpruner.testing import save_tiny_checkpoint


@pytest.fixture
def ask(shared_data, tmp_path, capsys):
    """Return a function: words -> standard output and the lines of the answer file."""
    image = str(shared_data("ct_torso_nifti/ct_small.nii.gz"))

    def run(*words):
        folder = tmp_path / "out"
        command_line.main(["ask", "--image", image, "--output_dir", str(folder), "--max_new_tokens", "4", *words])
        lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        return capsys.readouterr().out, [json.loads(line) for line in lines]

    return run


def test_text_is_asked_word_for_word_and_the_answer_printed(ask):
    question = "$__import__('os').abort() or Lesion #3, 'left' @gamma %x.json?"
    printed, (line,) = ask("--model", "tiny", "--question", question, "--slices", "3:7", "--gamma", "none")
    assert line["question"] == question
    assert printed.strip() == printable(line["answer"])
    assert line["slices"]["indices"] == [3, 4, 5, 6]
    slice_filter = line["settings"]["preprocessing"][1]["transforms"][0]["arguments"]
    assert slice_filter["threshold"] is None


def test_a_page_of_the_run(ask, tmp_path):
    _, (line,) = ask("--model", "tiny", "--question", "a?", "--slices", "3:7", "--report")
    page = tmp_path / "out" / "reports" / f"{line['record']}.html"
    assert "UklGR" in page.read_text(encoding="utf-8")  # pictures
    assert "<bdi>a?</bdi>" in page.read_text(encoding="utf-8")


def test_several_questions(ask, tmp_path):
    (tmp_path / "questions.jsonl").write_text('{"question": "c?"}\n')
    words = ["--model", "tiny", "--question", "a?", "b?", "--questions_file", str(tmp_path / "questions.jsonl")]
    printed, lines = ask(*words)
    assert [line["question"] for line in lines] == ["a?", "b?", "c?"]
    assert [text for text in printed.splitlines() if text.startswith("> ")] == ["> a?", "> b?", "> c?"]


def test_what_was_kept_and_the_notes_are_on_standard_error(shared_data, tmp_path, capsys):
    image, folder = shared_data("ct_torso_nifti/ct_small.nii.gz"), tmp_path / "out"
    words = ["ask", "--image", str(image), "--output_dir", str(folder), "--model", "tiny", "--question", "a?"]
    command_line.main([*words, "--slices", "3:7", "--gamma", "none", "--max_new_tokens", "4"])
    written = capsys.readouterr()
    (line,) = [json.loads(text) for text in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written.out.strip() == printable(line["answer"])
    kept = f"kept: 4 of 30 slices (largest gap {line['slices']['largest_gap_mm']:.1f} mm), {line['tokens']['kept']} of"
    assert kept in written.err
    assert "; seconds: " in written.err
    assert line["notes"]
    assert all(f"note: {note}\n" in written.err for note in line["notes"])
    assert "Writing model shards" not in written.err


@pytest.mark.parametrize(
    ("model_type", "bundle"),
    [
        ("qwen3_vl", "medpruner_qwen3vl"),
        ("gemma3", "medpruner_medgemma"),
        ("video_llama_3", "medpruner_hulumed"),
        ("qwen2_5_vl", "medpruner_qwen3vl"),
    ],
)
def test_bundle_of_a_model(model_type, bundle):
    assert bundle_for_model(model_type) == bundle_folders()[bundle]


def test_no_bundle_for_an_unsupported_model():
    with pytest.raises(UnsupportedModelError):
        bundle_for_model("bert")


def test_the_bundle_follows_from_the_checkpoint(ask, tmp_path):
    checkpoint = save_tiny_checkpoint("video_llama_3", tmp_path / "checkpoint")
    _, (line,) = ask("--model", str(checkpoint), "--question", "Which organ?", "--slices", "0:2", "--tau", "0.5")
    settings = json.loads((bundle_folders()["medpruner_hulumed"] / "configs" / "inference.json").read_text())
    assert line["settings"]["model"]["model_type"] == "video_llama_3"
    assert line["settings"]["model"]["random_weights"] is True  # as its config.json says
    assert line["settings"]["model"]["model_id"] == str(checkpoint)
    assert line["settings"]["pruner"]["tau"] == 0.5
    assert line["settings"]["pruner"]["temperature"] == settings["temperature"]
    assert line["settings"]["model"]["revision"] is None


def test_fields_of_the_pruner(ask):
    words = ["--model", "tiny", "--question", "a?", "--slices", "3:7", "--gamma", "none", "--tau", "0.01"]
    _, (line,) = ask(*words, "--token_pruner::min_tokens", "3", "--token_pruner::contextual_ratio=0")
    assert line["settings"]["pruner"]["min_tokens"] == 3
    assert line["tokens"]["per_slice"] == [3, 3, 3, 3]
    _, (line,) = ask(*words, "--pruner", "none")
    assert line["settings"]["pruner"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--question", ""], "the question is empty"),
        ([], "no question"),
        (["--question", "a?", "--tau", "many"], "--tau must be a number"),
        (["--question", "a?", "--tau", "0"], "tau must lie in"),
        (["--question", "a?", "--gama", "0.1"], "did you mean --gamma"),
        (["--question", "a?", "--min_tokens", "2"], "did you mean --token_pruner::min_tokens"),
        (["--question", "a?", "--token_pruner::pool", "2"], "pool"),
        (["--question", "a?", "--token_pruner::min_tokens"], "needs a value"),
        (["--question", "a?", "--plane", "$print(1)"], "--plane must not begin with"),
        (["--question", "a?", "--slices", "90:99"], "slices"),
        (["--question", "a?", "--model", "/no/such"], "there is no such folder"),
        (["--question", "a?", "--image", "/no/such.nii"], "does not exist"),
    ],
    ids=str,
)
def test_errors_are_one_line(ask, capsys, tmp_path, words, message):
    with pytest.raises(SystemExit) as exit_:
        ask(*(words if "--model" in words else ["--model", "tiny", *words]))
    assert exit_.value.code == 1
    written = capsys.readouterr().err.strip().splitlines()
    assert "medpruner ask: error: " in written[-1]
    assert message in written[-1]
    assert not any("terminating" in line or "object at 0x" in line for line in written)
    assert not (tmp_path / "out" / "answers.jsonl").exists()


def test_a_study_of_an_earlier_run(ask, tmp_path):
    """The second run loads and encodes nothing, says so, and answers the same; other settings find nothing."""
    words = ["--model", "tiny", "--question", "a?", "b?", "--slices", "2:9", "--cache_dir", str(tmp_path / "cache")]
    _, first = ask(*words)
    _, later = ask(*words)
    _, other = ask(*words, "--tau", "0.5")
    shared = ("load", "filter", "encode", "select")
    assert all(first[0]["seconds"][stage] > 0 for stage in shared)
    assert all(line["seconds"][stage] == 0 for line in later for stage in shared)
    assert other[0]["seconds"]["encode"] > 0
    assert all(any("study cache" in note for note in line["notes"]) for line in later)
    for before, after in zip(first, later, strict=True):
        apart = ("seconds", "notes", "peak_memory_mb")
        assert {name: value for name, value in before.items() if name not in apart} == {
            name: value for name, value in after.items() if name not in apart
        }
    # of each setting the study, and the beginning of its prompt
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 4
    assert len(list((tmp_path / "cache").glob("*.prompt.safetensors"))) == 2


@pytest.fixture
def three_volumes(shared_data, tmp_path):
    """A CSV of three images, of which the second is cut off."""
    source = shared_data("ct_torso_nifti/ct_small.nii.gz")
    content = source.read_bytes()
    for name, bytes_kept in (("first", None), ("cut", len(content) // 2), ("last", None)):
        (tmp_path / f"{name}.nii.gz").write_bytes(content[:bytes_kept])
    table = tmp_path / "images.csv"
    table.write_text("image,question\nfirst.nii.gz,a?\ncut.nii.gz,b?\nlast.nii.gz,c?\n", encoding="utf-8")
    return table


def ask_all(table, *words):
    """Ask about the images of a CSV; return the exit status and the lines."""
    folder = table.parent / "out"
    shared = ["--model", "tiny", "--slices", "3:7", "--gamma", "none", "--max_new_tokens", "4"]
    with pytest.raises(SystemExit) as ended:
        command_line.main(["ask", "--image", str(table), "--output_dir", str(folder), *shared, *words])
    file = folder / "answers.jsonl"
    read = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return ended.value.code, [json.loads(line) for line in read]


def test_a_volume_that_fails_does_not_end_the_others(three_volumes, capsys):
    status, lines = ask_all(three_volumes, "--question", "d?")
    written = capsys.readouterr()
    assert status == 1
    found = [(line["question"], line["status"], line["image"].rsplit("/", 1)[1]) for line in lines]
    assert found == [
        ("a?", "ok", "first.nii.gz"),
        ("d?", "ok", "first.nii.gz"),
        ("b?", "UnreadableVolumeError", "cut.nii.gz"),
        ("d?", "UnreadableVolumeError", "cut.nii.gz"),
        ("c?", "ok", "last.nii.gz"),
        ("d?", "ok", "last.nii.gz"),
    ]
    for line in lines:
        jsonschema.validate(line, LINE_SCHEMA)
    # every question stands above its own answer
    expected = "".join(f"> {one['question']}\n{printable(one['answer'])}\n" for one in lines if one["status"] == "ok")
    assert written.out == expected
    assert f"error: {lines[2]['image']}: {lines[2]['error']}\n" in written.err
    assert "1 of 3 volumes failed" in written.err
    command_line.main(["answers", str(three_volumes.parent / "out")])
    table = capsys.readouterr().out
    assert f"2 question(s) failed: {lines[2]['error']}" in table
    assert table.count("kept: 4 of 30 slices") == 2


def test_pages_of_the_volumes_that_were_answered(three_volumes, capsys):
    status, lines = ask_all(three_volumes, "--report")
    assert status == 1
    pages = {path.stem for path in (three_volumes.parent / "out" / "reports").glob("*.html")}
    assert pages == {line["record"] for line in lines if line["status"] == "ok"}
    assert capsys.readouterr().err.count("report: ") == len(pages) > 0


def test_an_error_while_encoding_fails_one_volume(three_volumes, monkeypatch, capsys):
    encode, calls = TransformersEncoder.encode, []

    def encode_but_not_first(self, volume):
        calls.append(volume.meta["filename_or_obj"])
        if len(calls) == 1:
            raise ModelMemoryError("out of memory")
        return encode(self, volume)

    monkeypatch.setattr(TransformersEncoder, "encode", encode_but_not_first)
    status, lines = ask_all(three_volumes)
    assert status == 1
    assert [line["status"] for line in lines] == ["ModelMemoryError", "UnreadableVolumeError", "ok"]
    assert lines[0]["image"] == calls[0]
    assert "2 of 3 volumes failed" in capsys.readouterr().err


def test_a_missing_checkpoint_ends_the_run(three_volumes, capsys):
    status, lines = ask_all(three_volumes, "--model", "/no/such", "--bundle", "medpruner_qwen3vl")
    assert (status, lines) == (1, [])
    assert "there is no such folder" in capsys.readouterr().err


def test_a_single_volume_fails_at_once(three_volumes, capsys):
    three_volumes.write_text("image,question\ncut.nii.gz,b?\n", encoding="utf-8")
    assert ask_all(three_volumes) == (1, [])
    assert "volumes failed" not in capsys.readouterr().err
