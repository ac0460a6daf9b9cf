# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""An encoder that looks into a cache first, and transforms that load nothing that it will find there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from monai.data import Dataset, MetaTensor, get_track_meta
from monai.transforms import Compose, Randomizable, Transform
from monai.utils import CommonKeys, TransformBackends
from torch import nn
from torch.utils.data import get_worker_info

from monai_medpruner.data.file_digests import FileDigests
from monai_medpruner.data.volume_meta import ENCODED_STUDY, PerVolumeList
from monai_medpruner.networks.encoded_study import EncodedStudy
from monai_medpruner.networks.study_cache import StudyCache
from monai_medpruner.networks.study_key import StudyKey, VolumeSource
from monai_medpruner.networks.transformers_encoder import SliceEncoder
from monai_medpruner.pruners import TokenBudget, TokenPruner

__all__ = ["CachedEncoder", "CachedPreprocessing", "dataset_with_cache"]


class CachedEncoder(nn.Module):
    """A slice encoder that encodes what its cache does not hold, and keeps what it encoded.

    A study from the cache has the same tokens and the same record, but for the path of the image, the name of the
    preset, the seconds, which were not spent again, and a note where it comes from an earlier run.

    A volume is known by its files where :class:`CachedPreprocessing` loaded it, else by its voxels as they are encoded;
    the metadata's word is not enough here. What is changed in a loaded model is not known: use another cache for it.

    Args:
        encoder: encodes and prunes.
        cache: of its studies; encoders of any models and settings may share one.
    """

    def __init__(self, encoder: SliceEncoder, cache: StudyCache) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.cache = cache

    def find(self, source: VolumeSource, image: str = "") -> EncodedStudy | None:
        """Return the study of a source if the cache holds it.

        Args:
            source: of the slices.
            image: path of the image, for the record.
        """
        described = self.describe()
        found = self.cache.get(StudyKey.of(source, described))
        if found is None:
            return None
        # settings with an equal key may stand under another name
        settings = {**found.record.settings, **{name: described[name] for name in ("preset",) if name in described}}
        return replace(found, record=replace(found.record, image=image, settings=settings, seconds={}))

    def encode(self, volume: torch.Tensor) -> EncodedStudy:
        """Return the study of a volume ``(C, H, W, D)``, from the cache where it is there."""
        meta = volume.meta if isinstance(volume, MetaTensor) else {}
        if meta.get(ENCODED_STUDY):
            return meta[ENCODED_STUDY][0]
        kept = volume[..., : len(meta.get("kept_indices", range(volume.shape[-1])))]
        source = VolumeSource.of_volume(kept, trust_metadata=False)
        found = self.find(source, str(meta.get("filename_or_obj", "")))
        if found is not None:
            # these seconds were spent on the volume, in vain
            return replace(found, record=replace(found.record, seconds=dict(meta.get("seconds", ()))))
        study = self.encoder.encode(volume)
        study = replace(study, key=StudyKey.of(source, self.describe()))
        self.cache.put(study)
        return study

    def for_question(self, study: EncodedStudy, question: str) -> EncodedStudy:
        """Prune a study for a question, or find it pruned in the cache; itself where its pruner needs no question."""
        if study.pending is None:
            return study
        key = study.key
        own = StudyKey.of(VolumeSource(key.volume, key.preprocessing), self.describe())
        if replace(own, pruner=key.pruner) != key:  # another encoder's study, which this one may prune otherwise
            return self.encoder.for_question(study, question)
        found = self.cache.get(key.for_question(question))
        if found is not None:
            before = study.record
            seconds = {**before.seconds, "select": 0.0}
            record = replace(found.record, image=before.image, settings=before.settings, seconds=seconds)
            return replace(found, record=record)
        pruned = self.encoder.for_question(study, question)
        self.cache.put(pruned)
        return pruned

    def describe(self) -> dict[str, Any]:
        """What encodes and prunes; a cache changes nothing about it."""
        return self.encoder.describe()

    @property
    def pruner(self) -> TokenPruner | None:
        """The encoder's pruner."""
        return self.encoder.pruner

    @property
    def checkpoint(self) -> Any:
        """The encoder's checkpoint."""
        return self.encoder.checkpoint

    @property
    def token_budget(self) -> int | None:
        """The encoder's token budget."""
        return self.encoder.token_budget

    @property
    def budget(self) -> TokenBudget | None:
        """The encoder's limit of the tokens that are kept."""
        return self.encoder.budget

    def encode_each(self, volume: torch.Tensor, pruners: Sequence[TokenPruner | None]) -> list[EncodedStudy]:
        """Encode for several pruners at once, past the cache."""
        return self.encoder.encode_each(volume, pruners)

    def with_pruner(self, pruner: TokenPruner | None) -> CachedEncoder:
        """The same encoder with another pruner, and the same cache."""
        return CachedEncoder(self.encoder.with_pruner(pruner), self.cache)


