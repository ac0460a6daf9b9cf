# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Load stock checkpoints from local folders or the Hugging Face Hub."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from monai_medpruner.errors import CheckpointError, ModelMemoryError, SettingsError
from monai_medpruner.memory import free_memory
from monai_medpruner.networks.checkpoint_files import checkpoint_digest, pickled_weights, read_json
from monai_medpruner.networks.checkpoint_hashes import check_hashes
from monai_medpruner.networks.families import ModelFamily, family_class, family_of
from monai_medpruner.networks.hub_access import is_path, snapshot_folder, works_offline

__all__ = ["Checkpoint", "default_device", "default_dtype", "load_config", "load_model", "load_processors"]

_CONVERSION = (
    "hf download ZJU-AI4H/Hulu-Med-7B --local-dir SOURCE; python -m monai_medpruner convert_hulumed SOURCE DESTINATION"
)
# share of the free memory that must remain for activations and the key-value cache
_MEMORY_MARGIN = 0.1
#: files that hold the chat template of a processor, the first one that is there counts
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "processor_config.json")
#: key in a checkpoint's configuration that marks random weights
RANDOM_WEIGHTS = "medpruner_random_weights"


class Checkpoint(nn.Module):
    """A checkpoint that is loaded on first use. The encoder and the engine of one process share it.

    Args:
        path_or_id: a local checkpoint folder or a Hub id.
        revision: commit of a Hub checkpoint; None takes the newest. After loading, :attr:`revision` is its commit.
        device: None takes the first GPU, or the CPU if there is none.
        dtype: data type of the weights, or its name; None takes bfloat16 on a GPU and float32 on a CPU.
        attn_implementation: None takes the default of transformers.
        parts: "all"; or "vision", the vision encoder and the projector without the layers of the language model, for an
            engine in another process.
        name: name of the checkpoint in results; None takes ``path_or_id``.

    Raises:
        SettingsError: ``parts`` has another value.
    """

    def __init__(
        self,
        path_or_id: str,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        parts: Literal["all", "vision"] = "all",
        name: str | None = None,
    ) -> None:
        super().__init__()
        if parts not in ("all", "vision"):
            raise SettingsError(f"parts must be 'all' or 'vision', got {parts!r}")
        self.path_or_id = str(path_or_id)
        self.revision = None if Path(self.path_or_id).is_dir() else revision
        self.parts = parts
        self.name = name or self.path_or_id
        self._loading: dict[str, Any] = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
        self._model: PreTrainedModel | None = None
        self._processors: tuple[Any, Any] = (None, None)
        self._digest: str | None = None
        self._lock = threading.Lock()

    @property
    def model(self) -> Any:
        """The stock model, loaded on first use.

        Raises:
            MedPrunerError: see :func:`load_model`.
        """
        with self._lock:
            if self._model is None:
                with self._folder() as place:
                    # all parts are of one commit, also where a branch was asked for, which moves
                    self.revision = _commit(place, self.revision) or self.revision
                    self._processors = load_processors(place, revision=self.revision)
                    self._digest = checkpoint_digest(place)
                    self._model = load_model(place, revision=self.revision, parts=self.parts, **self._loading)
        return self._model

    @contextmanager
    def _folder(self) -> Iterator[str]:
        """Yield the location of the checkpoint. Subclasses may create it first."""
        yield self.path_or_id

    @property
    def family(self) -> ModelFamily:
        """The family of the model."""
        return family_of(self.model)

    @property
    def image_processor(self) -> Any:
        """The checkpoint's image processor, loaded with the model."""
        return self.model and self._processors[0]

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer, loaded with the model."""
        return self.model and self._processors[1]

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def describe(self) -> dict[str, Any]:
        """Return the model, its device and its loading settings as JSON values."""
        model = self.model
        return {
            "model_id": self.name,
            "revision": self.revision,
            "digest": self._digest,
            "model_type": model.config.model_type,
            "random_weights": bool(getattr(model.config, RANDOM_WEIGHTS, False)),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "image_processor": type(self._processors[0]).__name__,
        }


def default_device() -> torch.device:
    """Return the first GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 for a GPU, as checkpoints are stored, and float32 for a CPU, where bfloat16 is slower."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def load_model(
    path_or_id: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
    device: torch.device | str | None = None,
    parts: Literal["all", "vision"] = "all",
) -> PreTrainedModel:
    """Load a supported vision-language model from safetensors, in evaluation mode. No code of a checkpoint is run.

    The weights are hashed where their hashes are known; see :mod:`~monai_medpruner.networks.checkpoint_hashes`.

    Args:
        path_or_id: a local checkpoint folder or a Hub id.
        revision: commit of a Hub checkpoint; pin it for reproducible results.
        dtype: data type of the weights, or its name ("bfloat16"); None takes :func:`default_dtype`.
        attn_implementation: "sdpa", "eager", "flash_attention_2", etc.; None takes the default of transformers.
        device: None takes :func:`default_device`.
        parts: "vision" leaves out the layers of the language model and reduces its embeddings to one row. The
            configuration remains that of the checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, gated, unreachable, incomplete or damaged, or its weights are
            pickled.
        UnsupportedModelError: no family supports the model.
        ModelMemoryError: its weights do not fit into the device's free memory.
    """
    target = default_device() if device is None else torch.device(device)
    kind = default_dtype(target) if dtype is None else getattr(torch, dtype) if isinstance(dtype, str) else dtype
    config = load_config(path_or_id, revision=revision)
    family_class(config.model_type)
    built = _vision_config(config) if parts == "vision" else config
    _check_memory(path_or_id, built, kind, target)
    if Path(path_or_id).is_dir():
        check_hashes(Path(path_or_id))
    with _explained(path_or_id), _without_report(parts == "vision"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path_or_id,
            revision=revision,
            config=built,
            dtype=kind,
            attn_implementation=attn_implementation,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=parts == "vision",
            **_access(path_or_id, revision),
        )
    model, report = loaded
    if not Path(path_or_id).is_dir() and (folder := snapshot_folder(path_or_id, revision)) is not None:
        check_hashes(folder)  # of files that were downloaded just now
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"the checkpoint {path_or_id} lacks {len(missing)} weights of its model, such as {missing[0]}; "
            "download it again"
        )
    if parts == "vision":
        attention = model.config._attn_implementation
        model.config = config
        config._attn_implementation = attention
    return model.to(target).eval()


