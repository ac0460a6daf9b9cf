# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Several configurations of pruning on one run of the encoder."""

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
    """One configuration of pruning.

    Args:
        name: of its folder below the output folder; "" for the output folder itself.
        slices: transform of dictionaries that selects slices of "image"; variants that share the object share its work.
            None keeps the slices that the preprocessing left.
        pruner: of tokens; None keeps all.
        settings: what tells it from other variants, as JSON holds it.
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
    """Every combination of γ, τ and temperature, in folders named ``gamma=…_tau=…_temperature=…``.

    Args:
        preprocessing: its last stage filters slices; the stages before it are the data set's.
        pruner: whose ``tau`` and ``temperature`` are varied.
        gammas: thresholds of the slice filter; None keeps every slice.
        taus: shares of attention.
        temperatures: of the scores.

    Raises:
        SettingsError: a list is empty or holds a value twice, or the pruner has no ``tau`` or ``temperature``.
    """
    for name, values in (("gammas", gammas), ("taus", taus), ("temperatures", temperatures)):
        if not values or len(set(values)) < len(values):
            raise SettingsError(f"{name} must be a list of different values, got {values!r}")
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
    """Encode a volume for several variants, each slice once where that is possible.

    The slices that any variant keeps are encoded once and pruned by every pruner. Where a token budget makes the size
    of a slice depend on how many are kept, where a budget limits the tokens of all slices, and for pruners of whole
    volumes, each selection of slices is encoded by itself. The encoder's seconds in a record are those of the run that
    its study shares.

    Args:
        network: whose encoder is used, not its pruner.
        volume: ``(C, H, W, D)``.
        variants: to encode for.
    """
    encoder: Any = network.encoder
    selections = list(dict.fromkeys(one.slices for one in variants))
    selected = {one: volume if one is None else one({"image": volume})["image"] for one in selections}
    pruners = list(dict.fromkeys(one.pruner for one in variants))
    shared: dict[TokenPruner | None, EncodedStudy] = {}
    # a pruner of whole volumes must not see slices that another variant's filter keeps
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
    """The slices that any of the parts holds."""
    own = _indices(volume)
    union = sorted({index for part in parts for index in _indices(part)})
    return SliceSelection().select(volume, [own.index(index) for index in union])  # type: ignore[return-value]


def _part(study: EncodedStudy, volume: MetaTensor) -> EncodedStudy:
    """The slices of a selection, out of a study that holds more of them, with the selection's own record."""
    part = study.of_slices(_indices(volume))
    before, meta = part.record, volume.meta
    settings = {**before.settings, "preprocessing": list(meta.get("preprocessing", ()))}
    seconds = {**before.seconds, **dict(meta.get("seconds", ()))}
    notes = [note for note in before.notes if note not in meta.get("notes", ())]
    return replace(part, record=study_record(volume, before.volume_id, before.slices, settings, seconds, notes))


def _indices(volume: MetaTensor) -> list[int]:
    return [int(index) for index in volume.meta.get("kept_indices", range(volume.shape[-1]))]
