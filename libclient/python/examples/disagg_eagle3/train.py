# SPDX-License-Identifier: Apache-2.0
"""The trainer of the example: reads what a manifest names and trains a draft head.

usage: train.py TARGET SIZE SEED MANIFEST RESULT
MANIFEST "-": colocated. The hidden states are made in this process and no store is used.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stores import open_store
from training import SIZES, InProcess, capture, load_target, prepare, train_draft


def main() -> None:
    size, seed, manifest = SIZES[sys.argv[2]], int(sys.argv[3]), sys.argv[4]
    prepare(seed)
    target = load_target(Path(sys.argv[1]))
    if manifest == "-":
        local = InProcess(capture(target, size, seed))
        curve = train_draft(target, local, local.keys, size, seed)
    else:
        keys = Path(manifest).read_text().splitlines()
        curve = train_draft(target, open_store(), keys, size, seed)
    Path(sys.argv[5]).write_text(json.dumps(curve.to_dict()))


if __name__ == "__main__":
    main()
