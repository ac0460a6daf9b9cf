# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Options of commands for the settings of the bundles."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence

from monai_medpruner.errors import SettingsError
from monai_medpruner.settings import DEFAULT_BUNDLE, Setting, bundle_folders, pruner_fields, settings

__all__ = ["add_model_options", "add_setting_options", "given_settings", "longest_question"]

#: settings that --model and --bundle replace
_MODEL = ("model_id", "model_type")
#: images and questions never enter a configuration
_ASKED = ("image", "question", "questions_file")
_METAVARS = {"number": "NUMBER", "integer": "COUNT", "boolean": "BOOLEAN"}


def add_model_options(parser: argparse.ArgumentParser, default_bundle: str | None = None) -> None:
    """Declare ``--model`` and ``--bundle``.

    Args:
        parser: parser of the command.
        default_bundle: default of ``--bundle``; None chooses the bundle by the model.
    """
    parser.add_argument(
        "--model", help="Hub id, checkpoint folder, or tiny for random weights. Default: that of the bundle"
    )
    parser.add_argument(
        "--bundle",
        choices=sorted(bundle_folders()),
        default=default_bundle,
        help=f"bundle whose settings to use. Default: {default_bundle or 'the one for the model'}",
    )


def add_setting_options(parser: argparse.ArgumentParser, groups: Sequence[str], without: Sequence[str] = ()) -> None:
    """Declare an option for each setting of some groups, and the fields of pruners.

    Args:
        parser: parser of the command.
        groups: groups of settings.
        without: settings for which the command has its own options.
    """
    defaults = f"defaults are those of {DEFAULT_BUNDLE}; other bundles may differ"
    for group in groups:
        section = parser.add_argument_group(group, defaults if group == groups[0] else None)
        for one in settings().values():
            if one.group == group and one.name not in (*_MODEL, *without):
                metavar = _METAVARS.get(one.type, "TEXT")
                section.add_argument(f"--{one.name}", metavar=metavar, help=_help(one).replace("%", "%%"))
    fields = "; ".join(f"{name}: {', '.join(names)}" for name, names in pruner_fields().items())
    parser.add_argument_group(
        "fields of a pruner",
        f"--token_pruner::FIELD VALUE sets a field of the chosen pruner. {fields}. Pruners of other packages have "
        "their own fields. --family, with the bundle medpruner_phantom alone, chooses its model: qwen3_vl, gemma3 or "
        "video_llama_3",
    )
    parser.set_defaults(further=[])


def given_settings(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the settings that were given, with their texts, including options that the parser does not know.

    Raises:
        SettingsError: an option has no value, or a value has no option.
    """
    known = {"model", *settings()} - set(_ASKED)
    yield from ((name, text) for name, text in vars(arguments).items() if name in known and isinstance(text, str))
    yield from _pairs(iter(arguments.further))


def longest_question(given: Mapping[str, str]) -> int:
    """Return the characters that a question may have: as given, else the default.

    Raises:
        SettingsError: the value is not a whole number.
    """
    setting = settings()["limit_question"]
    return setting.read(given[setting.name]) if setting.name in given else setting.default


def _pairs(words: Iterator[str]) -> Iterable[tuple[str, str]]:
    for word in words:
        if not word.startswith("--"):
            raise SettingsError(f"{word!r} does not belong to an option; write --NAME VALUE")
        name, equals, text = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise SettingsError(f"--{name} needs a value")
            text = following
        yield name, text


def _help(one: Setting) -> str:
    shown = one.default
    if shown in (None, "") or (isinstance(shown, str) and shown.startswith("$")):
        return one.help
    return f"{one.help}. Default: {str(shown).lower() if isinstance(shown, bool) else shown}"
