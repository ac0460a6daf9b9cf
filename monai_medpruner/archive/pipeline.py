# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The stages of an archive run on Ray Data. The only module that imports Ray."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from monai_medpruner.archive.stages import AnswerStudies, BundleSettings, EncodeStudies, ReadStudies, run_settings
from monai_medpruner.archive.transit import StudyInTransit
from monai_medpruner.errors import ArchiveWorkerError, PackageVersionError, SettingsError

__all__ = ["ATTEMPTS", "Workers", "described_settings", "ray_cluster", "streamed"]

#: how often a study is tried whose process ends
ATTEMPTS = 3
# read by Ray when it is imported: nothing is reported, and a Ray of one's own listens on the loopback address alone
_PRIVATE = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# memory of Ray's object store in terms of what may be on the way; the rest is what actors hold and write
_STORE = 2
_LEAST_STORE = 100_000_000


@dataclass(frozen=True)
class Workers:
    """Processes of each stage; None lets the cluster's resources decide.

    Args:
        readers: processes that read and filter, each on a CPU.
        encoders: processes that encode and prune, one per GPU by default.
        answerers: processes that answer, one per encoder by default.

    Raises:
        SettingsError: a number is below 1.
    """

    readers: int | None = None
    encoders: int | None = None
    answerers: int | None = None

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count is not None and count < 1:
                raise SettingsError(f"{name} must be at least 1, got {count}")

    def shares(self, cpus: float, gpus: float, answer_on_gpu: bool) -> dict[str, dict[str, float]]:
        """Return the number of processes of each stage, and the CPUs and GPUs of each process.

        Where there are fewer CPUs or GPUs than processes, these share them.

        Args:
            cpus: of the cluster.
            gpus: of the cluster.
            answer_on_gpu: whether the language model runs in the answering processes, and not in a server.
        """
        encoders = self.encoders or max(1, int(gpus))
        answerers = self.answerers or encoders
        readers = self.readers or max(1, min(2 * encoders, int(cpus) - encoders - answerers))
        cpu = min(1.0, _below(cpus / (readers + encoders + answerers)))
        on_gpu = encoders + (answerers if answer_on_gpu else 0)
        # processes of equal size, so that as many as needed fit onto each GPU
        gpu = 1 / math.ceil(on_gpu / int(gpus)) if gpus >= 1 else 0.0
        return {
            "readers": {"count": readers, "num_cpus": cpu, "num_gpus": 0.0},
            "encoders": {"count": encoders, "num_cpus": cpu, "num_gpus": _below(gpu)},
            "answerers": {"count": answerers, "num_cpus": cpu, "num_gpus": _below(gpu) if answer_on_gpu else 0.0},
        }


@contextmanager
def ray_cluster(address: str | None = None, buffer_gb: float | None = None) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray on this machine, reachable from this machine alone.

    Ray reads when it is imported that it shall listen on the loopback address: do not import it before. A connection
    that this process already has is used as it is.

    Args:
        address: Ray's own: "HOST:PORT" or "auto"; this machine must be one of the cluster's. None for the
            environment's RAY_ADDRESS, and without it a Ray of one's own that ends with this process.
        buffer_gb: GB of studies on the way; sizes the object store of a Ray of one's own.

    Raises:
        PackageVersionError: Ray is not installed.
        ArchiveWorkerError: the cluster does not answer.
    """
    known = address or os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"address": known}
    for name, value in {**_PRIVATE, **({} if known else _LOOPBACK)}.items():
        os.environ.setdefault(name, value)
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    if not known:
        own = {"address": "local", "include_dashboard": False}
        if buffer_gb is not None:
            own["object_store_memory"] = max(_LEAST_STORE, int(_STORE * buffer_gb * 1e9))
    try:
        ray.init(log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise ArchiveWorkerError(f"the Ray cluster does not answer: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def described_settings(settings: BundleSettings) -> dict[str, Any]:
    """Return the settings of every line, found by a process of the cluster, since this one may have no GPU.

    Raises:
        MedPrunerError: a setting or the model is invalid.
        ArchiveWorkerError: the process ended.
    """
    ray = _ray()
    gpu = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
    describe = ray.remote(num_cpus=1, num_gpus=gpu, max_retries=ATTEMPTS - 1, max_calls=1)(run_settings)
    try:
        return ray.get(describe.remote(settings))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ArchiveWorkerError(f"the process that opens the model ended: {error}") from error


def streamed(
    groups: Sequence[list[dict[str, Any]]],
    settings: BundleSettings,
    *,
    answer_on_gpu: bool,
    workers: Workers | None = None,
    buffer_gb: float | None = None,
) -> Iterator[StudyInTransit]:
    """Send studies through the stages, and yield them with their result lines as they are done, in any order.

    Ray Data holds a stage back while what it has made waits for the next one: as many studies are on the way as fit
    into ``buffer_gb``, and one in each process. A process that ends is started again, and its study is tried again. A
    study whose process ended :data:`ATTEMPTS` times is left out; the caller sees that it is missing.

    Args:
        groups: the questions about each study.
        settings: of the run.
        answer_on_gpu: see :meth:`Workers.shares`.
        workers: processes of each stage.
        buffer_gb: GB of studies on the way between the stages; None for Ray's own limit, half of its object store.

    Raises:
        MedPrunerError: a study met an error that ends the run, such as a language engine that does not answer.
        ArchiveWorkerError: a process cannot start.
    """
    ray = _ray()
    _prepare(ray, buffer_gb)
    resources = ray.cluster_resources()
    shares = (workers or Workers()).shares(resources.get("CPU", 1), resources.get("GPU", 0), answer_on_gpu)
    rows = [StudyInTransit(list(items)).to_row() for items in groups]
    studies = ray.data.from_items(rows, override_num_blocks=len(rows))
    stages = {"readers": ReadStudies, "encoders": EncodeStudies, "answerers": AnswerStudies}
    with warnings.catch_warnings():  # Ray 2.64 will name the last two arguments otherwise
        warnings.simplefilter("ignore", DeprecationWarning)
        for name, stage in stages.items():
            share = dict(shares[name])
            # one study at a time in a process: a study that ends its process takes no other with it
            pool = ray.data.ActorPoolStrategy(size=share.pop("count"), max_tasks_in_flight_per_actor=1)
            retries = {"max_restarts": -1, "max_task_retries": ATTEMPTS - 1}
            studies = studies.map(stage, fn_constructor_args=(settings,), compute=pool, **share, **retries)
    try:
        for row in studies.iter_rows():
            study = StudyInTransit.from_row(row)
            if study.ends_run is not None:
                raise study.ends_run
            yield study
    except ray.exceptions.RayError as error:
        raise ArchiveWorkerError(f"the run ended: {_first_line(error)}") from error


def _prepare(ray: Any, buffer_gb: float | None) -> None:
    """Set what Ray Data reads from its context."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # a study that is lost does not end the run
    context.max_consecutive_actor_init_deaths = ATTEMPTS - 1
    context.execution_no_progress_timeout_s = -1  # an answer has a limit of its own, limit_seconds
    if buffer_gb is not None:
        limit = ray.data.ExecutionResources.for_limits(object_store_memory=int(buffer_gb * 1e9))
        context.execution_options.resource_limits = limit


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PackageVersionError(
            "medpruner archive needs Ray: pip install 'monai-medpruner[ray]', on every machine of the cluster"
        ) from error
    return ray


def _below(share: float) -> float:
    """Round down to what Ray tells apart."""
    return math.floor(share * 1000) / 1000


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
