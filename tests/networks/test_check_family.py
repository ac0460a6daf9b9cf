# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""check_family: all families of this package pass, and wrong families fail."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from stock_oracle import MASKS, PATCHES, POSITIONS, consecutive_patches
from toy_family import ToyFamily
from toy_model import TINY_TOY
from transformers import AutoModelForImageTextToText

from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.networks.families import FAMILIES, family_class
from monai_medpruner.testing import check_family, randomize_weights, save_tiny_checkpoint
from monai_medpruner.testing.masking_oracle import original_positions


def tiny(model_type, folder, implementation="sdpa"):
    """A tiny model with weights large enough that every part affects the output, with its processors."""
    save_tiny_checkpoint(model_type, folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=implementation)
    randomize_weights(model)
    return model, *load_processors(str(folder))


def test_every_family(checkpoint, model):
    """With the positions, masks and patches of stock_oracle.py."""
    model_type = model.config.model_type
    check_family(
        family_class(model_type),
        model,
        *load_processors(str(checkpoint)),
        positions=POSITIONS[model_type],
        mask=MASKS.get(model_type),
        patches=PATCHES.get(model_type),
    )


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen2_5_vl", "internvl", "video_llama_3"])
def test_with_the_positions_of_the_family(model_type, tmp_path):
    check_family(family_class(model_type), *tiny(model_type, tmp_path))


def test_family_in_one_file(tmp_path):
    """A family outside the package, which is registered only during the check."""
    check_family(ToyFamily, *tiny(TINY_TOY, tmp_path))
    assert ToyFamily not in FAMILIES


def test_commands_of_the_guide(repository, tmp_path):
    """The check in the guide runs on the tiny model of the toy family."""
    _, tiny_toy, check = re.findall(r"```python\n(.*?)```", (repository / "docs/new_family.md").read_text(), re.DOTALL)
    assert tiny_toy in (repository / "tests/networks/toy_model.py").read_text()
    exec(compile(check, "new_family.md", "exec"), {"TINY_TOY": TINY_TOY, "ToyFamily": ToyFamily, "folder": tmp_path})


class OtherPatches(ToyFamily):
    def group_patches(self, patches, grid):
        return super().group_patches(patches.roll(1, -1), grid)


class OtherBlock(ToyFamily):
    @property
    def attention_blocks(self):
        return list(self.model.blocks)[::-1]

    def queries_and_keys(self, attention, args, kwargs):
        return super().queries_and_keys(self.model.blocks[-1], args, kwargs)


class OtherOrder(ToyFamily):
    def encode(self, images):
        encoded = super().encode(images)
        encoded.tokens = [one.flip(0) for one in encoded.tokens]
        encoded.encoder_tokens = [one.flip(0) for one in encoded.encoder_tokens]
        return encoded


class OtherProjection(ToyFamily):
    def project(self, encoder_tokens):
        return super().project(encoder_tokens) * 1.01

    def encode(self, images):
        encoded = super().encode(images)
        encoded.tokens = [one / 1.01 for one in encoded.tokens]
        return encoded


class OtherPositions(ToyFamily):
    preserves_position_ids = True


class LeavesAHook(ToyFamily):
    def encode(self, images):
        self.model.projector.register_forward_hook(lambda *_: None)
        return super().encode(images)


class ChangesWeights(ToyFamily):
    def encode(self, images):
        with torch.no_grad():
            self.model.lm_head.weight.mul_(1)
        return super().encode(images)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (OtherPatches, "importance of slice 0 and attention of the eager layer"),
        (OtherBlock, "importance of slice 0"),
        (OtherOrder, "logits of the prompt pruned by NucleusPruner and of the masked stock model must be equal"),
        (OtherProjection, "projection of slice 0"),
        (LeavesAHook, "the model must be left as it was, but its hooks changed"),
        (ChangesWeights, "its weights changed"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_wrong_family_is_found(family, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        check_family(family, *tiny(TINY_TOY, tmp_path), patches=consecutive_patches)
    assert family not in FAMILIES


def test_positions_that_are_not_the_models(tmp_path):
    """The positions of the family are used unless the caller passes those of the model."""
    arguments = tiny(TINY_TOY, tmp_path)
    check_family(OtherPositions, *arguments, positions=original_positions)
    with pytest.raises(AssertionError, match="logits of the prompt"):
        check_family(ToyFamily, *arguments, positions=original_positions)


def test_model_that_hardly_depends_on_its_images_is_refused(tmp_path):
    model, *processors = tiny(TINY_TOY, tmp_path)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-5)
    with pytest.raises(AssertionError, match="randomize_weights"):
        check_family(ToyFamily, model, *processors)


def test_needs_no_pytest():
    code = "import sys, monai_medpruner.testing; print('pytest' in sys.modules or '_pytest' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "False"), run.stderr
