# SPDX-License-Identifier: Apache-2.0
"""The example disagg_eagle3 at its smallest: one seed gives the same losses, bit for bit, whether the
hidden states stay in the process or go through a store, the producer gone before the trainer starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brokers import DEADLINE_S, ROOT

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

EXAMPLE = ROOT / "libclient/python/examples/disagg_eagle3/run.py"
DROPIN = ROOT / "libclient/python/mooncake_dropin"


def test_curves_are_equal_bit_for_bit(tmp_path: Path) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DISAGG_", "FEATURED_"))
    }
    environment["PYTHONPATH"] = os.pathsep.join([*filter(None, sys.path), str(DROPIN)])
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--size", "tiny", "--out", tmp_path,
         "--against", "shared_dir", "--against", "mooncake"],
        env={**environment, "DISAGG_BACKEND": "featured"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=20 * DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    runs = json.loads((tmp_path / "report.json").read_text())
    assert list(runs) == ["colocated", "featured", "shared_dir", "mooncake"]
    assert len(runs["colocated"]["losses"]) == 6  # two epochs of 12 samples, four to a step
    for name, run in runs.items():
        assert run["losses"] == runs["colocated"]["losses"], name
        assert run["acceptance"] == runs["colocated"]["acceptance"], name
        assert run["losses"][-1] < run["losses"][0], name
    keys = (tmp_path / "featured.manifest").read_text().splitlines()
    assert len(keys) == 12 and all("home=a" in key for key in keys)  # and the trainer was on b
    for picture in ("loss.png", "acceptance.png", "wait.png"):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"


def test_an_unknown_backend_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--size", "tiny", "--out", tmp_path],
        env={**os.environ, "DISAGG_BACKEND": "tape"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=5 * DEADLINE_S,
    )  # fmt: skip
    assert done.returncode != 0
    assert "DISAGG_BACKEND=tape: it is one of shared_dir, featured, mooncake" in done.stderr
