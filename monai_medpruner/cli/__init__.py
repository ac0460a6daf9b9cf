# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The commands, one file each: ``medpruner COMMAND``, or ``python -m monai_medpruner COMMAND``.

A command is a module with ``SUMMARY``, ``add_arguments(parser)`` and ``run(arguments)``. It imports what it needs when
it runs, so that help answers at once.
"""
