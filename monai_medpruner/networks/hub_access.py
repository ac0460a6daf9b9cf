# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether the Hugging Face Hub has to be asked, and answers.

Without a connection, its client tries each file of a checkpoint again and again, two minutes in all.
"""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import is_offline_mode
from huggingface_hub.errors import HfHubHTTPError

from monai_medpruner.terminal_text import package_logger

__all__ = ["is_path", "snapshot_folder", "works_offline"]

logger = package_logger(__name__)

_SECONDS = 5.0


def is_path(path_or_id: str) -> bool:
    """Return whether a text can only be a path, and no Hub id."""
    return os.path.isabs(path_or_id) or path_or_id.startswith((".", "~")) or path_or_id.count("/") > 1


def works_offline(path_or_id: str, revision: str | None) -> bool:
    """Return whether a checkpoint is read from this machine alone: it is a folder, or the Hub does not answer.

    Offline mode (``HF_HUB_OFFLINE=1``) asks nothing of the network.

    Args:
        path_or_id: a local checkpoint folder or a Hub id.
        revision: commit of a Hub checkpoint.
    """
    if is_path(path_or_id) or Path(path_or_id).is_dir() or is_offline_mode():
        return True
    try:
        get_hf_file_metadata(hf_hub_url(path_or_id, "config.json", revision=revision), timeout=_SECONDS)
    except (HfHubHTTPError, ValueError):  # it has answered, or the id is not valid: loading says what is wrong
        return False
    except Exception as error:  # of the library that makes connections, which differs between versions of the client
        logger.warning("the Hugging Face Hub cannot be reached (%s); its local cache is used", type(error).__name__)
        return True
    return False


def snapshot_folder(path_or_id: str, revision: str | None) -> Path | None:
    """Return the folder of a checkpoint: itself, or its commit's in the Hub's cache; None where it is not there.

    The folder in the cache has the name of the commit.

    Args:
        path_or_id: a local checkpoint folder or a Hub id.
        revision: commit of a Hub checkpoint, or a branch; None for the main one.
    """
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    found = try_to_load_from_cache(path_or_id, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None
