# SPDX-License-Identifier: Apache-2.0
"""The programs featured and featurectl that this package brings along.

In a wheel they lie in the package's folder `bin`. In a source tree they are in the build folder
from which the package is imported (build/python/feature_broker beside build/featured), or in
build/.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from ._errors import Unavailable

_HERE = Path(__file__).parent.absolute()


def _own(name: str) -> Path | None:
    """The program as this package has it, or None."""
    tree = Path(__file__).resolve().parents[3]
    for path in (_HERE / "bin" / name, _HERE.parents[1] / name, tree / "build" / name):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def find_program(name: str) -> str:
    """The path of featured or featurectl: this package's own, else the first on PATH.

    Raises Unavailable when there is none.
    """
    found = _own(name) or shutil.which(name)
    if found is None:
        raise Unavailable(
            f"the program {name} is not there: neither in the package {_HERE} nor on PATH; install"
            " the wheel of feature-broker, which brings it along, or featured itself"
        )
    return str(found)


def _become(name: str) -> NoReturn:
    """This process goes on as the program, with its arguments. PATH is not searched: what it has
    under that name may be the very script that calls this function."""
    path = _own(name)
    if path is None:
        sys.exit(f"{name}: this installation of feature-broker came without programs: {_HERE}/bin")
    os.execv(path, [name, *sys.argv[1:]])


def featured() -> NoReturn:
    """What the command `featured` of the wheel calls."""
    _become("featured")


def featurectl() -> NoReturn:
    """What the command `featurectl` of the wheel calls."""
    _become("featurectl")
