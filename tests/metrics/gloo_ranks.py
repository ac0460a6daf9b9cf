# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Processes of a gloo group, kept alive over many examples because starting one takes seconds."""

from __future__ import annotations

import multiprocessing
from datetime import timedelta
from multiprocessing.connection import Connection

import torch.distributed

from monai_medpruner.metrics import (
    AnswerAccuracyMetric,
    BleuMetric,
    BleuScorer,
    MeteorScorer,
    RougeMetric,
    TextScorerMetric,
)

TIMEOUT_S = 120


def make_metrics():
    return [
        BleuMetric(4, smoothing="method1"),
        BleuMetric(1, "13a", corpus=True),
        TextScorerMetric(BleuScorer(4, corpus=True)),
        RougeMetric("1", "rouge"),
        RougeMetric("l"),
        TextScorerMetric(MeteorScorer()),
        AnswerAccuracyMetric(),
    ]


def measure(batches):
    """Run all metrics on batches of (predictions, references, questions); return exact values and item counts."""
    results = []
    for metric in make_metrics():
        for predictions, references, questions in batches:
            metric(predictions, questions if isinstance(metric, AnswerAccuracyMetric) else references)
        results.append((float(metric.aggregate()).hex(), len(metric.get_buffer())))
    return results


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=TIMEOUT_S)
    )
    pipe.send("ready")
    while (batches := pipe.recv()) is not None:
        pipe.send(measure(batches))
    torch.distributed.destroy_process_group()


class Ranks:
    """A group of processes; ``ranks(shards)`` returns the measurements of each rank."""

    def __init__(self, size: int, store: str) -> None:
        # torch and MONAI are imported once, in the server process from which the ranks are forked
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["monai_medpruner.metrics.cumulative"])
        self.pipes, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, size, store, there), daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)
        for pipe in self.pipes:
            self._receive(pipe)

    def _receive(self, pipe):
        if not pipe.poll(TIMEOUT_S):
            self.close()
            raise TimeoutError("a rank did not answer")
        return pipe.recv()

    def __call__(self, shards):
        for pipe, batches in zip(self.pipes, shards, strict=True):
            pipe.send(batches)
        return [self._receive(pipe) for pipe in self.pipes]

    def close(self):
        for process in self.processes:
            process.terminate()
            process.join()
