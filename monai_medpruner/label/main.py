# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""What MONAI Label's server starts: ``python -m monai_medpruner label_app`` puts this file into the app's folder."""

from monai_medpruner.label.app import MedPrunerApp

__all__ = ["MedPrunerApp"]
