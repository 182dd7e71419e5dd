# SPDX-License-Identifier: Apache-2.0
"""Builds feature_broker._feature, the package's window to libfeature, with cffi in API mode.

cffi is told what there is by feature.h and binding.h themselves, after the C preprocessor: no
declaration is written twice. The module uses Python's limited ABI, so one file serves Python 3.10
and all later versions. `make python` runs this file as a script; setup.py takes `ffibuilder`.

Environment:
    FEATURE_BUILD  the folder with libfeature.so (build/ of this tree)
    FEATURE_RPATH  where the module looks for libfeature.so.0 at run time, separated by colons;
                   $ORIGIN is the module's folder (the package's own folder `lib`)
    CC             the C compiler (gcc)
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
LIBCLIENT = HERE.parent
BUILD = Path(os.environ.get("FEATURE_BUILD") or LIBCLIENT.parent / "build").resolve()
RPATH = os.environ.get("FEATURE_RPATH") or "$ORIGIN/lib"

SOURCES = ("binding.c", "receive_pool.c")

# System headers that feature.h includes. They are replaced by empty files: cffi knows size_t,
# bool, uint64_t and so on by itself, and could not read the headers of the C library.
SYSTEM_HEADERS = ("stdbool.h", "stddef.h", "stdint.h", "sys/uio.h")

# What is left out by that: macros, types of system headers, and the functions that C calls in Python.
BEFORE = """
#define FEATURE_RANK_MAX ...
#define FEATURE_TENSORS_MAX ...
struct iovec { void *iov_base; size_t iov_len; };
"""
AFTER = """
extern "Python" void python_log(void *context, enum feature_log_level level, const char *sentence);
extern "Python+C" bool python_interrupted(void);
"""


def declarations() -> str:
    """What feature.h and binding.h declare, without preprocessor lines, comments and macros."""
    with tempfile.TemporaryDirectory() as empty:
        for header in SYSTEM_HEADERS:
            path = Path(empty, header)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        compiler = shlex.split(os.environ.get("CC") or "gcc")
        text = subprocess.run(
            [*compiler, "-E", "-P", "-nostdinc", f"-I{empty}", f"-I{LIBCLIENT}", HERE / "binding.h"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    return BEFORE + text + AFTER


def make_ffi(folder: str) -> cffi.FFI:
    """The builder of the module. folder: this one, in front of the names of C files."""
    ffi = cffi.FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "feature_broker._feature",
        '#include "python/binding.h"\n',
        sources=[folder + name for name in SOURCES],
        include_dirs=[str(LIBCLIENT)],
        library_dirs=[str(BUILD)],
        libraries=["feature"],
        extra_link_args=[f"-Wl,-rpath,{path}" for path in RPATH.split(":")],
        py_limited_api=True,
    )
    return ffi


# For setuptools, which runs here and wants no absolute path.
ffibuilder = make_ffi("")


def main() -> None:
    """Puts the package into a folder: its Python files as links, beside them the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="becomes a folder for PYTHONPATH")
    folder: Path = parser.parse_args().folder
    link_sources(HERE / "feature_broker", folder / "feature_broker")
    with tempfile.TemporaryDirectory() as work:
        made = Path(make_ffi(f"{HERE}/").compile(tmpdir=work))
        shutil.copy2(made, folder / "feature_broker" / made.name)


def link_sources(source: Path, target: Path) -> None:
    """Makes target a copy of the tree of source, in which each file is a link to the original.

    Links to files that have gone since are removed.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in target.rglob("*"):
        if path.is_symlink():
            path.unlink()
    for path in source.rglob("*"):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        link = target / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)


if __name__ == "__main__":
    sys.exit(main())