def _vision_config(config: Any) -> Any:
    """Return the configuration without the layers and the vocabulary of the language model."""
    smaller = copy.deepcopy(config)
    text = smaller.get_text_config()
    text.num_hidden_layers, text.vocab_size = 0, 1
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = []
    text.pad_token_id = None
    return smaller


def load_config(path_or_id: str, *, revision: str | None = None) -> Any:
    """Load a checkpoint's configuration.

    Raises:
        CheckpointError: the configuration is missing, gated, unreachable or incomplete.
    """
    with _explained(path_or_id):
        return AutoConfig.from_pretrained(path_or_id, revision=revision, **_access(path_or_id, revision))


def _commit(path_or_id: str, revision: str | None) -> str | None:
    """Return the commit of a Hub checkpoint, whose configuration is downloaded for it; None for a folder."""
    if Path(path_or_id).is_dir():
        return None
    load_config(path_or_id, revision=revision)
    folder = snapshot_folder(path_or_id, revision)
    return revision if folder is None else folder.name


def load_processors(path_or_id: str, *, revision: str | None = None) -> tuple[Any, Any]:
    """Load a checkpoint's image processor and tokenizer, with the chat template of the checkpoint's processor.

    The template is that of ``chat_template.jinja``; else of ``chat_template.json`` or ``processor_config.json``, where
    processors of earlier versions of transformers kept it; else of ``tokenizer_config.json``. The last one alone may be
    the language model's own, which knows no images.

    The combined processor is not needed, and several families need torchvision to build it. Without torchvision, the
    image processor for PIL images is loaded.

    Returns:
        The image processor and the tokenizer.

    Raises:
        CheckpointError: one of them is missing, gated or unreachable.
    """
    if not Path(path_or_id).is_dir():
        load_config(path_or_id, revision=revision)  # whose errors say more than those of a processor
    with _explained(path_or_id):
        access = _access(path_or_id, revision)
        image_processor = AutoImageProcessor.from_pretrained(path_or_id, revision=revision, **access)
        tokenizer = AutoTokenizer.from_pretrained(path_or_id, revision=revision, **access)
        tokenizer.chat_template = _chat_template(path_or_id, revision) or tokenizer.chat_template
    return image_processor, tokenizer


