# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""A grid of settings on a benchmark, as one command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_medpruner.ask import plain_text
from monai_medpruner.ask_arguments import bundles
from monai_medpruner.errors import SettingsError
from monai_medpruner.report.sweep_report import sweep_table

__all__ = ["sweep"]

_CONFIGS = ("inference", "evaluate", "sweep")
_GRID = {"gamma": "gammas", "tau": "taus", "temperature": "temperatures"}


def sweep(arguments: argparse.Namespace) -> None:
    """Run a bundle's ``sweep.json`` and write the table to standard output.

    Raises:
        MedPrunerError: whatever is wrong with the settings, the data or the model.
    """
    folder = bundles()[arguments.bundle]
    workflow = ConfigWorkflow(
        config_file=[str(folder / "configs" / f"{name}.json") for name in _CONFIGS],
        meta_file=str(folder / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(folder),
        **_settings(arguments),
    )
    workflow.initialize()
    evaluator = workflow.evaluator
    evaluator.run()
    sys.stdout.write(_text_table(sweep_table(evaluator.rows)))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as values of the bundle's configuration."""
    settings: dict[str, Any] = {}
    for name in ("benchmark", "dataset_dir", "output_dir"):
        settings[name] = plain_text(name, getattr(arguments, name))
    if arguments.model is not None:
        # the bundle pins the revision of its own model
        settings |= {"model_id": plain_text("model", arguments.model), "revision": None}
    for name, setting in _GRID.items():
        if (texts := getattr(arguments, name)) is not None:
            settings[setting] = [_number(name, text) for text in texts]
    for pair in arguments.set:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise SettingsError(f"--set takes NAME=VALUE, got {pair!r}")
        settings[name] = _value(plain_text(name, text))
    return settings


def _number(name: str, text: str) -> float | None:
    if name == "gamma" and text == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise SettingsError(f"--{name} takes numbers, got {text!r}") from error


def _value(text: str) -> Any:
    """A number, truth value or null as JSON writes it; any other text as it stands."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (dict, list)) else value


def _text_table(lines: Sequence[dict[str, Any]]) -> str:
    """The settings, what is kept, and every measure with its interval, in columns."""
    measures = [name for name in lines[0] if f"{name}_low" in lines[0] and any(one[name] is not None for one in lines)]
    # the other answer rules are in the file
    measures = [name for name in measures if not name.startswith(("accuracy_", "unparsed"))]
    shares = ("slices", "tokens_per_kept_slice", "overall")
    rows = [[*_GRID, *shares, *measures]]
    for line in lines:
        cells = ["none" if line[name] is None else f"{line[name]:g}" for name in _GRID]
        cells += ["" if line[name] is None else f"{line[name]:.3f}" for name in shares]
        for name in measures:
            low, high = line[f"{name}_low"], line[f"{name}_high"]
            cells.append("" if line[name] is None else f"{line[name]:.1f} [{low:.1f}, {high:.1f}]")
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
