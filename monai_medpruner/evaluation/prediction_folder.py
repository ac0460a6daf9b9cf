# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The predictions of an evaluation on disk, written one by one so that interrupted runs can resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import ignite.distributed as idist
from filelock import FileLock, Timeout

from monai_medpruner.atomic_write import atomic_write, remove_parts
from monai_medpruner.errors import IncompletePredictionsError, MixedRunError, OutputFolderError
from monai_medpruner.results import append_line, json_line
from monai_medpruner.terminal_text import package_logger

__all__ = ["PredictionFolder"]

logger = package_logger(__name__)

_SHOWN = 3


class PredictionFolder:
    """The output folder of an evaluation.

    ``predictions.jsonl`` has one line per item. Each line is on disk before the next item is asked. With several ranks,
    each writes its own file (``predictions.rank0.jsonl``, …). The files are merged at the end of the run, or at the
    start of the next run if it was interrupted. All nodes must share the folder. ``run.json`` describes the run; a run
    with another description is refused. ``.lock`` prevents two runs from writing at the same time. The operating system
    releases it when the process ends for any reason.

    Args:
        output_dir: folder of the evaluation; created if it does not exist.
        retry_failed: ask items again whose status is not "ok".
    """

    def __init__(self, output_dir: str | Path, retry_failed: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.retry_failed = retry_failed
        self.predictions_file = self.output_dir / "predictions.jsonl"
        self._lock = FileLock(self.output_dir / ".lock", timeout=0)
        self._file: TextIO | None = None

    def open(self, identity: Mapping[str, Any], ids: Sequence[str]) -> set[str]:
        """Open the folder for a run; called by all ranks.

        Args:
            identity: everything that the predictions depend on, as JSON values. Runs with equal values may resume each
                other.
            ids: ids of all items, in the order of the finished file.

        Returns:
            The ids that have a prediction.

        Raises:
            MixedRunError: the folder has predictions of another run, or another run is active.
            OutputFolderError: the folder cannot be written, or a file in it is damaged other than at its end.
        """
        if idist.get_rank() == 0:
            try:
                (self.output_dir / "records").mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
                for folder in (self.output_dir, self.output_dir / "records"):
                    remove_parts(folder)
                self._claim(json.loads(json.dumps(identity)))
                self._merge(ids, self.retry_failed)
            except Timeout as error:
                raise MixedRunError(
                    f"another run is writing to {self.output_dir}: wait for it, or use another output_dir"
                ) from error
            except OutputFolderError:
                raise
            except OSError as error:
                raise OutputFolderError(f"cannot write to {self.output_dir}: {error.strerror}") from error
        idist.barrier()
        done = {line["id"] for line in _read(self.predictions_file)[0]}
        idist.barrier()  # all ranks read before any rank writes
        own = self.predictions_file
        if idist.get_world_size() > 1:
            own = self.output_dir / f"predictions.rank{idist.get_rank()}.jsonl"
        self._file = own.open("a", encoding="utf-8")
        return done

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line. It is on disk when this method returns."""
        if self._file is None:
            raise OutputFolderError(f"{self.output_dir} is not open: call open first")
        append_line(self._file, line)

    def finish(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Merge the files of the ranks in the order of the items, and check that none is missing; called by all ranks.

        Returns:
            All lines on rank 0; an empty list on other ranks.

        Raises:
            IncompletePredictionsError: an item has no prediction.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        idist.barrier()
        lines: list[dict[str, Any]] = []
        if idist.get_rank() == 0:
            lines = self._merge(ids)
            present = {line["id"] for line in lines}
            if gap := [one for one in ids if one not in present]:
                raise IncompletePredictionsError(
                    f"{len(gap)} of {len(ids)} items have no prediction: {', '.join(gap[:_SHOWN])}"
                    f"{', …' if len(gap) > _SHOWN else ''}. All nodes must write to the same folder, "
                    f"{self.output_dir}. Run the evaluation again to ask the missing items"
                )
        return lines

    def close(self) -> None:
        """Close the file and release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()

    def _claim(self, identity: dict[str, Any]) -> None:
        """Write the description of the run, or check that it equals the existing one."""
        path = self.output_dir / "run.json"
        if path.exists():
            earlier = json.loads(path.read_text(encoding="utf-8"))["identity"]
            if different := _differences(earlier, identity):
                raise MixedRunError(
                    f"{self.output_dir} contains predictions of another run: {'; '.join(different[:_SHOWN])}"
                    f"{'; …' if len(different) > _SHOWN else ''}. Use another output_dir"
                )
            return
        if any(self.output_dir.glob("predictions*.jsonl")):
            raise MixedRunError(
                f"{self.output_dir} contains predictions, but no run.json that describes their run. Use another "
                "output_dir"
            )
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        atomic_write(path, (json.dumps({"fingerprint": digest, "identity": identity}, indent=2) + "\n").encode())

    def _merge(self, ids: Sequence[str], drop_failed: bool = False) -> list[dict[str, Any]]:
        """Merge all lines into one file, in the order of the items, without incomplete last lines."""
        shards = sorted(self.output_dir.glob("predictions.rank*.jsonl"))
        place = {one: number for number, one in enumerate(ids)}
        held, changed = _read(self.predictions_file)
        found = {line["id"]: line for line in held}
        for shard in shards:
            for line in _read(shard)[0]:
                # a run that was interrupted between writing the merged file and removing this one leaves both
                found.setdefault(line["id"], line)
        if unknown := [one for one in found if one not in place]:
            raise OutputFolderError(
                f"{self.output_dir} contains a prediction of an unknown item, {unknown[0]}. Use another output_dir"
            )
        lines = sorted(found.values(), key=lambda line: place[line["id"]])
        if drop_failed:
            lines = [line for line in lines if line.get("status") == "ok"]
        if changed or shards or lines != held or not self.predictions_file.exists():
            text = "".join(map(json_line, lines))
            atomic_write(self.predictions_file, text.encode())
        for shard in shards:
            shard.unlink()
        return lines


def _read(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the complete lines of a file, and whether its last line is incomplete, so that its item is asked again."""
    if not path.exists():
        return [], False
    *whole, rest = path.read_bytes().split(b"\n")
    if rest:
        logger.warning("the last line of %s is incomplete (interrupted run); its item is asked again", path)
    lines = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text)
            lines.append({**line, "id": str(line["id"])})
        except (ValueError, KeyError, TypeError) as error:
            raise OutputFolderError(f"line {number} of {path} is not a prediction; restore or remove it") from error
    return lines, bool(rest)


def _differences(earlier: Any, now: Any, name: str = "") -> list[str]:
    """Describe the differences between two JSON values."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        names = list(dict.fromkeys((*earlier, *now)))
        parts = ((one, earlier.get(one), now.get(one)) for one in names)
        return [text for one, old, new in parts for text in _differences(old, new, f"{name}.{one}".strip("."))]
    if isinstance(earlier, list) and isinstance(now, list) and len(earlier) == len(now):
        pairs = zip(earlier, now, strict=True)
        return [text for number, (old, new) in enumerate(pairs) for text in _differences(old, new, f"{name}.{number}")]
    return [] if earlier == now else [f"{name} was {_short(earlier)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
