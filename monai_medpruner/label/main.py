# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""Entry point of the MONAI Label app; ``medpruner label_app`` copies this file into the app's folder."""

from monai_medpruner.label.app import MedPrunerApp

__all__ = ["MedPrunerApp"]
