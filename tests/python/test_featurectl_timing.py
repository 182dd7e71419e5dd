# SPDX-License-Identifier: Apache-2.0
"""featurectl get --timing: phases that follow each other and add up to the whole."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from brokers import Broker

PHASES = ["connect", "open", "ask", "transfer", "verify", "write", "sync", "release"]


def timing_of(broker: Broker, sample_id: str, out: Path) -> dict[str, int | None]:
    begun = time.monotonic()
    row = json.loads(broker.ctl("--json", "get", f"keep/{sample_id}", "-o", str(out), "--timing"))
    took_us = (time.monotonic() - begun) * 1e6
    timing: dict[str, int | None] = row["timing"]
    assert list(timing) == [f"{phase}_us" for phase in PHASES] + ["total_us"]
    total = timing["total_us"]
    parts = [timing[f"{phase}_us"] or 0 for phase in PHASES]
    assert total is not None and 0 < total <= took_us
    assert abs(sum(parts) - total) <= len(parts), "each was rounded down to a microsecond"
    return timing


def test_of_a_sample_that_is_here(broker: Broker, tmp_path: Path) -> None:
    with broker.connect() as client, client.store("keep") as store:
        store.put("here", {"x": np.arange(100_000)})
        timing = timing_of(broker, "here", tmp_path / "x.safetensors")
        assert timing["transfer_us"] is None and timing["verify_us"] is None
        for phase in ("connect", "open", "ask", "write", "sync", "release"):
            assert timing[f"{phase}_us"] is not None, phase
        text = broker.ctl("get", "keep/here", "-o", str(tmp_path / "x"), "--timing")
        table = text.split("\n\n")[1].splitlines()
        assert table[0].split() == ["PHASE", "TIME", "SHARE"]
        assert [line.split("  ")[0] for line in table[1:]] == [
            "connect to the broker", "open the store", "ask for the sample", "write the file",
            "file is on disk", "release", "all",
        ]  # fmt: skip
        assert table[-1].endswith("100 %")
        # Without the option there is no such key.
        row = json.loads(broker.ctl("--json", "get", "keep/here", "-o", str(tmp_path / "y")))
        assert "timing" not in row
        store.abort("here")


def test_of_a_sample_of_another_node(pair: tuple[Broker, Broker], tmp_path: Path) -> None:
    a, b = pair
    with a.connect() as client, client.store("keep") as store:
        store.put("away", {"x": np.zeros(40_000_000, np.uint8)})
        timing = timing_of(b, "away", tmp_path / "x.safetensors")
        assert timing["transfer_us"] is not None and timing["verify_us"] is not None
        assert (tmp_path / "x.safetensors").stat().st_size > 40_000_000
        store.abort("away")
