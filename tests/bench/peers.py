# SPDX-License-Identifier: Apache-2.0
"""The mooncake drop-in beside Mooncake's own wheel: the same calls through Python, in alternating rounds.

Each side has a producer and two consumers, which are processes of tests/bench/peers_worker.py:

              producer          consumer "local"          consumer "remote"
    ours      broker a          broker a                  broker b, over TCP on loopback
    theirs    its own segment   another process           another process, over TCP on loopback

Mooncake knows no difference between its two consumers: on one host too the bytes go through TCP. In a
round each side puts a few objects (timed in the producer), every consumer gets each of them once
(timed there), and they are removed; so no get meets a copy that an earlier one has left. The first
of each turn warm up and do not count. Medians over all rounds are compared.

All processes are started anew --starts times, and the rounds are shared out among the starts: which
pages of the machine a process gets decides a good part of how fast it copies. The very same program
in two starts, in alternation, has differed by 10 to 50 percent in a put of 16 MiB.

value: ours in us; limit: theirs in us; ratio: theirs / ours, so 2 means twice as fast. The two
figures dropin_* are GB/s of our producer, over memcpy between two warm buffers in its process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))

from brokers import free_port, start_pair, wait_until  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SEGMENT = GIB
# Sizes, and how many of each are timed in a round; before them WARM_UP that are not.
SIZES = {"4KiB": (4 * KIB, 24), "1MiB": (MIB, 12), "16MiB": (16 * MIB, 5), "64MiB": (64 * MIB, 3)}
# SpecForge's EAGLE3: 512 tokens of a model with 4096 wide hidden states, bfloat16: three layers, the
# last one, token ids and loss mask.
SAMPLE = (512 * 3 * 4096 * 2, 512 * 4096 * 2, 512 * 8, 512 * 8)
SAMPLE_RUNS = 5
WARM_UP = 2
FIGURES = (
    ("peers_local_get_4KiB", "local", "get", "4KiB"),
    ("peers_local_get_16MiB", "local", "get", "16MiB"),
    ("peers_remote_get_4KiB", "remote", "get", "4KiB"),
    ("peers_remote_get_1MiB", "remote", "get", "1MiB"),
    ("peers_remote_get_16MiB", "remote", "get", "16MiB"),
    ("peers_remote_get_64MiB", "remote", "get", "64MiB"),
    ("peers_put_4KiB", "producer", "put", "4KiB"),
    ("peers_put_16MiB", "producer", "put", "16MiB"),
    ("peers_sample_put", "producer", "sample_put", "sample"),
    ("peers_sample_get", "remote", "sample_get", "sample"),
)
STORE = f"""
[memory]
max_resident_bytes = 2GiB
prefault = on
[store mooncake]
policy = retain
max_resident_bytes = {SEGMENT}
landing_bytes = {SEGMENT}
"""


class Worker:
    """A process that carries out what it is told, one JSON object a line."""

    def __init__(self, python: Path, environment: dict[str, str], setup: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "tests/bench/peers_worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self.ask(do="setup", **setup)

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"bench: a worker ended while it did {question['do']}")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"bench: {question['do']}: {answer['error']}")
        return answer["said"]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


Samples = dict[tuple[str, str, str], list[int]]  # who, what, size: nanoseconds


class Side:
    """One of the two, with its processes."""

    def __init__(self, workers: dict[str, Worker]) -> None:
        self.workers = workers
        self.samples: Samples = {}
        self._number = 0

    def _note(self, who: str, what: str, size: str, said: list[int]) -> None:
        self.samples.setdefault((who, what, size), []).extend(said[WARM_UP:])

    def turn(self, size: str) -> None:
        """Puts, gets and removes objects of one size."""
        size_bytes, runs = SIZES[size]
        keys = self._keys(runs)
        self._note("producer", "put", size, self._tell("producer", "put", keys, [size_bytes]))
        for who in ("local", "remote"):
            self._note(who, "get", size, self._tell(who, "get", keys, [size_bytes]))
        self._tell("producer", "remove", keys, [size_bytes])

    def sample_turn(self) -> None:
        """The same for samples of four tensors."""
        keys = self._keys(SAMPLE_RUNS)
        put = self._tell("producer", "sample_put", keys, SAMPLE)
        self._note("producer", "sample_put", "sample", put)
        self._note("remote", "sample_get", "sample", self._tell("remote", "sample_get", keys, SAMPLE))
        self._tell("producer", "remove", keys, SAMPLE)

    def _keys(self, runs: int) -> list[str]:
        self._number += 1
        return [f"run0/s{self._number}-{i}/g1/hidden_state" for i in range(runs + WARM_UP)]

    def _tell(self, who: str, what: str, keys: list[str], sizes: Any) -> list[int]:
        said: list[int] = self.workers[who].ask(do=what, keys=keys, sizes=list(sizes))
        return said


def start_ours(python: Path, folder: Path) -> tuple[Side, list[Any]]:
    brokers = start_pair(folder, STORE)
    for broker in brokers:  # Mooncake's segments are touched when they are registered
        wait_until(lambda: is_touched(broker.ctl("stores", "--json")), "the arenas are touched", 120)
    packages = os.pathsep.join(
        (str(ROOT / os.environ.get("BUILD", "build") / "python"), str(ROOT / "libclient/python/mooncake_dropin"))
    )
    workers = {}
    for who, broker in (("producer", brokers[0]), ("local", brokers[0]), ("remote", brokers[1])):
        environment = {**os.environ, "PYTHONPATH": packages, "FEATURED_SOCKET": broker.socket_path}
        setup = {"segment": SEGMENT, "metadata": "P2PHANDSHAKE", "master": "127.0.0.1:1"}
        workers[who] = Worker(python, environment, setup)
    return Side(workers), list(brokers)


def is_touched(stores: str) -> bool:
    store = json.loads(stores.splitlines()[0])
    return bool(store["prefaulted_bytes"] == store["arena_bytes"])


def start_theirs(python: Path, folder: Path) -> tuple[Side, Any]:
    rpc, http, metrics = free_port(), free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "master.log").open("wb") as log:
        master = subprocess.Popen(
            [str(python.parent / "mooncake_master"), "--enable_http_metadata_server=true",
             "--http_metadata_server_host=127.0.0.1", f"--rpc_port={rpc}",
             f"--http_metadata_server_port={http}", f"--metrics_port={metrics}"],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    for port in (rpc, http):
        end = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if time.monotonic() > end or master.poll() is not None:
                raise SystemExit("bench: Mooncake's master does not start")
            time.sleep(0.05)
    workers = {}
    for who in ("producer", "local", "remote"):
        setup = {
            "segment": SEGMENT if who == "producer" else 0,
            "metadata": f"http://127.0.0.1:{http}/metadata",
            "master": f"127.0.0.1:{rpc}",
        }
        workers[who] = Worker(python, environment, setup)
    return Side(workers), master


def write_figures(ours: Samples, theirs: Samples, memcpy: list[Any], out: Path) -> None:
    lines = []
    for name, who, what, size in FIGURES:
        value, limit = (statistics.median(samples[who, what, size]) / 1000 for samples in (ours, theirs))
        lines.append((name, value, "us", limit, limit / value))
    for name, value, limit in memcpy:
        lines.append((name, value, "GB/s", limit, value / limit))
    with out.open("w") as file:
        for name, value, unit, limit, ratio in lines:
            figure = {"figure": name, "value": _round(value), "unit": unit, "limit": _round(limit)}
            file.write(json.dumps({**figure, "ratio": _round(ratio)}, separators=(",", ":")) + "\n")
            print(f"{name:28} {value:10.4g} {unit:5} {limit:10.4g} {ratio:8.3f}")


def _round(value: float) -> float:
    return float(f"{value:.5g}")


def measure(python: Path, rounds: int, memcpy: dict[str, list[list[float]]]) -> tuple[Samples, Samples]:
    """Starts everything, and ends it after one round that does not count and so many that do.

    In the first round each process touches the pages of the arena for the first time."""
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    ours, brokers = start_ours(python, folder)
    theirs, master = start_theirs(python, folder)
    try:
        for number in range(rounds + 1):
            order = (ours, theirs) if number % 2 else (theirs, ours)
            for size in SIZES:
                for side in order:
                    side.turn(size)
            for side in order:
                side.sample_turn()
            copied = ours.workers["producer"].ask(do="memcpy", bytes=16 * MIB)
            if not number:
                ours.samples.clear()
                theirs.samples.clear()
                continue
            for what, rates in copied.items():
                memcpy[what].append(rates)
    finally:
        for side in (ours, theirs):
            for worker in side.workers.values():
                worker.end()
        master.terminate()
        master.wait()
        for broker in brokers:
            broker.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return ours.samples, theirs.samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--venv", type=Path, required=True, help="where Mooncake's wheel is installed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12, help="in all")
    parser.add_argument("--starts", type=int, default=4)
    arguments = parser.parse_args()
    python = arguments.venv.absolute() / "bin" / "python"
    memcpy: dict[str, list[list[float]]] = {"put": [], "get": []}
    both: tuple[Samples, Samples] = ({}, {})
    starts = min(arguments.starts, arguments.rounds)
    for start in range(starts):
        rounds = arguments.rounds * (start + 1) // starts - arguments.rounds * start // starts
        for samples, more in zip(both, measure(python, rounds, memcpy)):
            for which, took in more.items():
                samples.setdefault(which, []).extend(took)
    over_memcpy = [
        (f"dropin_{what}_16MiB", *(statistics.median(pair[i] for pair in rates) for i in (0, 1)))
        for what, rates in memcpy.items()
    ]
    write_figures(*both, over_memcpy, arguments.out)


if __name__ == "__main__":
    main()