def _chat_template(path_or_id: str, revision: str | None) -> str | None:
    """Return the chat template of a checkpoint's processor; None if it has none of its own."""
    for name in _TEMPLATES:
        file = cached_file(
            path_or_id,
            name,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if file is None:
            continue
        text = Path(file).read_text(encoding="utf-8")
        template = text if name.endswith(".jinja") else _template_of(read_json(Path(file)).get("chat_template"))
        if template:
            return template
    return None


def _template_of(stated: Any) -> str | None:
    """Return the template that a file states, alone or among several with names."""
    if isinstance(stated, list):
        stated = {one.get("name"): one.get("template") for one in stated if isinstance(one, dict)}
    template = stated.get("default") if isinstance(stated, dict) else stated
    return template if isinstance(template, str) else None


def _access(path_or_id: str, revision: str | None) -> dict[str, Any]:
    """Return the arguments of transformers that say what may be asked and run."""
    # by default transformers asks at the terminal whether to run a checkpoint's code
    return {"trust_remote_code": False, "local_files_only": works_offline(path_or_id, revision)}


@contextmanager
def _explained(path_or_id: str) -> Iterator[None]:
    """Raise the errors of loading as errors that say what to do."""
    try:
        yield
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise CheckpointError(
            f"cannot load {path_or_id!r}: its weights are cut short or damaged ({error}); download it again"
        ) from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise CheckpointError(f"cannot load {path_or_id!r}: {_advice(path_or_id, error)}") from error


def _advice(path_or_id: str, error: BaseException) -> str:
    causes: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in causes:
        causes.append(link)
        link = link.__cause__ or link.__context__
    page = f"https://huggingface.co/{path_or_id}"
    if any(isinstance(cause, GatedRepoError) for cause in causes) or "gated" in str(error).lower():
        return f"it is gated. Accept its license at {page}, then log in with 'hf auth login'"
    if "hulu" in path_or_id.lower() or "hulumed" in str(error):
        return (
            f"a Hulu-Med checkpoint must be converted first: {_CONVERSION}; then pass DESTINATION as the model "
            f"({error})"
        )
    if Path(path_or_id).is_dir():
        if pickled := pickled_weights(Path(path_or_id)):
            return (
                f"its weights are pickled ({pickled}), and reading them can run code: only safetensors are loaded. "
                "Look for a version of the checkpoint with safetensors, or convert it where you trust it"
            )
        return f"the folder is not a complete checkpoint ({error}); download it again"
    if is_path(path_or_id):
        return "there is no such folder; check the path"
    if path_or_id == "tiny":
        return (
            "tiny is a model of the commands and bundles. In Python, monai_medpruner.bundles.open_checkpoint('tiny')"
            " is one for an encoder and an engine; monai_medpruner.testing.save_tiny_checkpoint writes one to a folder"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"there is no such model on the Hub, or you have no access to it; check {page} and 'hf auth whoami'"
    if "trust_remote_code" in str(error):
        return "it needs code of its own, which is not run. Pass a checkpoint of a model that transformers has"
    if any(isinstance(cause, LocalEntryNotFoundError) for cause in causes):
        return (
            "it is not in the local cache, and the Hub cannot be reached (or offline mode is on). Download it on a "
            f"machine with a connection by 'hf download {path_or_id}', and pass the folder's path as the model"
        )
    return (
        "it is neither a local folder nor available on the Hub. Pass a folder with config.json and safetensors files, "
        f"or check the id at {page} ({error})"
    )


@contextmanager
def _without_report(partial: bool) -> Iterator[None]:
    """Suppress the warnings about weights that are left out, where they are left out on purpose."""
    named = logging.getLogger("transformers")
    before = named.level
    named.setLevel(logging.ERROR if partial else before)
    try:
        yield
    finally:
        named.setLevel(before)


def _check_memory(path_or_id: str, config: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Check that the weights fit into free memory, before anything is loaded."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    weights = sum(one.numel() for one in model.parameters()) * dtype.itemsize
    free = free_memory(device)
    if free is not None and weights > free * (1 - _MEMORY_MARGIN):
        raise ModelMemoryError(
            f"{path_or_id} needs {weights / 1e9:.1f} GB for its weights in {str(dtype).removeprefix('torch.')}, but "
            f"{device} has {free / 1e9:.1f} GB free. Choose a smaller model, a 16-bit dtype or another device"
        )
