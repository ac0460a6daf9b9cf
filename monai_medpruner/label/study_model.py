# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""One bundle's model, the studies that it has encoded, and the answers about them."""

from __future__ import annotations

import logging
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

__all__ = ["StudyModel"]

_SHEAR_NOTE = (
    "the slices are sheared against each other (gantry tilt): viewers built on ITK, 3D Slicer among them, refuse this"
    " overlay as NIfTI"
)

# what the encoder spends; nothing where it found the study by its voxels
_ENCODING = ("encode", "select")

logger = logging.getLogger(__name__)


class StudyModel:
    """Answers questions about studies; a study is loaded and encoded once, whatever the number of questions.

    One request at a time reaches the model, in its whole way from the file to the answer, so that parallel requests
    take no more memory than one and none sees another's record.

    The log gets a line at each step of a request, with its number and sizes: no name, path, question or answer.

    Args:
        workflow: of a bundle, initialized; its network is a :class:`VolumeQA`.
        cache_bytes: of the studies in memory; see :class:`~monai_medpruner.networks.StudyCache`. Where the workflow
            has a folder for them, it is used as well.
    """

    def __init__(self, workflow: ConfigWorkflow, cache_bytes: int) -> None:
        self.preprocessing: Any = workflow.preprocessing
        self.network: VolumeQA = workflow.network_def
        encoder: Any = self.network.encoder
        self.cache = StudyCache(memory_bytes=cache_bytes)
        if isinstance(encoder, CachedEncoder):
            folder = encoder.cache
            self.cache = StudyCache(folder.folder, disk_bytes=folder.disk_bytes, memory_bytes=cache_bytes)
            encoder = encoder.encoder
        self.encoder: Any = encoder
        self.network.encoder = CachedEncoder(encoder, self.cache)
        self._digests = FileDigests()
        self._asked_with = {name: self.network.describe()[name] for name in ("prompt", "engine")}
        #: what requests may change for themselves, with the server's values
        self.adjustable = adjustable(self.preprocessing, self.encoder.pruner)
        self._lock = threading.Lock()
        self._numbers = count(1)

    @classmethod
    def from_configuration(cls, configuration: Configuration) -> StudyModel:
        """Load the model of a configuration.

        Raises:
            MedPrunerError: whatever is wrong with the settings or the model.
        """
        return cls(open_bundle(configuration.bundle, configuration.overrides), configuration.cache_bytes)

    def ask(
        self,
        image: Path,
        question: str,
        history: Sequence[tuple[str, str]] = (),
        settings: Mapping[str, float] | None = None,
    ) -> dict[str, Any]:
        """Answer a question about a study.

        Args:
            image: its file or folder.
            question: plain text.
            history: earlier questions with their answers, oldest first.
            settings: "gamma", "tau" or "temperature" in place of the server's.

        Returns:
            ``answer``; ``study``, the hash of the volume; ``slices`` and ``tokens``, as a bundle's answer file has
            them; ``record``, per kept slice its ``index`` counted from 0, the ``grid`` of its tokens (rows, columns),
            and the numbers of its ``primary`` and ``contextual`` tokens, counted along the rows; ``seconds`` per stage,
            0 for those that an earlier request went through; ``settings``; ``notes``.

        Raises:
            MedPrunerError: whatever is wrong with the study, the question or the settings.
        """
        number = next(self._numbers)
        with _Turn(self._lock, number, "a question"):
            study, seconds = self._encoded(image, settings or {}, number)
            turns = [text for turn in history for text in turn]
            answer = self.network.answer(study, [*turns, question])
            spent = answer.seconds
            logger.info(f"request {number}: answered ({spent['prefill']:.1f} s and {spent['decode']:.1f} s)")
        return {"answer": answer.text, **self._described(study, {**spent, **seconds})}

    def write_overlay(self, image: Path, form: OverlayParameters, folder: Path) -> tuple[Path, dict[str, Any]]:
        """Write what was kept of a study as a label map on its own grid.

        Args:
            image: its file or folder.
            form: of the file, and settings as in :meth:`ask`.
            folder: gets the file.

        Returns:
            The file, and what :meth:`ask` returns but the answer, with ``label_names``, the values of the labels.

        Raises:
            MedPrunerError: whatever is wrong with the study or the settings.
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
        """The study, and the seconds that this request spent on it."""
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
    """Holds the model for one request, and logs how long it waited and took."""

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
    """The settings as answers hold them: of a checkpoint folder its name alone."""
    model_id = str(settings["model"]["model_id"])
    name = Path(model_id).name if Path(model_id).is_dir() else model_id
    return {**settings, "model": {**settings["model"], "model_id": name}}