class CachedPreprocessing(Transform):
    """Transforms that load and filter a volume, unless its encoded study is in an encoder's cache.

    The study is found by the content of the volume's files, before any voxel is read. Its place under the key is then
    taken by an empty volume that bears the study, which :class:`CachedEncoder` returns. Otherwise the volume is loaded,
    and bears the hash of its files, by which its study is kept; files that change meanwhile are not hashed by halves:
    such a volume bears nothing.

    Transforms are told apart by their descriptions: class and arguments, of functions the name alone. Where the code of
    a function changes, use another folder.

    Nothing is looked up where the result would not be repeated: for random transforms, in worker processes of a data
    loader (the volume still bears the hash), and where MONAI is told not to track metadata.

    Args:
        preprocessing: maps a dictionary with a path to one with a volume. It must be the whole way from the file to the
            encoder.
        encoder: with the cache.
        key: of the path and the volume.
        digests: remembers the hashes of files that have not changed.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 - MONAI's convention

    def __init__(
        self,
        preprocessing: Callable,
        encoder: CachedEncoder,
        key: str = CommonKeys.IMAGE,
        digests: FileDigests | None = None,
    ) -> None:
        self.described_as = preprocessing
        self.encoder = encoder
        self.key = key
        self.digests = digests or FileDigests()

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the dictionary with the volume, or with an empty one that bears the encoded study."""
        path = data[self.key]
        digest = self._digest(path)
        if digest is None:
            return self.described_as(data)
        source = VolumeSource.of_files(digest, self.described_as)
        study = self.encoder.find(source, str(path)) if get_worker_info() is None else None
        if study is not None:
            # an encoder that does not know this entry refuses voxels that are no numbers
            empty = MetaTensor(torch.full((1, 1, 1, 1), torch.nan), meta={ENCODED_STUDY: PerVolumeList([study])})
            return {**data, self.key: empty}
        loaded = dict(self.described_as(data))
        if isinstance(loaded[self.key], MetaTensor) and self._digest(path) == digest:
            source.mark(loaded[self.key])
        return loaded

    def _digest(self, path: Any) -> str | None:
        """The hash of the files; None where they cannot be read, which loading tells better, or nothing is cached."""
        if not isinstance(path, (str, os.PathLike)) or not get_track_meta() or _is_random(self.described_as):
            return None
        try:
            return self.digests(path)
        except OSError:
            return None


def dataset_with_cache(dataset: Dataset, encoder: CachedEncoder) -> Dataset:
    """Return a data set like another one that loads no volume whose encoded study is in an encoder's cache.

    Args:
        dataset: its transform is the whole way from the files to the encoder.
        encoder: with the cache.
    """
    other: Any = copy(dataset)
    other.transform = CachedPreprocessing(dataset.transform, encoder)
    return other


def _is_random(transform: Any) -> bool:
    if isinstance(transform, Compose) or hasattr(transform, "transforms"):
        return any(_is_random(child) for child in transform.transforms)
    return isinstance(transform, Randomizable)
