# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""The commands, one file each: ``medpruner COMMAND`` or ``python -m monai_medpruner COMMAND``.

A command is a module with ``SUMMARY``, ``add_arguments(parser)`` and ``run(arguments)``. Large packages are imported in
``run``, so that the help starts fast.
"""
