# SPDX-License-Identifier: Apache-2.0
"""python -m feature_broker.speculators SCRIPT-OR-MODULE ARGUMENTS: runs a program of speculators
that knows the backend "featured"."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import feature_broker.speculators  # noqa: F401  registers the backend


def main() -> None:
    """Runs the program in this process, as `python SCRIPT` or `python -m MODULE` would."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m feature_broker.speculators SCRIPT-OR-MODULE [ARGUMENT...]")
    program = sys.argv[1]
    del sys.argv[0]
    if program.endswith(".py") or Path(program).is_file():
        sys.path.insert(0, str(Path(program).resolve().parent))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
