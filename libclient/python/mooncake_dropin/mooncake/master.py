# SPDX-License-Identifier: Apache-2.0
"""mooncake_master: what launchers start before everything else.

Mooncake's master knows where every object is. With featured each node's broker knows that of its
own, so little is left to do here: see that this node has a broker (the one that runs, or one of its
own), tell other nodes how to join, and answer what launchers ask to see whether it is up:

    rpc_port                        takes TCP connections; nodes join here (_cluster.py)
    http_metadata_server_port       GET /metadata?key=K: 404, or 200 and what was PUT there
    metrics_port                    GET /metrics: bytes and sessions of this node's broker

It stays in the foreground. SIGTERM or SIGINT end it, and a broker of its own, within seconds.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import socketserver
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import feature_broker as fb

from . import _cluster
from ._broker import Broker, Cannot, answers, free_port, join_host
from ._members import Members

SYSTEM_SOCKET = "/run/featured/featured.sock"
BODY_BYTES_MAX = 1 << 20
LOOK_S = 1.0

# Mooncake's own defaults. Everything else that its master takes is accepted and said to be unused.
DEFAULTS = {
    "rpc_port": "50051",
    "rpc_address": "0.0.0.0",
    "enable_http_metadata_server": "false",
    "http_metadata_server_host": "0.0.0.0",
    "http_metadata_server_port": "8080",
    "metrics_port": "9003",
}
_SAME = {"port": "rpc_port"}
_NO = ("false", "0", "no", "off", "f", "n")


class Usage(Exception):
    """What is wrong with the command line."""


def parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options, and the names of those that have no meaning here.

    One or two hyphens; name=value or name value; underscores or hyphens; --flag and --noflag.
    """
    options, unused = dict(DEFAULTS), []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        found = re.fullmatch(r"--?([A-Za-z][\w-]*)(?:=(.*))?", argument, re.DOTALL)
        if not found:
            raise Usage(f"{argument!r} is no option")
        name, value = found[1].replace("-", "_"), found[2]
        name = _SAME.get(name, name)
        if value is None and name.startswith("no") and name[2:] in DEFAULTS:
            name, value = name[2:], "false"
        if value is None:
            value = rest.pop(0) if rest and not rest[0].startswith("-") else "true"
        if name not in DEFAULTS:
            unused.append(name)
        options[name] = value
    for name in DEFAULTS:
        if name.endswith("_port") and not 0 <= _to_port(options[name]) <= 65535:
            raise Usage(f"--{name}={options[name]}: give a number from 0 to 65535")
    return options, unused


def _to_port(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text) else -1


