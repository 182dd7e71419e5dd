# SPDX-License-Identifier: Apache-2.0
"""The inference server of the example: captures hidden states, puts them, writes a manifest, ends.

usage: produce.py TARGET SIZE SEED MANIFEST
"""

from __future__ import annotations

import sys
from pathlib import Path

from stores import open_store
from training import SIZES, capture, load_target, prepare


def main() -> None:
    target, size, seed, manifest = Path(sys.argv[1]), SIZES[sys.argv[2]], int(sys.argv[3]), Path(sys.argv[4])
    prepare(seed)
    store = open_store()
    samples = capture(load_target(target), size, seed)
    keys = [store.put(sample_id, tensors) for sample_id, tensors in samples]
    manifest.write_text("".join(f"{key}\n" for key in keys))


if __name__ == "__main__":
    main()
