# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The MONAI Label app: questions about a study, and what the model saw of it, from a viewer or a client.

Modules that import MONAI Label: ``app``, ``server``, ``studies``, ``tasks``, and ``main``, the file that the server
starts. The others work without it.
"""