class Node:
    """This node's broker, and who else is in the cluster."""

    def __init__(self, host: str) -> None:
        self.name = _cluster.node_name()
        self.broker: Broker | None = None
        self.secret = ""
        self.members: Members | None = None
        self._folder: Path | None = None
        given = os.environ.get("FEATURED_SOCKET")
        self.socket_path = given or SYSTEM_SOCKET
        if given and not answers(given, 5.0):
            raise Cannot(f"no broker answers at {given}, which FEATURED_SOCKET names: start it")
        if given or answers(SYSTEM_SOCKET):
            return
        self._folder = Path(tempfile.mkdtemp(prefix="mooncake-"))
        self.secret = secrets.token_hex(32)
        self.broker = Broker(self._folder, self.name, host, free_port(host), self.secret)
        self.socket_path = self.broker.socket_path
        address = join_host(host, self.broker.port)
        self.members = Members(self.name, _cluster.machine(), address)
        try:
            self.broker.start()
        except Cannot:
            self.stop()
            raise

    def where(self) -> dict[str, Any]:
        """Answer to `where`."""
        why = (
            f"the broker of node {self.name} has a configuration of its administrator's, which no "
            "program may change: add this node there, and start featured here"
        )
        return {
            "node": self.name,
            "socket": self.socket_path,
            "machine": _cluster.machine(),
            "joinable": self.broker is not None,
            "why": "" if self.broker is not None else why,
        }

    def join(self, question: dict[str, Any], came_from: str, reached_at: str) -> dict[str, Any]:
        """Answer to `join`. came_from, reached_at: both ends of the connection."""
        if self.members is None or self.broker is None:
            return {"error": self.where()["why"]}
        host = str(question.get("host") or came_from)
        address = join_host(host, int(question["port"]))
        node = self.members.join(str(question["node"]), str(question["machine"]), address)
        peers = self.members.peers_of(node, join_host(reached_at, self.broker.port))
        self.look_for_members()
        return {"node": node, "secret": self.secret, "peers": [list(peer) for peer in peers]}

    def look_for_members(self) -> None:
        """The broker here hears who has come and gone."""
        if self.members is not None and self.broker is not None:
            self.broker.know(self.members.peers_of(self.name, ""))

    def stop(self) -> None:
        """Ends a broker of our own."""
        if self.broker is not None:
            self.broker.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Handler(BaseHTTPRequestHandler):
    """Answers on all three ports; each takes every request."""

    server: "Server"
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Launchers ask once a second: nothing is written."""

    def _say(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _key(self) -> str | None:
        asked = urlsplit(self.path)
        if not asked.path.endswith("metadata"):
            return None
        return parse_qs(asked.query, keep_blank_values=True).get("key", [""])[0]

    def _body(self) -> bytes | None:
        size = self.headers.get("Content-Length") or "0"
        if not size.isdigit() or int(size) > BODY_BYTES_MAX:
            self.close_connection = True
            self._say(413, b"too long")
            return None
        return self.rfile.read(int(size))

    def do_GET(self) -> None:  # noqa: N802
        key = self._key()
        if key is not None:
            value = self.server.metadata.get(key)
            self._say(404, b"metadata not found") if value is None else self._say(200, value)
        elif urlsplit(self.path).path in ("/health", "/healthz"):
            self._say(200, b"OK")
        elif urlsplit(self.path).path == "/metrics":
            self._say(200, self.server.metrics())
        else:
            self._say(404, b"there is /metadata?key=, /metrics and /health")

    def do_PUT(self) -> None:  # noqa: N802
        key, body = self._key(), self._body()
        if body is None:
            return
        if key is None:
            return self._say(404, b"there is /metadata?key=")
        self.server.metadata[key] = body
        self._say(200, b"metadata updated")

    def do_DELETE(self) -> None:  # noqa: N802
        key = self._key()
        known = key is not None and self.server.metadata.pop(key, None) is not None
        self._say(200 if known else 404, b"metadata deleted" if known else b"metadata not found")

    def do_POST(self) -> None:  # noqa: N802
        body = self._body()
        if body is None:
            return
        try:
            question = json.loads(body or b"{}")
            if self.path == "/featured/where":
                answer = self.server.node.where()
            elif self.path == "/featured/join":
                reached_at = self.connection.getsockname()[0]
                answer = self.server.node.join(question, self.client_address[0], reached_at)
            else:
                return self._say(404, b"there is /featured/where and /featured/join")
        except (ValueError, KeyError, TypeError) as error:
            return self._say(400, f"bad question: {error}".encode())
        self._say(200, json.dumps(answer).encode(), "application/json")


class Server(ThreadingHTTPServer):
    """One port."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, node: Node, metadata: dict[str, bytes]) -> None:
        self.node = node
        self.metadata = metadata
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Without the look-up of the host's name that HTTPServer makes: it may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def metrics(self) -> bytes:
        """What Prometheus reads."""
        try:
            with fb.connect(self.node.socket_path, timeout_s=2.0) as client:
                health = client.health()
        except fb.FeatureError as error:
            return f"# {error}\nfeatured_up 0\n".encode()
        return (
            f"featured_up 1\nfeatured_resident_bytes {health.resident_bytes}\n"
            f"featured_max_resident_bytes {health.max_resident_bytes}\n"
            f"featured_sessions {health.sessions}\nfeatured_leases {health.leases}\n"
        ).encode()


def serve(options: dict[str, str], stop: threading.Event) -> int:
    """Runs until `stop` is set, or the broker has ended. An exit status."""
    host = options["rpc_address"]
    wants_http = options["enable_http_metadata_server"].lower() not in _NO
    if host == DEFAULTS["rpc_address"] and wants_http:
        host = options["http_metadata_server_host"]  # then that is where the launcher wants us
    node = Node(host)
    metadata: dict[str, bytes] = {}
    ports = {"rpc_port": host, "metrics_port": host}
    if wants_http:
        ports["http_metadata_server_port"] = options["http_metadata_server_host"]
    servers: list[Server] = []
    try:
        for option, where in ports.items():
            try:
                server = Server(where, int(options[option]), node, metadata)
            except OSError as error:
                raise Cannot(f"--{option}={options[option]}: {where}: {error.strerror}") from None
            servers.append(server)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        at = ", ".join(f"{name} {s.server_address[1]}" for name, s in zip(ports, servers))
        print(f"mooncake_master: featured at {node.socket_path}; {at}", flush=True)
        while not stop.wait(LOOK_S):
            if node.broker is not None and node.broker.has_ended():
                raise Cannot(f"featured has ended; the end of its log: {node.broker.last_words()}")
            node.look_for_members()
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        node.stop()
    return 0


def main() -> int:
    """The program. Exit status: 0 after a signal, 1 with a sentence, 2 for a bad command line."""
    if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
        print("usage: mooncake_master [--OPTION=VALUE ...]\n\nOptions and their defaults:")
        print("\n".join(f"  --{name}={value}" for name, value in DEFAULTS.items()))
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        options, unused = parse(sys.argv[1:])
        if unused:
            print(f"mooncake_master: not used here: {', '.join(unused)}", flush=True)
        return serve(options, stop)
    except Usage as error:
        print(f"mooncake_master: {error}", file=sys.stderr)
        return 2
    except (Cannot, OSError) as error:
        print(f"mooncake_master: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
