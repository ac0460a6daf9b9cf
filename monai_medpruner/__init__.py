# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Training-free pruning of slices and visual tokens for 3-D medical vision-language models (MedPruner)."""
