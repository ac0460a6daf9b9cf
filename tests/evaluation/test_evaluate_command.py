# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``medpruner evaluate`` runs a bundle's evaluation, prints the metrics, and resumes."""

from __future__ import annotations

import json

import pytest

from monai_medpruner.cli.main import main
from monai_medpruner.data.phantom import PhantomSettings, phantom_command


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Return a function: further words -> what the command printed."""
    phantom_command(2, 3, tmp_path / "phantoms", PhantomSettings(in_plane_sizes=(64,), depth=(8, 8)))

    def run(*words):
        given = ["--dataset_dir", str(tmp_path / "phantoms"), "--output_dir", str(tmp_path / "out")]
        main(["evaluate", "--model", "tiny", *given, "--max_new_tokens", "3", "--task", "closed", *words])
        return capsys.readouterr()

    return run


def test_prints_and_resumes(evaluate, tmp_path):
    printed = evaluate("--gamma", "none").out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    accuracy = metrics["micro"]["accuracy"]
    assert f"items: {metrics['items']} about 2 volumes, 0 failed" in printed
    assert f"accuracy: {accuracy['value']:.1f} % (95 % interval {accuracy['low']:.1f}" in printed
    assert f"kept: {metrics['retention']['overall']:.1%} of the visual tokens" in printed
    written = (tmp_path / "out" / "predictions.jsonl").read_bytes()
    assert evaluate("--gamma", "none").out == printed
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == written


def test_other_settings_are_refused_by_name(evaluate, capsys):
    evaluate("--gamma", "none")
    with pytest.raises(SystemExit):
        evaluate("--gamma", "0.05")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "contains predictions of another run" in error
    assert "threshold was null and is 0.05" in error
    assert "Error" not in error


def test_report_writes_a_page_for_each_study_and_resumes(evaluate, tmp_path):
    """Only pages that are missing or incomplete are written again; a volume that failed has none, which is said."""
    items = [json.loads(line) for line in (tmp_path / "phantoms" / "phantoms.jsonl").read_text().splitlines()]
    broken = tmp_path / "phantoms" / items[0]["image"]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    first = evaluate("--report").err
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"ok", "UnreadableVolumeError"}
    (name,) = {line["record"] for line in lines if "record" in line}
    (page,) = (tmp_path / "out" / "reports").iterdir()
    assert page.name == f"{name}.html"
    assert "reports: 1, written now: 1\n" in first
    assert "volumes that failed and have no report: 1;" in first
    written = page.stat().st_mtime_ns
    assert "reports: 1, written now: 0\n" in evaluate("--report").err
    assert page.stat().st_mtime_ns == written
    page.write_bytes(page.read_bytes()[:-3])
    assert "reports: 1, written now: 1\n" in evaluate("--report").err
    broken.write_bytes(whole)
    last = evaluate("--report", "--retry_failed", "true").err
    assert "reports: 2, written now: 1\n" in last
    assert "no report" not in last
