# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The model of a bundle, with a cache of encoded studies, for MONAI Label's requests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.utils import CommonKeys

from monai_medpruner.bundles import open_bundle
from monai_medpruner.data.file_digests import FileDigests
from monai_medpruner.data.volume_meta import ENCODED_STUDY
from monai_medpruner.engines import VolumeQA
from monai_medpruner.label.configuration import Configuration
from monai_medpruner.label.overlay import is_sheared, overlay, present_labels, write_overlay
from monai_medpruner.label.parameters import OverlayParameters
from monai_medpruner.label.request_settings import adjust, adjustable
from monai_medpruner.networks import CachedEncoder, CachedPreprocessing, EncodedStudy, StudyCache
from monai_medpruner.results import STAGES
from monai_medpruner.terminal_text import package_logger

__all__ = ["StudyModel"]

_SHEAR_NOTE = (
    "the slices are sheared against each other (gantry tilt): viewers built on ITK, such as 3D Slicer, refuse this"
    " overlay as NIfTI"
)

# what the encoder spends; nothing where it found the study by its voxels
_ENCODING = ("encode", "select")

logger = package_logger(__name__)


class StudyModel:
    """Answers questions about studies. Each study is loaded and encoded once, for any number of questions.

    Requests run one at a time, from reading the file to the answer. Parallel requests therefore need no more memory
    than one.

    Each step of a request is logged with the request's number and sizes, but without names, paths, questions or
    answers.

    Args:
        workflow: initialized workflow of a bundle; its network is a :class:`VolumeQA`.
        cache_bytes: limit of the studies in memory; see :class:`~monai_medpruner.networks.StudyCache`. If the workflow
            has a cache folder, the folder is used as well.
    """

    def __init__(self, workflow: ConfigWorkflow, cache_bytes: int) -> None:
        self.preprocessing: Any = workflow.preprocessing
        self.network: VolumeQA = workflow.network_def
        encoder: Any = self.network.encoder
        self.cache = StudyCache(memory_bytes=cache_bytes)
        if isinstance(encoder, CachedEncoder):
            if (files := encoder.cache.files) is not None:
                self.cache = StudyCache(files.path, disk_bytes=files.size_bytes, memory_bytes=cache_bytes)
            encoder = encoder.encoder
        self.encoder: Any = encoder
        self.network.encoder = CachedEncoder(encoder, self.cache)
        self._digests = FileDigests()
        self._asked_with = {name: self.network.describe()[name] for name in ("prompt", "engine")}
        #: settings that a request may change, with the server's values
        self.adjustable = adjustable(self.preprocessing, self.encoder.pruner)
        self._lock = threading.Lock()
        self._numbers = count(1)

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> StudyModel:
        """Create the model of a configuration.

        Raises:
            MedPrunerError: the settings or the model are invalid.
        """
        return cls(open_bundle(configuration.bundle, configuration.overrides), configuration.cache_bytes)

    def ask(
        self,
        image: Path,
        question: str,
        history: Sequence[tuple[str, str]] = (),
        settings: Mapping[str, float] | None = None,
        max_new_tokens: int | None = None,
    ) -> dict[str, Any]:
        """Answer a question about a study.

        Args:
            image: file or folder of the study.
            question: plain text.
            history: earlier questions with their answers, oldest first.
            settings: "gamma", "tau" or "temperature", replacing the server's values.
            max_new_tokens: length limit of the answer; None for the server's.

        Returns:
            ``answer``; ``truncated``, whether it was cut off at its length limit; ``study``, the hash of the volume;
            ``slices`` and ``tokens``, as in ``answers.jsonl``; ``record``, for each kept slice its ``index`` (from 0),
            the ``grid`` of its tokens (rows, columns), and the indices of its ``primary`` and ``contextual`` tokens in
            row-major order; ``seconds`` per stage, 0 for stages whose result was in the cache; ``settings``; ``notes``.

        Raises:
            MedPrunerError: the study, the question or a setting is invalid.
        """
        number = next(self._numbers)
        with _Turn(self._lock, number, "a question"):
            study, seconds = self._encoded(image, settings or {}, number)
            turns = [text for turn in history for text in turn]
            answer = self.network.answer(study, [*turns, question], max_new_tokens)
            spent = answer.seconds
            logger.info(f"request {number}: answered ({spent['prefill']:.1f} s and {spent['decode']:.1f} s)")
        described = self._described(study, {**spent, **seconds})
        notes = [*described["notes"], *answer.notes]
        return {"answer": answer.text, "truncated": answer.truncated, **described, "notes": notes}

    def write_overlay(self, image: Path, form: OverlayParameters, folder: Path) -> tuple[Path, dict[str, Any]]:
        """Write the kept slices and tokens of a study as a label map on the study's grid.

        Args:
            image: file or folder of the study.
            form: format of the file, and settings as in :meth:`ask`.
            folder: where to write the file.

        Returns:
            The path of the file, and what :meth:`ask` returns, with ``label_names`` (label values by name) in place of
            ``answer`` and ``truncated``.

        Raises:
            MedPrunerError: the study or a setting is invalid.
        """
        number = next(self._numbers)
        with _Turn(self._lock, number, "an overlay"):
            study, seconds = self._encoded(image, form.settings, number)
            labels, affine = overlay(study.record)
            file = folder / f"pruning_overlay_{study.record.volume_id[:12]}{form.extension}"
            write_overlay(labels.astype(form.dtype), affine, file, form.compress)
            logger.info(f"request {number}: overlay written")
        described = self._described(study, seconds)
        if is_sheared(affine):
            described["notes"].append(_SHEAR_NOTE)
        return file, {"label_names": present_labels(labels), **described}

    def _encoded(
        self, image: Path, settings: Mapping[str, float], number: int
    ) -> tuple[EncodedStudy, dict[str, float]]:
        """Return the encoded study, and the seconds per stage that this request spent on it."""
        preprocessing, pruner = adjust(self.preprocessing, self.encoder.pruner, self.adjustable, settings)
        encoder = CachedEncoder(self.encoder.with_pruner(pruner), self.cache)
        load = CachedPreprocessing(preprocessing, encoder, digests=self._digests)
        volume = load({CommonKeys.IMAGE: str(image)})[CommonKeys.IMAGE]
        if ENCODED_STUDY in volume.meta:
            logger.info(f"request {number}: the study is in the cache")
            return encoder.encode(volume), {}
        loaded: dict[str, float] = dict(volume.meta["seconds"])
        logger.info(
            f"request {number}: {volume.shape[-1]} of {volume.meta.get('source_depth', volume.shape[-1])} slices kept "
            f"({sum(loaded.values()):.1f} s); encoding"
        )
        study = encoder.encode(volume)
        record, spent = study.record, study.record.seconds
        logger.info(
            f"request {number}: {sum(record.kept_tokens)} of {record.unpruned_tokens} tokens kept "
            f"({spent.get('encode', 0.0) + spent.get('select', 0.0):.1f} s)"
        )
        return study, dict(spent)

    def _described(self, study: EncodedStudy, seconds: Mapping[str, float]) -> dict[str, Any]:
        """Return what both requests report about a study."""
        record, summary = study.record, study.record.summary()
        kept = zip(record.slice_indices, record.slices, strict=True)
        return {
            "study": record.volume_id,
            "slices": summary["slices"],
            "tokens": summary["tokens"],
            "record": [
                {
                    "index": index,
                    "grid": list(one.grid),
                    "primary": one.primary.nonzero().flatten().tolist(),
                    "contextual": one.contextual.nonzero().flatten().tolist(),
                }
                for index, one in kept
            ],
            "seconds": {stage: round(seconds.get(stage, 0.0), 6) for stage in STAGES},
            "settings": {**_without_path(record.settings), **self._asked_with},
            "notes": summary["notes"],
        }


class _Turn:
    """Locks the model for one request, and logs how long the request waited and took."""

    def __init__(self, lock: threading.Lock, number: int, what: str) -> None:
        self.lock, self.number, self.what = lock, number, what

    def __enter__(self) -> None:
        arrived = perf_counter()
        self.lock.acquire()
        self.start = perf_counter()
        logger.info(f"request {self.number}: {self.what} (waited {self.start - arrived:.1f} s)")

    def __exit__(self, *_: object) -> None:
        logger.info(f"request {self.number}: done after {perf_counter() - self.start:.1f} s")
        self.lock.release()


def _without_path(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with a checkpoint folder reduced to its name."""
    model_id = str(settings["model"]["model_id"])
    name = Path(model_id).name if Path(model_id).is_dir() else model_id
    return {**settings, "model": {**settings["model"], "model_id": name}}
