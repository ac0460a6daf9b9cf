# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Several pruning configurations that share the output of the encoder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Compose

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import EncodedStudy
from monai_medpruner.networks.study_record import study_record
from monai_medpruner.pruners import TokenPruner
from monai_medpruner.transforms import with_threshold
from monai_medpruner.transforms.slice_selection import SliceSelection

__all__ = ["Variant", "encode_variants", "sweep_variants"]


@dataclass(frozen=True, eq=False)
class Variant:
    """One pruning configuration.

    Args:
        name: name of its folder in the output folder; "" for the output folder itself.
        slices: dictionary transform that selects slices of "image". It runs once for all variants that share the
            object. None keeps all slices of the preprocessed volume.
        pruner: selects the tokens to keep; None keeps all.
        settings: settings that distinguish it from other variants, as JSON values.
    """

    name: str = ""
    slices: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    pruner: TokenPruner | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def sweep_variants(
    preprocessing: Compose,
    pruner: TokenPruner | None,
    gammas: Sequence[float | None],
    taus: Sequence[float],
    temperatures: Sequence[float],
) -> list[Variant]:
    """Return a variant for every combination of γ, τ and temperature.

    Their folders are named ``gamma=…_tau=…_temperature=…``.

    Args:
        preprocessing: transforms whose last one filters slices; those before it belong to the data set.
        pruner: pruner whose ``tau`` and ``temperature`` are varied.
        gammas: thresholds of the slice filter; None keeps every slice.
        taus: shares of attention.
        temperatures: temperatures of the scores.

    Raises:
        SettingsError: a list is empty or has duplicates, or the pruner has no ``tau`` or ``temperature``.
    """
    for name, values in (("gammas", gammas), ("taus", taus), ("temperatures", temperatures)):
        if not values or len(set(values)) < len(values):
            raise SettingsError(f"{name} must be a list of distinct values, got {values!r}")
    own = {one.name for one in fields(pruner)} if pruner is not None else set()
    if pruner is None or not {"tau", "temperature"} <= own:
        found = "no pruner" if pruner is None else type(pruner).__name__
        raise SettingsError(f"a sweep varies tau and temperature, which {found} does not have; use --pruner nucleus")
    stage = preprocessing.transforms[-1]
    filters = {gamma: with_threshold(stage, gamma) for gamma in gammas}
    return [
        Variant(
            name=f"gamma={'none' if gamma is None else f'{gamma:g}'}_tau={tau:g}_temperature={temperature:g}",
            slices=filters[gamma],
            pruner=replace(pruner, tau=tau, temperature=temperature),  # type: ignore[call-arg]
            settings={"gamma": gamma, "tau": tau, "temperature": temperature},
        )
        for gamma, tau, temperature in itertools.product(gammas, taus, temperatures)
    ]


def encode_variants(
    network: VolumeQA, volume: MetaTensor, variants: Sequence[Variant]
) -> list[tuple[Variant, EncodedStudy]]:
    """Encode a volume for several variants, each slice only once if possible.

    The slices that any variant keeps are encoded once and pruned by every pruner. Each selection of slices is encoded
    separately for pruners of whole volumes, under a budget of the tokens of all slices, and if a token budget makes the
    size of a slice depend on the number of kept slices. The encoder's seconds in a record are those of the encoding
    that its study shares.

    Args:
        network: network whose encoder is used; its pruner is ignored.
        volume: volume ``(C, H, W, D)``.
        variants: variants to encode for.
    """
    encoder: Any = network.encoder
    selections = list(dict.fromkeys(one.slices for one in variants))
    selected = {one: volume if one is None else one({"image": volume})["image"] for one in selections}
    pruners = list(dict.fromkeys(one.pruner for one in variants))
    shared: dict[TokenPruner | None, EncodedStudy] = {}
    # a pruner of whole volumes must not see slices that only another variant's filter keeps
    together = [one for one in pruners if one is None or not one.whole_volume or len(selections) == 1]
    if encoder.token_budget is None and encoder.budget is None and together:
        shared = dict(
            zip(together, encoder.encode_each(_union(volume, list(selected.values())), together), strict=True)
        )
    studies = []
    for selection, part in selected.items():
        own = [variant for variant in variants if variant.slices is selection]
        apart = list(dict.fromkeys(variant.pruner for variant in own if variant.pruner not in shared))
        encoded = {**shared, **(dict(zip(apart, encoder.encode_each(part, apart), strict=True)) if apart else {})}
        # under a budget a study has its own slices and its own record
        limited = encoder.budget is not None
        studies += [
            (variant, encoded[variant.pruner] if limited else _part(encoded[variant.pruner], part)) for variant in own
        ]
    return studies


def _union(volume: MetaTensor, parts: Sequence[MetaTensor]) -> MetaTensor:
    """Return the slices that occur in any of the parts."""
    own = _indices(volume)
    union = sorted({index for part in parts for index in _indices(part)})
    return SliceSelection().select(volume, [own.index(index) for index in union])  # type: ignore[return-value]


def _part(study: EncodedStudy, volume: MetaTensor) -> EncodedStudy:
    """Return the part of a study for a selection of its slices, with the record of that selection."""
    part = study.of_slices(_indices(volume))
    before, meta = part.record, volume.meta
    settings = {**before.settings, "preprocessing": list(meta.get("preprocessing", ()))}
    seconds = {**before.seconds, **dict(meta.get("seconds", ()))}
    notes = [note for note in before.notes if note not in meta.get("notes", ())]
    return replace(part, record=study_record(volume, before.volume_id, before.slices, settings, seconds, notes))


def _indices(volume: MetaTensor) -> list[int]:
    return [int(index) for index in volume.meta.get("kept_indices", range(volume.shape[-1]))]
