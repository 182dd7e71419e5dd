# SPDX-License-Identifier: Apache-2.0
"""A featured process of our own: started by mooncake_master, and by _agent on the other nodes.

Its files lie in one folder: featured.conf, cluster.secret, featured.log, run/featured.sock. It ends
with the process that has started it (featured --end-with), and its objects with it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import feature_broker as fb
from feature_broker._programs import find_program


START_S = 30.0
STOP_S = 10.0
SOCKET = "featured.sock"


class Peer(NamedTuple):
    """Another node."""

    node: str
    address: str  # host:port of its broker's [peers] listen


class Cannot(Exception):
    """Why there is no broker, in one sentence that says what to do."""


def answers(socket_path: str, timeout_s: float = 0.5) -> bool:
    """Whether a broker answers there."""
    if not os.path.exists(socket_path):
        return False
    try:
        fb.connect(socket_path, timeout_s=timeout_s).close()
    except fb.FeatureError:
        return False
    return True


def free_port(host: str) -> int:
    """A TCP port that is free now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def join_host(host: str, port: int) -> str:
    """host:port; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Broker:
    """The process. `folder` is the caller's, mode 0700; its path is short, for the socket is in it."""

    def __init__(self, folder: Path, node: str, host: str, port: int, secret: str) -> None:
        run = folder / "run"  # the broker removes it at its end
        run.mkdir(mode=0o700, exist_ok=True)
        self.node = node
        self.socket_path = str(run / SOCKET)
        self.log_path = folder / "featured.log"
        self.port = port
        self._host = host
        self._config = folder / "featured.conf"
        self._secret = folder / "cluster.secret"
        self._secret.touch(mode=0o600)
        self._secret.write_text(secret + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self._peers: tuple[Peer, ...] = ()

    def _write_config(self) -> None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        lines = [
            "# Written by mooncake over featured; read again when nodes come.",
            f"[node]\nname = {self.node}",
            f"[local]\nsocket = {self.socket_path}\nsocket_mode = 0600",
            # Nine tenths: Mooncake's segments may be as large. As with them, memory is taken before it
            # is needed, for the first use of fresh memory is slow; it is done in the background.
            f"[memory]\nmax_resident_bytes = {memory // 10 * 9 // 4096 * 4096}\nprefault = on",
            f"[peers]\nlisten = {join_host(self._host, self.port)}",
            f"cluster_secret_file = {self._secret}",
            "[daemon]\ndrain_timeout = 1s",
        ]
        lines += [f"[peer {peer.node}]\naddress = {peer.address}" for peer in self._peers]
        new = self._config.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self._config)

    def start(self, peers: tuple[Peer, ...] = ()) -> None:
        """Starts it, and waits until it answers. Raises Cannot."""
        try:
            program = find_program("featured")
        except fb.Unavailable as error:
            raise Cannot(error.sentence) from None
        self._peers = peers
        self._write_config()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [program, "--config", str(self._config), f"--end-with={os.getpid()}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + START_S
        while not answers(self.socket_path):
            if self._process.poll() is not None or time.monotonic() > end:
                raise Cannot(f"featured does not start; the end of its log: {self.last_words()}")
            time.sleep(0.02)

    def know(self, peers: tuple[Peer, ...]) -> None:
        """Tells the broker which other nodes there are."""
        if peers == self._peers or self._process is None:
            return
        self._peers = peers
        self._write_config()
        self._process.send_signal(signal.SIGHUP)

    def last_words(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return " / ".join(lines[-3:])

    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL. It is gone when this returns."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
