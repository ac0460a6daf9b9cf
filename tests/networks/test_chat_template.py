# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The chat template is found wherever a checkpoint keeps it."""

from __future__ import annotations

import json

import pytest
import torch
from monai.data import MetaTensor

from monai_medpruner.engines import VolumeQA
from monai_medpruner.errors import CheckpointError, PromptError
from monai_medpruner.networks.checkpoint import load_processors
from monai_medpruner.testing import save_tiny_checkpoint

#: a language model's own template, which writes no image
TEXT_ALONE = "{% for m in messages %}{% for p in m.content %}{{ p.text or '' }}{% endfor %}{% endfor %}"
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]}]


@pytest.fixture
def folder(tmp_path):
    """A tiny checkpoint whose template is in no file, and the template."""
    save_tiny_checkpoint("qwen3_vl", tmp_path)
    template = (tmp_path / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "chat_template.jinja").unlink()
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    return tmp_path, template


def extend(file, **fields):
    stated = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**stated, **fields}), encoding="utf-8")


#: where processors and tokenizers of different versions of transformers wrote it
PLACES = {
    "chat_template.jinja": lambda f, t: (f / "chat_template.jinja").write_text(t, encoding="utf-8"),
    "chat_template.json": lambda f, t: extend(f / "chat_template.json", chat_template=t),
    "several in chat_template.json": lambda f, t: extend(
        f / "chat_template.json",
        chat_template=[{"name": "tool_use", "template": "x"}, {"name": "default", "template": t}],
    ),
    "processor_config.json": lambda f, t: extend(f / "processor_config.json", chat_template=t),
    "tokenizer_config.json": lambda f, t: extend(f / "tokenizer_config.json", chat_template=t),
    "several in tokenizer_config.json": lambda f, t: extend(
        f / "tokenizer_config.json",
        chat_template=[{"name": "default", "template": t}, {"name": "rag", "template": "x"}],
    ),
    "beside the language model's own": lambda f, t: (
        extend(f / "chat_template.json", chat_template=t),
        extend(f / "tokenizer_config.json", chat_template=TEXT_ALONE),
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_template_is_found(folder, place):
    path, template = folder
    PLACES[place](path, template)
    _, tokenizer = load_processors(str(path))
    written = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    expected = tokenizer.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert written == expected
    assert "Is it?" in written


def asked(path):
    network = VolumeQA.from_pretrained(str(path), max_new_tokens=4, device="cpu")
    volume = MetaTensor(torch.rand(1, 64, 64, 2, generator=torch.Generator().manual_seed(0)))
    return network(volume[None], [["Is it?"]])[0].texts


def test_answer_with_a_legacy_template(folder):
    path, template = folder
    with pytest.raises(PromptError, match=r"no chat template.*add the model's chat_template.jinja"):
        asked(path)
    PLACES["tokenizer_config.json"](path, TEXT_ALONE)
    with pytest.raises(PromptError, match="the language model alone, which knows no images"):
        asked(path)
    PLACES["chat_template.json"](path, template)
    legacy = asked(path)
    (path / "chat_template.json").unlink()
    PLACES["chat_template.jinja"](path, template)
    assert asked(path) == legacy


def test_damaged_template_file(folder):
    path, _ = folder
    (path / "chat_template.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"chat_template\.json is not JSON"):
        load_processors(str(path))
