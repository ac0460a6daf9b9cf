# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Loading WordNet from a local folder, and preparing that folder from Debian packages."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader

from monai_medpruner.errors import OutputFolderError, PackageVersionError, SettingsError
from monai_medpruner.terminal_text import package_logger

__all__ = ["find_wordnet", "prepare_wordnet"]

_PACKAGES = ("wordnet-base", "wordnet-sense-index")
_TIMEOUT_S = 300
_CATEGORIES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
#: WordNet's lexicographer files in numerical order, from lexnames(5WN); Debian ships no file with this list
_LEXICOGRAPHER_FILES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
).split()

logger = package_logger(__name__)


def find_wordnet(folder: str | Path | None = None) -> WordNetCorpusReader | None:
    """Open a local copy of WordNet; nothing is downloaded.

    Args:
        folder: folder that contains ``corpora/wordnet``, as made by :func:`prepare_wordnet`; None to use NLTK's search
            path (``NLTK_DATA``). A given folder is added to that path, because NLTK only reads from there.

    Returns:
        The reader with its indices loaded (6 s the first time); None if no folder is given and NLTK finds no WordNet.

    Raises:
        SettingsError: a folder is given and does not contain a complete WordNet.
    """
    if folder is None:
        for resource in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
            try:
                found = nltk.data.find(resource)
            except LookupError:
                continue
            return _open_wordnet(found, str(found))
        return None
    root = Path(folder).resolve() / "corpora" / "wordnet"
    if missing := _missing_files(root):
        raise SettingsError(
            f"no WordNet in {folder}: corpora/wordnet lacks {', '.join(missing)}; prepare_wordnet makes it"
        )
    # NLTK only reads below the folders of its search path
    if (resolved := str(Path(folder).resolve())) not in nltk.data.path:
        nltk.data.path.append(resolved)
    return _open_wordnet(str(root), str(root))


_readers: dict[str, WordNetCorpusReader] = {}


def _open_wordnet(root: Any, path: str) -> WordNetCorpusReader:
    """Return the reader of a path, cached per process because it takes seconds and 300 MB."""
    if path not in _readers:
        with warnings.catch_warnings():
            # NLTK warns that other languages are not available
            warnings.simplefilter("ignore", UserWarning)
            _readers[path] = WordNetCorpusReader(root, None)
    return _readers[path]


def _missing_files(root: Path) -> list[str]:
    return [name for name in WordNetCorpusReader._FILES if not (root / name).is_file()]


def prepare_wordnet(destination: str | Path) -> Path:
    """Download WordNet 3.0 from Debian packages and arrange it for NLTK.

    Runs ``apt-get download`` and ``dpkg -x`` in a temporary folder; installs nothing and needs no root access.

    Args:
        destination: folder for ``corpora/wordnet`` (36 MB), created if missing. An existing WordNet in it is replaced
            once the new one is complete.

    Returns:
        ``destination/corpora/wordnet``.

    Raises:
        PackageVersionError: apt-get or dpkg is missing, or the packages cannot be downloaded.
        OutputFolderError: the folder cannot be written.
    """
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise PackageVersionError(
                f"{program} is not installed: run this on Debian or Ubuntu and copy the folder, or unpack NLTK's "
                "wordnet.zip to corpora/wordnet"
            )
    root = Path(destination).resolve() / "corpora" / "wordnet"
    with tempfile.TemporaryDirectory() as work:
        unpacked = _unpack_packages(Path(work))
        _write_lexnames(unpacked / "lexnames")
        if missing := _missing_files(unpacked):
            raise PackageVersionError(f"Debian's {' and '.join(_PACKAGES)} lack {', '.join(missing)}")
        _replace_folder(unpacked, root)
    _readers.pop(str(root), None)
    logger.info(f"WordNet was written to {root}")
    return root


def _unpack_packages(work: Path) -> Path:
    """Download and unpack both packages; return the folder with their dictionary files."""
    _run(["apt-get", "download", *_PACKAGES], work)
    for package in sorted(work.glob("*.deb")):
        _run(["dpkg", "-x", package.name, "unpacked"], work)
    return work / "unpacked" / "usr" / "share" / "wordnet"


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        lines: list[Any] = (error.stderr or "").strip().splitlines()
        reason = lines[-1] if lines else f"exit status {error.returncode}"
        raise PackageVersionError(f"{' '.join(command)}: {reason}; try apt-get update first") from error
    except subprocess.TimeoutExpired as error:
        raise PackageVersionError(
            f"{' '.join(command)} did not finish within {_TIMEOUT_S} s; check the network and retry"
        ) from error


def _write_lexnames(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{n:02d}\t{name}\t{_CATEGORIES[name.split('.')[0]]}\n" for n, name in enumerate(_LEXICOGRAPHER_FILES))
    path.write_text("".join(lines), encoding="utf-8")


def _replace_folder(source: Path, target: Path) -> None:
    """Copy next to the target, then swap, so an interrupted run never leaves an incomplete WordNet there."""
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except OSError as error:
        raise OutputFolderError(f"cannot write WordNet to {target}: {error.strerror or error}") from error
