#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole example on one machine: trains a target, lets a producer capture its hidden states and
end, lets a trainer on another broker train a draft head from them, and does the same colocated.

    DISAGG_BACKEND=featured python3 run.py --out /tmp/disagg

Environment:
    DISAGG_BACKEND  shared_dir (default), featured or mooncake
    DISAGG_DIR      the directory of shared_dir (a new one in /dev/shm)
    DISAGG_PRODUCER_SOCKET, DISAGG_TRAINER_SOCKET
                    the brokers of the two nodes; without them two private ones are started
Writes report.json, loss.png, acceptance.png and wait.png. Fails when the loss curves differ by a bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from stores import BACKENDS, backend  # noqa: E402
from training import SIZES, save_target, train_target  # noqa: E402

Environment = dict[str, str]


@contextlib.contextmanager
def two_brokers() -> Iterator[tuple[str, str]]:
    """Private brokers a and b that read from each other: their sockets."""
    import feature_broker

    ports = {"a": _free_port(), "b": _free_port()}
    with tempfile.TemporaryDirectory(prefix="disagg-") as folder, contextlib.ExitStack() as stack:
        secret = Path(folder, "cluster.secret")
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32))
        sockets = []
        for name, peer in (("a", "b"), ("b", "a")):
            config: dict[str, dict[str, object]] = {
                "peers": {"listen": f"127.0.0.1:{ports[name]}", "cluster_secret_file": str(secret)},
                f"peer {peer}": {"address": f"127.0.0.1:{ports[peer]}"},
                "memory": {"max_resident_bytes": "512MiB", "prefault": "off"},
                "stores": {"max_resident_bytes": "256MiB", "landing_bytes": "64MiB"},
            }
            sockets.append(stack.enter_context(feature_broker.serve(name=name, config=config)).socket_path)
        yield sockets[0], sockets[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def places(name: str) -> Iterator[tuple[Environment, Environment]]:
    """What the producer and the trainer have in their environments, for the store of that name."""
    if name == "shared_dir":
        given = os.environ.get("DISAGG_DIR")
        folder = given or tempfile.mkdtemp(prefix="disagg-", dir="/dev/shm")
        try:
            yield {"DISAGG_DIR": folder}, {"DISAGG_DIR": folder}
        finally:
            if not given:
                shutil.rmtree(folder)
        return
    sockets = [os.environ.get(f"DISAGG_{role}_SOCKET") for role in ("PRODUCER", "TRAINER")]
    with contextlib.ExitStack() as stack:
        if not all(sockets):
            sockets = list(stack.enter_context(two_brokers()))
        producer, trainer = ({"FEATURED_SOCKET": str(path)} for path in sockets)
        yield producer, trainer


def start(script: str, *arguments: object, **environment: str) -> None:
    """Runs a script of this folder to its end. It fails, we fail."""
    subprocess.run(
        [sys.executable, str(HERE / script), *map(str, arguments)],
        env={**os.environ, **environment},
        check=True,
    )


def disaggregated(name: str, out: Path, target: Path, size: str, seed: int) -> dict[str, Any]:
    """Producer, then trainer. The producer is gone when the trainer starts."""
    manifest, result = out / f"{name}.manifest", out / f"{name}.json"
    with places(name) as (producer, trainer):
        began = time.perf_counter()
        start("produce.py", target, size, seed, manifest, DISAGG_BACKEND=name, **producer)
        produced_s = time.perf_counter() - began
        start("train.py", target, size, seed, manifest, result, DISAGG_BACKEND=name, **trainer)
    return {**json.loads(result.read_text()), "produced_s": produced_s}


def colocated(out: Path, target: Path, size: str, seed: int) -> dict[str, Any]:
    """The reference: one process does it all."""
    result = out / "colocated.json"
    start("train.py", target, size, seed, "-", result)
    return dict(json.loads(result.read_text()))


def plot(out: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Three pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for key, title, x in (("losses", "loss", "step"), ("acceptance", "acceptance length", "epoch")):
        pyplot.figure(figsize=(7, 4))
        for number, (name, run) in enumerate(runs.items()):
            pyplot.plot(run[key], label=name, linewidth=4 - number, linestyle=("-", "--", ":")[number % 3])
        pyplot.xlabel(x)
        pyplot.ylabel(title)
        pyplot.legend()
        pyplot.tight_layout()
        pyplot.savefig(out / ("loss.png" if key == "losses" else "acceptance.png"), dpi=120)
        pyplot.close()
    pyplot.figure(figsize=(7, 4))
    pyplot.bar(list(runs), [run["wait_ms_per_sample"] for run in runs.values()])
    pyplot.ylabel("waiting for a sample, ms")
    pyplot.tight_layout()
    pyplot.savefig(out / "wait.png", dpi=120)
    pyplot.close()


def report(runs: dict[str, dict[str, Any]]) -> None:
    """A table on standard output."""
    print(f"{'run':<14}{'first loss':>12}{'last loss':>12}{'acceptance':>16}{'samples/s':>12}{'wait ms/sample':>16}")
    for name, run in runs.items():
        acceptance = f"{run['acceptance'][0]:.2f} -> {run['acceptance'][-1]:.2f}"
        print(
            f"{name:<14}{run['losses'][0]:>12.4f}{run['losses'][-1]:>12.4f}{acceptance:>16}"
            f"{run['samples_per_s']:>12.1f}{run['wait_ms_per_sample']:>16.3f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("disagg-out"))
    parser.add_argument(
        "--against", choices=BACKENDS, action="append", default=[], help="one more store to compare with"
    )
    options = parser.parse_args()
    names = list(dict.fromkeys([backend(), *options.against]))
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    target = out / "target.pt"
    save_target(train_target(SIZES[options.size], options.seed), target)

    runs = {"colocated": colocated(out, target, options.size, options.seed)}
    for name in names:
        runs[name] = disaggregated(name, out, target, options.size, options.seed)
    (out / "report.json").write_text(json.dumps(runs, indent=1))
    plot(out, runs)
    report(runs)
    differing = [name for name in names if runs[name]["losses"] != runs["colocated"]["losses"]]
    if differing:
        print(f"the loss curve differs from the colocated one: {', '.join(differing)}", file=sys.stderr)
        return 1
    print(f"the loss curves are equal bit for bit: {', '.join(runs)}; pictures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
