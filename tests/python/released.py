# SPDX-License-Identifier: Apache-2.0
"""The released packages of those whose interfaces feature_broker has, for tests against them.

They are installed without what they depend on (their torch alone is gigabytes) into a folder under
the build directory, once; Debian's torch does for what the tests call. Where the package index is
out of reach, and they are not installed otherwise, the tests that need them are skipped.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import shutil
import subprocess
import sys
import types

import pytest

from brokers import BUILD

PACKAGES = ("specforge==0.2.0", "hs-connectors==0.9.0", "speculators==0.9.0", "safetensors==0.6.2")
FOLDER = BUILD / "released-packages"

# A dead network shall not cost a test run more than this.
INSTALL_TIMEOUT_S = 60


def install() -> str:
    """Installs them, unless they are there. Returns "", or why it did not work."""
    stamp = FOLDER / "installed"
    if stamp.exists() and stamp.read_text() == "\n".join(PACKAGES):
        return ""
    shutil.rmtree(FOLDER, ignore_errors=True)
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input",
        "--disable-pip-version-check", "--retries", "0", "--timeout", "5", "--only-binary", ":all:",
        "--target", str(FOLDER), *PACKAGES,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode:
        return (done.stderr.strip() or done.stdout.strip() or "pip failed").splitlines()[-1]
    stamp.write_text("\n".join(PACKAGES))
    return ""


def forget(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """The packages count as never imported, until the test ends."""
    for name in list(sys.modules):
        if name.split(".")[0] in packages:
            monkeypatch.delitem(sys.modules, name)


def importable(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Makes the packages importable for one test, or skips it with a sentence."""
    pytest.importorskip("torch", reason="torch is not installed for this Python")
    forget(monkeypatch, *packages)
    if all(importlib.util.find_spec(package) for package in packages):
        return
    why = install()
    if why:
        pytest.skip(f"{', '.join(packages)} not installed, and the package index gave none: {why}")
    monkeypatch.syspath_prepend(str(FOLDER))


def lend_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives Debian's torch 1.13 the two names of torch 2.6 that hs_connectors asks for in what is
    tested here. Its own code runs as it was released."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch, "accelerator"):
        nothing = types.SimpleNamespace(
            current_accelerator=lambda: None, is_available=lambda: False
        )
        monkeypatch.setattr(torch, "accelerator", nothing, raising=False)
    if not hasattr(torch.float32, "itemsize"):
        # A class made in C takes no attributes; its dictionary does.
        members = gc.get_referents(torch.dtype.__dict__)[0]
        members["itemsize"] = property(lambda dtype: torch.empty((), dtype=dtype).element_size())
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(torch.dtype))
