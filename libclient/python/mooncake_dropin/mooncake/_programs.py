# SPDX-License-Identifier: Apache-2.0
"""Where featured and featurectl are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import feature_broker


def find(name: str) -> str | None:
    """The path of a program: the one that FEATURED_BIN's folder has, the one of the wheel, or the
    one on PATH. None: there is none."""
    folders = [
        os.environ.get("FEATURED_BIN") or "",
        str(Path(feature_broker.__file__).resolve().parent / "bin"),
        str(Path(sys.executable).parent),
    ]
    for folder in folders:
        path = Path(folder, name)
        if folder and os.access(path, os.X_OK) and path.is_file():
            return str(path)
    return shutil.which(name)
