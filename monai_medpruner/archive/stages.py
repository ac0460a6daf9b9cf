# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The three stages of an archive run. Each is loaded once in a process and called with one study at a time.

They know nothing of Ray: a row comes in, a row goes out. An error of a study goes with it to its result lines; an error
that concerns the whole run (:func:`~monai_medpruner.errors.ends_run`) is handed to the driver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from monai_medpruner.archive.transit import StudyInTransit, levels_of_volume, volume_of_levels
from monai_medpruner.bundles import BundleWorkflow, open_bundle
from monai_medpruner.data import GuardedDataset
from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import describe_error, ends_run
from monai_medpruner.evaluation.ask_together import ask_together
from monai_medpruner.memory import is_out_of_memory, peak_memory, release_memory
from monai_medpruner.networks import EncodedStudy
from monai_medpruner.results import Answer, StudyRecord, result_line
from monai_medpruner.settings import bundle_folders
from monai_medpruner.transforms import describe_transform

__all__ = ["AnswerStudies", "BundleSettings", "EncodeStudies", "ReadStudies", "run_settings"]

#: an answer, or class and message of the error
_Result = Answer | tuple[str, str]


@dataclass(frozen=True)
class BundleSettings:
    """A bundle and its settings, which every process opens for itself.

    Args:
        bundle: name of the bundle, which the package has on every machine.
        overrides: see :func:`~monai_medpruner.settings.setting_overrides`.
    """

    bundle: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def open(self) -> BundleWorkflow:
        """Return the bundle's workflow; no model is loaded."""
        return open_bundle(bundle_folders()[self.bundle], self.overrides, items=())


def run_settings(settings: BundleSettings) -> dict[str, Any]:
    """Return the settings of every line of a run, derived from the objects that answer."""
    workflow = settings.open()
    return _described(workflow.network_def, _preprocessing(workflow))


class _Stage(ABC):
    """A callable that lets no exception out, since Ray would take it for the end of the process."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Work on a study."""
        study = StudyInTransit.from_row(row)
        if study.ends_run is None:
            try:
                study = self.work(study)
            except Exception as error:
                if is_out_of_memory(error):
                    release_memory()
                study = replace(study, levels=None, meta={}, **_failure(error))
        return study.to_row()

    @abstractmethod
    def work(self, study: StudyInTransit) -> StudyInTransit:
        """Return the study after this stage; errors of the study may be raised."""


class ReadStudies(_Stage):
    """Reads and filters studies, on a CPU. No model is loaded."""

    def __init__(self, settings: BundleSettings) -> None:
        self.preprocessing = _preprocessing(settings.open())

    def work(self, study: StudyInTransit) -> StudyInTransit:
        """Return the study with the gray levels of its kept slices."""
        found = GuardedDataset([{"image": study.items[0]["image"]}], self.preprocessing)[0]
        if "error" in found:
            return replace(study, error=found["error"])
        volume = found["image"]
        return replace(study, levels=levels_of_volume(volume), meta=dict(volume.meta))


class EncodeStudies(_Stage):
    """Encodes and prunes studies. Of the model, the vision encoder alone is loaded where the pruner needs no more."""

    def __init__(self, settings: BundleSettings) -> None:
        self.network: VolumeQA = settings.open().network_def
        encoder: Any = self.network.encoder
        if encoder.pruner is None or not encoder.pruner.needs_question:
            encoder.checkpoint.parts = "vision"
        encoder.describe()  # loads the model: what is wrong with it ends the run here

    def work(self, study: StudyInTransit) -> StudyInTransit:
        """Return the study with the tokens that are kept of it."""
        if study.error is not None or study.levels is None:
            return study
        encoded = self.network.encode(volume_of_levels(study.levels, study.meta))
        study = replace(study, levels=None, meta={})
        if encoded.pending is None:
            return replace(study, studies=(encoded.to_bytes(),))
        return replace(study, studies=tuple(self._for_question(encoded, item["prompt"]) for item in study.items))

    def _for_question(self, encoded: EncodedStudy, prompt: str) -> bytes | tuple[str, str]:
        try:
            return self.network.for_question(encoded, prompt).to_bytes()
        except Exception as error:
            return _described_error(error)


class AnswerStudies(_Stage):
    """Asks the questions about encoded studies, and makes their result lines."""

    def __init__(self, settings: BundleSettings) -> None:
        workflow = settings.open()
        self.network: VolumeQA = workflow.network_def
        self.settings = _described(self.network, _preprocessing(workflow))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Work on a study; every question has a line in the end, also of one that failed as a whole."""
        study = StudyInTransit.from_row(super().__call__(row))
        if not study.lines and study.ends_run is None:
            lines = [result_line(item, self.settings, error=study.error) for item in study.items]
            study = replace(study, studies=(), lines=tuple(lines))
        return study.to_row()

    def work(self, study: StudyInTransit) -> StudyInTransit:
        """Return the study with its lines and records."""
        if study.error is not None:
            return study
        loaded = [EncodedStudy.from_bytes(one) if isinstance(one, bytes) else one for one in study.studies]
        each = loaded * len(study.items) if len(loaded) == 1 else loaded
        lines: list[dict[str, Any]] = []
        records: dict[str, StudyRecord] = {}
        results = self._results(list(zip(each, study.items, strict=True)))
        for number, (encoded, item, result) in enumerate(zip(each, study.items, results, strict=True)):
            answer, error = (result, None) if isinstance(result, Answer) else (None, result)
            record, settings = None, self.settings
            if isinstance(encoded, EncodedStudy):
                record = encoded.record
                settings = {**settings, "model": record.settings["model"]}  # with the device that encoded it
                records.setdefault(record.name, record)
            line = result_line(
                item,
                settings,
                record=record,
                answer=answer,
                error=error,
                first=number == 0,
                peak_memory=peak_memory(),
            )
            lines.append(line)
        written = {name: record.to_bytes() for name, record in records.items()}
        return replace(study, studies=(), lines=tuple(lines), records=written)

    def _results(self, asked: Sequence[tuple[EncodedStudy | tuple[str, str], Mapping[str, Any]]]) -> list[_Result]:
        """Return the answer to each question, or class and message of its error."""
        valid = [(study, item["prompt"], None) for study, item in asked if isinstance(study, EncodedStudy)]
        results = ask_together(self.network, valid, _described_error)
        return [next(results) if isinstance(study, EncodedStudy) else study for study, _ in asked]


def _preprocessing(workflow: BundleWorkflow) -> Callable:
    return workflow.parser.get_parsed_content("preprocessing")


def _described(network: VolumeQA, preprocessing: Callable) -> dict[str, Any]:
    """Return the settings as a line of ``medpruner ask`` has them."""
    return {**network.describe(), "preprocessing": describe_transform(preprocessing)}


def _described_error(error: Exception) -> tuple[str, str]:
    """Return class and message of an error; raise one that ends the run."""
    if ends_run(error):
        raise error
    if is_out_of_memory(error):
        release_memory()
    return describe_error(error)


def _failure(error: Exception) -> dict[str, Any]:
    return {"ends_run": error} if ends_run(error) else {"error": describe_error(error)}
