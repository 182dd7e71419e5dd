# SPDX-License-Identifier: Apache-2.0
"""The process that setup() starts on a node where no broker runs: it joins, and keeps the broker.

    python -m mooncake._agent FOLDER NODE HOST MASTER

FOLDER: for the broker's files. NODE: the wished name. HOST: where the other nodes find this one; ""
is where the master sees it. MASTER: host:port.

It says every second to the master that the node is there, and tells the broker who the others are.
It outlives the process that started it, as the objects shall. It ends when the master asks nothing
of it any more: when that has not answered for GONE_S or is another one, at SIGTERM, or when the broker
has ended.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from . import _cluster
from ._broker import Broker, Cannot, Peer, free_port
from ._members import GONE_S

ASK_AGAIN_S = 1.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listen_host(master: str) -> str:
    """Where the broker takes connections: on all networks, unless the cluster is this machine."""
    host = _cluster.split_address(master, 0)[0]
    if host in LOOPBACK:
        return "127.0.0.1"
    return "::" if ":" in host else "0.0.0.0"


def run(folder: Path, node: str, host: str, master: str, stop: threading.Event) -> None:
    """Raises Cannot and NoAnswer when there is no broker in the end."""
    where = listen_host(master)
    port = _choose_port(folder, where)
    question = {"node": node, "machine": _cluster.machine(), "host": host, "port": port}
    answer = _cluster.ask(master, "join", question)
    if "error" in answer:
        raise Cannot(str(answer["error"]))
    question["node"] = str(answer["node"])
    broker = Broker(folder, str(answer["node"]), where, port, str(answer["secret"]))
    try:
        broker.start(_peers(answer))
        _follow(broker, question, master, str(answer["secret"]), stop)
    finally:
        broker.stop()


def _choose_port(folder: Path, host: str) -> int:
    """The one that the node had before, if it can: the others know it under that."""
    note = folder / "port"
    try:
        port = int(note.read_text())
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        return port
    except (OSError, ValueError, OverflowError):
        port = free_port(host)
        note.write_text(str(port))
        return port


def _peers(answer: dict[str, Any]) -> tuple[Peer, ...]:
    return tuple(Peer(str(node), str(address)) for node, address in answer["peers"])


def _follow(
    broker: Broker, question: dict[str, Any], master: str, secret: str, stop: threading.Event
) -> None:
    """Until it is over. Another secret is another cluster: the master has been started again, and its
    broker has nothing to do with the one here any more."""
    heard = time.monotonic()
    while not stop.wait(ASK_AGAIN_S):
        if broker.has_ended():
            raise Cannot(f"featured has ended; the end of its log: {broker.last_words()}")
        try:
            answer = _cluster.ask(master, "join", question)
            if str(answer["secret"]) != secret:
                raise Cannot(f"mooncake_master at {master} has been started again")
            broker.know(_peers(answer))
            heard = time.monotonic()
        except (_cluster.NoAnswer, KeyError, ValueError):
            if time.monotonic() - heard > GONE_S:
                return


def main() -> int:
    """The program. 0 after a signal, or when the master has gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    folder, node, host, master = sys.argv[1:5]
    try:
        run(Path(folder), node, host, master, stop)
    except (Cannot, _cluster.NoAnswer) as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
