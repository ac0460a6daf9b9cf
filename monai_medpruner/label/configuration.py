# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The bundle that a server runs, as configured on its command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_medpruner.bundles import bundle_for_checkpoint
from monai_medpruner.errors import SettingsError
from monai_medpruner.settings import EVALUATION, bundle_config, bundle_folders, setting_overrides, settings
from monai_medpruner.testing import TINY

__all__ = ["Configuration", "configuration"]

#: bundles by the name that ``--conf model`` takes
_BUNDLES = {
    "phantom": "medpruner_phantom",
    "medgemma": "medpruner_medgemma",
    "qwen3vl": "medpruner_qwen3vl",
    "hulumed": "medpruner_hulumed",
    # random weights, for tests and demonstrations
    TINY: "medpruner_qwen3vl",
}
# inputs, outputs and evaluation do not apply to a server; --conf model replaces model_id and model_type
_WITHOUT = ("input", "output", EVALUATION)
_NAMED_MODEL = {"model_id", "model_type"}
_SETTINGS = {name for name, one in settings().items() if one.group not in _WITHOUT} - _NAMED_MODEL
_KNOWN = sorted({*_SETTINGS, "model", "family", "cache_mb"})
# set by MONAI Label itself
_SERVER = {"server_mode"}
_CACHE_MB = 1024


@dataclass(frozen=True)
class Configuration:
    """What a server runs.

    Args:
        bundle: folder of the bundle.
        overrides: values that replace those of the bundle's configuration.
        cache_bytes: size of the cache of encoded studies. The default, 1 GiB, holds about five whole CTs of an 8B model
            at the bundle's settings.
    """

    bundle: Path
    overrides: dict[str, Any]
    cache_bytes: int = _CACHE_MB * 2**20


def configuration(conf: Mapping[str, str]) -> Configuration:
    """Read ``--conf NAME VALUE`` of the server's command line.

    Args:
        conf: "model" is "phantom", "medgemma", "qwen3vl", "hulumed", a checkpoint folder, or "tiny" (random weights);
            "family" selects one of the phantom bundle's models; "cache_mb" is the size of the cache. The settings of
            ``medpruner ask`` are also accepted, including fields of the pruner (``token_pruner::FIELD``).

    Raises:
        SettingsError: a name or value is unknown, or a bundle or checkpoint does not exist.
        MedPrunerError: the checkpoint is invalid.
    """
    if unknown := sorted(name for name in set(conf) - set(_KNOWN) - _SERVER if not name.startswith("token_pruner::")):
        raise SettingsError(f"--conf {unknown[0]} is not known; there are: {', '.join(_KNOWN)}")
    model = conf.get("model")
    if not model:
        raise SettingsError(f"add --conf model, one of {', '.join(_BUNDLES)}, or a checkpoint folder")
    given = {name: text for name, text in conf.items() if name in _SETTINGS or name.startswith("token_pruner::")}
    if model in _BUNDLES:
        folder = _bundle(model)
        if model == TINY:
            given["model"] = TINY
    elif Path(model).expanduser().is_dir():
        given["model"] = str(Path(model).expanduser().resolve())
        folder = bundle_for_checkpoint(given["model"])
    else:
        raise SettingsError(f"--conf model must be one of {', '.join(_BUNDLES)}, or a checkpoint folder, got {model!r}")
    overrides = setting_overrides(folder, given)
    if "family" in conf:
        overrides["family"] = _family(folder, conf["family"])
    return Configuration(folder, overrides, _cache_bytes(conf))


def _bundle(model: str) -> Path:
    found = bundle_folders()
    if _BUNDLES[model] not in found:
        raise SettingsError(
            f"--conf model {model} needs the bundle {_BUNDLES[model]}, which is not installed; there are: "
            f"{', '.join(sorted(found))}"
        )
    return found[_BUNDLES[model]]


def _family(folder: Path, family: str) -> str:
    if "family" not in bundle_config(folder):
        raise SettingsError(f"--conf family is a setting of the phantom bundle; {folder.name} has one model")
    if not family.replace("_", "").isalnum():
        raise SettingsError("--conf family must be the name of a model family, such as qwen3_vl")
    return family


def _cache_bytes(conf: Mapping[str, str]) -> int:
    text = conf.get("cache_mb", str(_CACHE_MB))
    if not text.isdecimal():
        raise SettingsError(f"--conf cache_mb must be a whole number, got {text!r}")
    return int(text) * 2**20
