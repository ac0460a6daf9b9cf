# SPDX-FileCopyrightText: Copyright (c) monai_medpruner contributors
# SPDX-License-Identifier: Apache-2.0

"""``python -m monai_medpruner`` is ``medpruner``."""

from monai_medpruner.cli.main import main

if __name__ == "__main__":
    main()
