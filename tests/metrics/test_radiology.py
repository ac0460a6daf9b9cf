# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The hook to RadEval, with a stand-in of its interface, and without it."""

from __future__ import annotations

import sys
import types

import pytest

from monai_medpruner.errors import PackageVersionError, SettingsError
from monai_medpruner.metrics import RadEvalScorer


@pytest.fixture
def radeval(monkeypatch):
    """RadEval 2.2's call signature; a report's score is its length."""

    class RadEval:
        def __init__(self, metrics=None, per_sample=False):
            assert per_sample
            self.metrics = metrics

        def __call__(self, refs, hyps):
            assert isinstance(refs, list)
            assert isinstance(hyps, list)
            return {name: [float(len(h) - len(r)) for h, r in zip(hyps, refs, strict=True)] for name in self.metrics}

    monkeypatch.setitem(sys.modules, "radeval", types.SimpleNamespace(RadEval=RadEval))


def test_reports_go_in_and_scores_per_report_come_out(radeval):
    assert RadEvalScorer(["green", "radgraph"])(("abc", "a"), ("a", "a")) == {
        "green": [2.0, 0.0],
        "radgraph": [2.0, 0.0],
    }
    assert RadEvalScorer({"green": {}})(["ab"], ["a"]) == {"green": [1.0]}


def test_wrong_use(radeval):
    with pytest.raises(SettingsError, match="at least one metric"):
        RadEvalScorer([])
    with pytest.raises(SettingsError, match="2 predictions need as many references, got 1"):
        RadEvalScorer(["green"])(["a", "b"], ["a"])


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "radeval", None)
    with pytest.raises(PackageVersionError, match=r"pip install 'monai-medpruner\[radeval\]'"):
        RadEvalScorer(["green"])


def test_the_extra_is_declared(repository):
    assert 'radeval = ["RadEval' in (repository / "pyproject.toml").read_text(encoding="utf-8")
