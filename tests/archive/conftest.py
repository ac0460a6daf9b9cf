# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Phantoms, and what plain runs of the phantom bundle answer about them."""

from __future__ import annotations

import json

import pytest
from archive_runs import BUNDLE, CUT, STUDIES

from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import PRESETS, phantom_command


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A folder with twenty phantoms, of which one is cut off, and a file with two questions about each."""
    folder = tmp_path_factory.mktemp("archive")
    phantom_command(STUDIES, 4100, folder / "phantoms", PRESETS["small"])
    cut = folder / "phantoms" / "volumes" / CUT
    cut.write_bytes(cut.read_bytes()[:20_000])
    lines = [
        {"image": f"phantoms/volumes/phantom_{number:06d}.nii.gz", "id": f"{number}-{kind}", "question": question}
        for number in range(STUDIES)
        for kind, question in (("lesion", "Which organ contains the lesion?"), ("plane", "Which plane is it?"))
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def asked(archive, tmp_path_factory):
    """The lines of ``medpruner ask`` about all phantoms but the one that is cut off."""
    folder = tmp_path_factory.mktemp("asked")
    images = sorted(str(path) for path in (archive / "phantoms" / "volumes").iterdir() if path.name != CUT)
    text = (archive / "questions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if CUT not in line]
    for line in lines:
        line["image"] = str(archive / line["image"])
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    words = ["--image", *images, "--questions_file", str(questions), "--bundle", BUNDLE, "--device", "cpu"]
    main(["ask", *words, "--output_dir", str(folder / "out")])
    return [json.loads(line) for line in (folder / "out" / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
