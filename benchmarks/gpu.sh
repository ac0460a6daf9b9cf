#!/usr/bin/env bash
# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0
#
# Measure on one GPU at the shapes' full depth, in bfloat16, in under nine minutes (80 GB of GPU memory):
#
#     benchmarks/gpu.sh ../shared/data/ct_full/s0024.nii.gz
#
# Received attention is checked on the GPU first. Then follow the table of docs/performance.md, the cost of scoring and
# selecting, and the page. Commit benchmarks/results/performance_cuda.json and docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
image=$(realpath "${1:?the full-size CT is needed}")
python benchmarks/gpu_scoring.py
timeout 420 python benchmarks/performance.py "$image" --device cuda --at_most_s 20 --phantoms 6
timeout 90 python benchmarks/selection.py --dtype bfloat16 --patches 256 1024 4096
python benchmarks/performance.py --page docs/performance.md
