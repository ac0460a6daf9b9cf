# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What is measured: named settings of a bundle, and the pipeline that they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from monai_medpruner.benchmark.models import BenchmarkModel
from monai_medpruner.bundles import BundleWorkflow
from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import SettingsError
from monai_medpruner.networks import TransformersEncoder
from monai_medpruner.results import StageTimes
from monai_medpruner.settings import preset, setting_overrides
from monai_medpruner.transforms.slice_rules import select_slice_rule, slice_rule_settings

__all__ = ["UNPRUNED", "Configuration", "MeasuredEncoder", "Pipeline", "configuration_of_text", "product_of"]

#: no pruning: every slice that the bundle takes, every token
UNPRUNED_SETTINGS: dict[str, Any] = {"gamma": None, "pruner": "none"}


@dataclass(frozen=True)
class Configuration:
    """Named settings.

    Args:
        name: in tables.
        settings: of the bundle, as :func:`~monai_medpruner.settings.setting_overrides` returns them; ``preset`` stands
            for the values of its file, which the others override.
        rule: name and fields of a slice rule that chooses the slices in place of γ and the budget; None for none.
        rule_slices: slices that the rule keeps at most; None takes the rule as it is.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    rule: Mapping[str, Any] | None = None
    rule_slices: int | None = None

    def overrides(self, bundle: Path) -> dict[str, Any]:
        """Return the overrides of a bundle's configuration: id -> value."""
        given = dict(self.settings)
        overrides = {**preset(bundle, given.pop("preset")), **given} if "preset" in given else given
        if self.rule is not None:
            overrides |= {
                "preprocessing::transforms::1::transforms::0": {
                    "_target_": "monai_medpruner.transforms.SelectSlicesd",
                    "keys": "image",
                    "rule": dict(self.rule),
                    "max_slices": self.rule_slices,
                },
                # the rule's slices are not thinned out again
                "budget::share_slices": False,
            }
        return overrides

    def described(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        rule = None if self.rule is None else {**self.rule, "max_slices": self.rule_slices}
        return {"name": self.name, "settings": dict(self.settings), "slice_rule": rule}


#: the configuration to which ratios refer
UNPRUNED = Configuration("unpruned", UNPRUNED_SETTINGS)


def configuration_of_text(text: str, bundle: Path) -> Configuration:
    """Read a configuration from ``NAME: setting=value setting=value``.

    Args:
        text: settings are those of ``medpruner ask`` without the dashes; also ``rule``, a slice rule, and
            ``rule_slices``, the slices that it keeps at most.
        bundle: folder of the bundle.

    Raises:
        SettingsError: the text has another form, or a setting or value is unknown.
    """
    name, colon, rest = text.partition(": ")
    pairs = [word.partition("=") for word in rest.split()]
    if not colon or not all(equals for _, equals, _ in pairs):
        raise SettingsError(f"a configuration must have the form 'NAME: setting=value ...', got {text!r}")
    given = {key: value for key, _, value in pairs}
    rule, count = given.pop("rule", None), given.pop("rule_slices", None)
    if count is not None and not count.isdecimal():
        raise SettingsError(f"rule_slices must be a whole number, got {count!r}")
    described = None if rule is None else slice_rule_settings(select_slice_rule(rule))
    return Configuration(name, setting_overrides(bundle, given), described, None if count is None else int(count))


def product_of(
    pruners: Sequence[str] = (),
    budgets: Sequence[float] = (),
    slice_counts: Sequence[int] = (),
    slice_rules: Sequence[str] = (),
) -> Iterator[Configuration]:
    """Yield every combination of pruners, budgets, numbers of slices and slice rules; of an empty list the default.

    Args:
        pruners: names.
        budgets: shares of the volume's tokens, in ``(0, 1]``.
        slice_counts: slices that are kept at most.
        slice_rules: names.
    """
    lists: list[Sequence[Any]] = [pruners, budgets, slice_counts, slice_rules]
    for pruner, budget, count, rule in product(*(one or [None] for one in lists)):
        settings: dict[str, Any] = {} if pruner is None else {"pruner": pruner}
        words = [] if pruner is None else [pruner]
        if budget is not None:
            settings["retention"] = budget
            words.append(f"{100 * budget:g} % of the tokens")
        if rule is not None:
            words.append(rule)
        elif count is not None:
            settings |= {"max_slices": count, "gamma": None}
        if count is not None:
            words.append(f"{count} slices")
        described = None if rule is None else slice_rule_settings(select_slice_rule(rule))
        if words:
            yield Configuration(", ".join(words), settings, described, None if rule is None else count)


class MeasuredEncoder(TransformersEncoder):
    """The encoder with the time of the image processor beside that of the encoder.

    Args:
        arguments: of :class:`~monai_medpruner.networks.TransformersEncoder`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        #: seconds of "preprocess" since it was cleared
        self.spent = StageTimes()

    def image_inputs(self, volume: torch.Tensor) -> dict[str, Any]:
        """See :meth:`TransformersEncoder.image_inputs`."""
        with self.spent.stage("preprocess", self.checkpoint.model.device):
            return super().image_inputs(volume)


class Pipeline:
    """The transforms and the network of a configuration, as the bundle makes them.

    Args:
        model: whose checkpoint is used.
        configuration: the settings.
        max_new_tokens: length of the answers.
        further: further overrides of the bundle's configuration.

    Raises:
        SettingsError: a setting is unknown or has an invalid value.
    """

    def __init__(
        self,
        model: BenchmarkModel,
        configuration: Configuration,
        max_new_tokens: int = 1,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        overrides = {
            "encoder::_target_": f"{MeasuredEncoder.__module__}.{MeasuredEncoder.__qualname__}",
            "max_new_tokens": max_new_tokens,
            **configuration.overrides(model.bundle),
            **(further or {}),
        }
        workflow = BundleWorkflow(model.bundle, overrides, {"checkpoint": model.checkpoint})
        workflow.initialize()
        parser = workflow.parser
        parts = parser.get()
        # a bundle with a study cache looks there before it loads
        dataset = parser.get_parsed_content("cached_dataset" if "cached_dataset" in parts else "dataset")
        self.configuration = configuration
        self.transform = dataset.transform
        self.encoder: MeasuredEncoder = parser.get_parsed_content("encoder")
        self.network: VolumeQA = parser.get_parsed_content("network_def")

    def load(self, image: str | Path) -> torch.Tensor:
        """Return the kept slices of an image, ``(C, H, W, K)``."""
        return self.transform({"image": str(image)})["image"]
