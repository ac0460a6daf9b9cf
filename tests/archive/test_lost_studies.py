# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Studies that the stages lose, without Ray."""

from __future__ import annotations

from contextlib import nullcontext

from monai_medpruner.archive import BundleSettings, answer_archive, run
from monai_medpruner.archive.transit import StudyInTransit
from monai_medpruner.results import result_line

DESCRIBED = {"model": {"device": "cpu"}, "engine": {"name": "transformers"}}


def test_lost_studies_are_sent_again_and_then_recorded(tmp_path, monkeypatch):
    """One is lost with its machine, another one ends every process."""
    rounds = []

    def streamed(groups, settings, **options):
        rounds.append([group[0]["image"] for group in groups])
        for group in groups:
            if group[0]["image"] == "poison" or (group[0]["image"] == "unlucky" and len(rounds) == 1):
                continue
            lines = tuple(result_line(item, DESCRIBED) for item in group)
            yield StudyInTransit(group, lines=lines, records={group[0]["image"]: b"record"})

    monkeypatch.setattr(run, "ray_cluster", lambda *arguments: nullcontext())
    monkeypatch.setattr(run, "described_settings", lambda settings: DESCRIBED)
    monkeypatch.setattr(run, "streamed", streamed)
    images = ["a", "unlucky", "poison", "b"]
    items = [
        {"id": f"{image}{number}", "image": image, "question": "q?", "prompt": "q?"}
        for image in images
        for number in (0, 1)
    ]
    lines = answer_archive(items, tmp_path, BundleSettings("medpruner_phantom"))
    assert rounds == [images, ["unlucky", "poison"]]
    assert [line["id"] for line in lines] == [item["id"] for item in items]
    lost = {line["image"] for line in lines if line["status"] == "ArchiveWorkerError"}
    assert lost == {"poison"}
    assert {line["status"] for line in lines if line["image"] != "poison"} == {"ok"}
    assert "in each of 6 attempts" in lines[4]["error"]
    assert (tmp_path / "records" / "unlucky.safetensors").read_bytes() == b"record"
