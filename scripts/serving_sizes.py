# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Print the table of sizes of served models, or check or update a page: ``serving_sizes.py [--check | --write] PAGE``.

Computed from the dimensions in ``monai_medpruner.benchmark.shapes``. No weights are made.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from monai_medpruner.benchmark.shapes import SHAPES, ModelShape, ShapeCheckpoint, reduced
from monai_medpruner.networks.checkpoint import load_config
from monai_medpruner.testing import save_tiny_checkpoint

BEGIN, END = "<!-- sizes -->", "<!-- /sizes -->"
#: bytes of a bfloat16 value
VALUE = 2
SLICES, PIXELS, SHARE = 100, 512, 0.05


@dataclass(frozen=True)
class Sizes:
    """What a model needs in bfloat16.

    Args:
        name: of the model.
        encoder: bytes of the vision encoder and its projector.
        language_model: bytes of the language model.
        row: bytes of a kept token's row, with DeepStack rows.
        cache: bytes of the keys and values of a token in all layers.
        tokens: of a slice before pruning.
    """

    name: str
    encoder: int
    language_model: int
    row: int
    cache: int
    tokens: int


def sizes(shape: ModelShape) -> Sizes:
    """Count parameters and dimensions of a published model."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = load_config(str(save_tiny_checkpoint(shape.model_type, folder)))
    config = ShapeCheckpoint(shape)._config(tiny, reduced(shape, 1), shape.vocabulary)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config)
    language = _bytes([*model.model.language_model.parameters(), *model.lm_head.parameters()])
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    deepstack = len(shape.vision.get("deepstack_visual_indexes", ()))
    return Sizes(
        name=shape.name,
        encoder=_bytes(model.parameters()) - language,
        language_model=language,
        row=text.hidden_size * (1 + deepstack) * VALUE,
        cache=2 * text.num_hidden_layers * text.num_key_value_heads * head * VALUE,
        # two by two patches become a token; Gemma 3 resizes every slice to the same number of tokens
        tokens=shape.config.get("mm_tokens_per_image") or round(PIXELS / (2 * shape.vision["patch_size"])) ** 2,
    )


def _bytes(parameters: Iterable[torch.nn.Parameter]) -> int:
    return VALUE * sum({id(one): one.numel() for one in parameters}.values())


def table() -> str:
    """The table in Markdown."""
    lines = [
        f"| in bfloat16 | encoder, GB | language model, GB | row of a token, kB | its keys and values, kB | {SLICES} "
        f"slices of {PIXELS} × {PIXELS}: tokens | rows, MB | keys and values, GB | at {SHARE:.0%}: tokens | rows, MB | "
        "the same as base64, MB | keys and values, GB |",
        "| --- |" + " ---: |" * 11,
    ]
    for one in map(sizes, SHAPES.values()):
        cells = [f"{one.encoder / 1e9:.2f}", f"{one.language_model / 1e9:.1f}"]
        cells += [f"{one.row / 1e3:.1f}", f"{one.cache / 1e3:.0f}"]
        for share in (1.0, SHARE):
            tokens = round(SLICES * one.tokens * share)
            cells += [f"{tokens:,}", f"{tokens * one.row / 1e6:,.0f}"]
            if share < 1:
                cells.append(f"{tokens * one.row * 4 / 3 / 1e6:,.0f}")
            cells.append(f"{tokens * one.cache / 1e9:.2f}")
        lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print, check or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, nargs="?")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="fail if the page has another table")
    group.add_argument("--write", action="store_true", help="write the table into the page")
    arguments = parser.parse_args()
    if not (arguments.check or arguments.write):
        sys.stdout.write(table() + "\n")
        return 0
    text = arguments.page.read_text(encoding="utf-8")
    new = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table()}\n{END}", text, flags=re.DOTALL)
    if arguments.write:
        arguments.page.write_text(new, encoding="utf-8")
    elif new != text:
        sys.stderr.write(f"{arguments.page} differs: python scripts/serving_sizes.py --write {arguments.page}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
