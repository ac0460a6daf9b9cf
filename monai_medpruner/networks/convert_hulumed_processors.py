# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Convert the tokenizer, chat template and image processor of a Hulu-Med checkpoint to native classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from monai_medpruner.errors import CheckpointError
from monai_medpruner.networks.checkpoint_files import chosen_fields, read_json

__all__ = ["write_processors"]

_COPIED_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
    "LICENSE",
)
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
# these fields make a loader look for remote code
_REMOTE_CODE_FIELDS = ("auto_map", "processor_class")

_IMAGE_FIELDS = ("image_mean", "image_std", "min_tokens", "max_tokens", "patch_size")
_OPTIONAL_IMAGE_FIELDS = ("do_resize", "resample", "do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb")
# Hulu-Med merges 2 x 2 patches in the slices of a volume, and none in single images
_MERGE_SIZE = 2


def write_processors(source: Path, destination: Path, image_token_id: int, patch_size: int) -> None:
    """Write tokenizer, chat template, image processor and generation settings for native classes.

    Args:
        source: folder of the Hulu-Med checkpoint.
        destination: folder to write to.
        image_token_id: id of the placeholder of a visual token.
        patch_size: patch size of the vision encoder, in pixels.

    Raises:
        CheckpointError: a file is missing or does not match the model.
    """
    for name in _COPIED_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, destination / name)
    _write_image_processor(source, destination, patch_size)
    settings = read_json(source / _TOKENIZER_CONFIG)
    template = _chat_template(source, settings)
    kept = {name: value for name, value in settings.items() if name not in (*_REMOTE_CODE_FIELDS, "chat_template")}
    (destination / _TOKENIZER_CONFIG).write_text(json.dumps(kept, indent=2, ensure_ascii=False), encoding="utf-8")
    try:
        tokenizer = AutoTokenizer.from_pretrained(destination)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"the tokenizer in {source} cannot be loaded: {error}") from error
    if image_token_id not in tokenizer.added_tokens_decoder:
        raise CheckpointError(
            f"image_token_index is {image_token_id}, but the tokenizer has no added token with that id"
        )
    token = tokenizer.added_tokens_decoder[image_token_id].content
    # Hulu-Med's processor passes the placeholder to its template; this line sets it instead and outputs nothing
    template = f"{{% set image_token = {token!r} %}}\n{template}"
    _check_template(tokenizer, template, token)
    (destination / _TEMPLATE).write_text(template, encoding="utf-8")


def _write_image_processor(source: Path, destination: Path, patch_size: int) -> None:
    """Write the image processor, with token budgets converted to pixel budgets and the merging of a volume's slices."""
    file = "preprocessor_config.json"
    fields = chosen_fields(read_json(source / file), _IMAGE_FIELDS, _OPTIONAL_IMAGE_FIELDS, file)
    if fields["patch_size"] != patch_size:
        raise CheckpointError(
            f"{file} has patch_size {fields['patch_size']}, expected that of the vision encoder, {patch_size}"
        )
    pixels = (patch_size * _MERGE_SIZE) ** 2
    size = {
        "shortest_edge": fields.pop("min_tokens") * pixels,
        "longest_edge": fields.pop("max_tokens") * pixels,
    }
    VideoLlama3ImageProcessorPil(**fields, size=size, merge_size=_MERGE_SIZE).save_pretrained(destination)


def _chat_template(source: Path, tokenizer_settings: dict[str, Any]) -> str:
    """Return the chat template from the file that the checkpoint's processor would use."""
    if (source / _TEMPLATE).exists():
        return (source / _TEMPLATE).read_text(encoding="utf-8")
    processor_template = source / "chat_template.json"
    fields = read_json(processor_template) if processor_template.exists() else tokenizer_settings
    template = fields.get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError(
            f"{source} has no chat template, expected one in {_TEMPLATE}, chat_template.json or {_TOKENIZER_CONFIG}"
        )
    return template


def _check_template(tokenizer: Any, template: str, token: str) -> None:
    """Check that the template writes one placeholder for a single image and for each slice of a volume."""
    for part, images in (({"type": "image"}, 1), ({"type": "video", "num_frames": 3}, 3)):
        message = {"role": "user", "content": [part, {"type": "text", "text": "?"}]}
        try:
            text = tokenizer.apply_chat_template(
                [message], chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise CheckpointError(f"the chat template cannot be read: {error}") from error
        if text.count(token) != images:
            raise CheckpointError(
                f"the chat template writes {text.count(token)} placeholders for {images} {part['type']} parts, "
                "expected one each"
            )
