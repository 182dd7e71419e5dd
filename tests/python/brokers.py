# SPDX-License-Identifier: Apache-2.0
"""Real brokers for tests: processes of build/featured with a socket in a folder of their own."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import feature_broker as fb

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("BUILD", "build")).resolve()
FEATURED = BUILD / "featured"
FEATURECTL = BUILD / "featurectl"

# A machine may have other work: what is waited for comes when it comes. Only what never comes fails.
DEADLINE_S = 120.0


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Asks until the condition is true, and gives what it said. Fails after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        said = condition()
        if said:
            return said
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


_ports: list[socket.socket] = []


def full(put: Callable[[], Any]) -> fb.Full:
    """The Full of a put that has waited for room. When the broker is slow to answer (the machine has
    other work) the client may give up first, with Timeout: then it is put once more."""

    def refused() -> fb.Full | None:
        try:
            put()
        except fb.Full as error:
            return error
        except fb.Timeout:
            return None
        raise AssertionError("there was room")

    refusal = wait_until(refused, "the put is refused")
    assert isinstance(refusal, fb.Full)
    return refusal


def free_port() -> int:
    """A TCP port that is free, and stays so for as long as this process lives: the kernel gives it to
    nobody who asks for any port. A program that listens with SO_REUSEADDR, as featured and
    mooncake_master do, can have it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    _ports.append(reserved)
    return int(reserved.getsockname()[1])


# Samples of tests are small; fresh memory is not touched in advance, which would cost each broker
# a second.
STORES = """
[memory]
max_resident_bytes = 512MiB
prefault = off
[stores]
max_resident_bytes = 64MiB
landing_bytes = 64MiB
[store run]
[store ack]
policy = on-ack
[store keep]
policy = retain
[store small]
max_resident_bytes = 1MiB
landing_bytes = 0
"""


class Broker:
    """A featured process: `socket_path`, and connect()."""

    def __init__(self, folder: Path, name: str, config: str = STORES) -> None:
        self.name = name
        self.socket_path = str(folder / f"{name}.sock")
        self._config = folder / f"{name}.conf"
        self._log = folder / f"{name}.log"
        # A [node] and a [local] of the tests' own go in front.
        self._config.write_text(
            f"[node]\nname = {name}\n[local]\nsocket = {self.socket_path}\n{config}"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Broker":
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [FEATURED, "--config", self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, f"broker {self.name} answers; its log: {self.log()}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"broker {self.name} ended: {self.log()}"
        try:
            fb.connect(self.socket_path, timeout_s=1).close()
        except fb.Unavailable:
            return False
        return True

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def connect(self, **options: Any) -> fb.Client:
        return fb.connect(self.socket_path, **{"timeout_s": DEADLINE_S, **options})

    def kill(self) -> None:
        """SIGKILL, and it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def ctl(self, *arguments: str) -> str:
        """What featurectl says."""
        return subprocess.run(
            [FEATURECTL, "--socket", self.socket_path, *arguments],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip


def start_pair(folder: Path, config: str = STORES) -> tuple[Broker, Broker]:
    """Two brokers, a and b, that read from each other over TCP."""
    secret = folder / "cluster.secret"
    secret.write_text(secrets.token_hex(32))
    secret.chmod(0o600)
    ports = {"a": free_port(), "b": free_port()}
    brokers = []
    for name, peer in (("a", "b"), ("b", "a")):
        links = (
            f"[peers]\nlisten = 127.0.0.1:{ports[name]}\ncluster_secret_file = {secret}\n"
            f"[peer {peer}]\naddress = 127.0.0.1:{ports[peer]}\n"
        )
        brokers.append(Broker(folder, name, config + links))
    for broker in brokers:
        broker.start()
    for broker in brokers:
        wait_until(lambda: '"up"' in broker.ctl("nodes", "--json"), "the brokers see each other")
    return brokers[0], brokers[1]


def temporary_folder() -> Iterator[Path]:
    """A folder with a short name: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fb-") as name:
        yield Path(name)
