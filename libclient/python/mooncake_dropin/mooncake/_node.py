# SPDX-License-Identifier: Apache-2.0
"""How setup() finds the broker of this node, or comes by one.

In this order:
 1. FEATURED_SOCKET names it.
 2. The system's broker runs (/run/featured/featured.sock).
 3. mooncake_master says where the broker of its node is, and that socket is here: the same node.
 4. Another setup on this node has started one for this master.
 5. One is started, and joins the cluster of that master (_agent.py).

The first who needs it creates the store "mooncake" (policy retain) there.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import feature_broker as fb

from . import _cluster
from ._agent import LOOPBACK
from ._broker import SOCKET, START_S, answers
from .master import SYSTEM_SOCKET

logger = logging.getLogger("mooncake")

STORE = "mooncake"
PAGE = 4096
# For a process that brings no memory of its own and is the first on its node.
SEGMENT_BYTES = 1 << 30
BUFFER_BYTES = 1 << 30
# Of an object that is read from another node a copy lies in the buffer until it has been read; Mooncake
# uses its own for other things, so programs that give little may still read what is large.
BUFFER_BYTES_MIN = 64 << 20
PUT_WAIT_S = 30.0


class Connection:
    """A client and the store, and what belongs to them."""

    def __init__(self, client: fb.Client, store: fb.Store, node: str) -> None:
        self.client = client
        self.store = store
        self.node = node

    def close(self) -> None:
        """Ends the session."""
        self.client.close()


def put_wait_ms() -> int:
    """How long a put waits for room: FEATURED_PUT_WAIT_S, else 30 s. Programs that wait themselves
    (300 s) ask again after that."""
    given = os.environ.get("FEATURED_PUT_WAIT_S")
    try:
        return max(0, int(float(given) * 1000)) if given else int(PUT_WAIT_S * 1000)
    except (ValueError, OverflowError):
        logger.warning("FEATURED_PUT_WAIT_S=%r is no number of seconds", given)
        return int(PUT_WAIT_S * 1000)


def connect(
    local_hostname: str,
    metadata_server: str,
    master_server_addr: str,
    segment_bytes: int,
    buffer_bytes: int,
) -> Connection:
    """See MooncakeDistributedStore.setup(). Raises FeatureError; ValueError for a bad argument."""
    if segment_bytes < 0 or buffer_bytes < 0:
        raise ValueError("global_segment_size and local_buffer_size must not be negative")
    path = find(local_hostname, metadata_server, master_server_addr)
    client = fb.connect(path, client_name=f"mooncake {os.getpid()}")
    try:
        node = client.health().node
        store = open_store(client, segment_bytes, buffer_bytes)
    except fb.FeatureError:
        client.close()
        raise
    return Connection(client, store, node)


# ---- the store ----


def open_store(client: fb.Client, segment_bytes: int, buffer_bytes: int) -> fb.Store:
    """Opens it, and creates it where this is the first."""
    try:
        return client.store(STORE)
    except fb.NotFound:
        pass
    limit = client.health().max_resident_bytes // PAGE * PAGE
    wanted = segment_bytes or _environment_bytes() or SEGMENT_BYTES
    size = max(PAGE, min(wanted, limit) // PAGE * PAGE)
    if segment_bytes and size < segment_bytes // PAGE * PAGE:
        logger.warning(
            "global_segment_size %d is more than the %d bytes that the broker of this node may hold; "
            "it is cut to that", segment_bytes, limit
        )  # fmt: skip
    landing = max(BUFFER_BYTES_MIN, buffer_bytes or BUFFER_BYTES) // PAGE * PAGE
    try:
        client.create_store(STORE, policy="retain", max_resident_bytes=size, landing_bytes=landing)
    except fb.Exists:  # somebody else was faster
        pass
    except fb.Denied as error:
        raise fb.Denied(
            f"the broker of this node has no store {STORE}, and this user may not create one: ask its "
            f"administrator for a section [store {STORE}] with policy = retain ({error.sentence})"
        ) from None
    return client.store(STORE)


def _environment_bytes() -> int:
    """The size that the launcher has meant for this node, where this process brings none."""
    text = os.environ.get("MOONCAKE_GLOBAL_SEGMENT_SIZE", "")
    return int(text) if text.isdigit() else 0


# ---- the broker ----


def find(local_hostname: str, metadata_server: str, master_server_addr: str) -> str:
    """The path of the socket of this node's broker, which answers. Raises Unavailable."""
    given = os.environ.get("FEATURED_SOCKET")
    if given:
        return given
    if answers(SYSTEM_SOCKET):
        return SYSTEM_SOCKET
    name = _cluster.node_name()
    place = Place(name, master_server_addr)
    if answers(place.socket_path):
        return place.socket_path
    address, where = _ask_master(name, metadata_server, master_server_addr)
    socket_path = str(where.get("socket", ""))
    if where.get("node") == name and answers(socket_path):
        return socket_path
    if not where.get("joinable"):
        raise fb.Unavailable(f"no featured broker runs on this node, and {where.get('why')}")
    return place.start(name, _outer_host(local_hostname), address)


def _ask_master(
    name: str, metadata_server: str, master_server_addr: str
) -> tuple[str, dict[str, object]]:
    """Its address, and what it says. Its metadata server's port answers too."""
    addresses = [master_server_addr]
    if metadata_server.startswith("http://"):
        addresses.append(urlsplit(metadata_server).netloc)
    reasons = []
    for address in addresses:
        try:
            return address, _cluster.ask(address, "where", {"node": name})
        except _cluster.NoAnswer as error:
            reasons.append(str(error))
    raise fb.Unavailable(
        f"no featured broker runs on this node, and no mooncake_master answers ({'; '.join(reasons)}): "
        f"start mooncake_master at {master_server_addr}, or featured here"
    )


def _outer_host(local_hostname: str) -> str:
    """Where other nodes find this one; "" leaves it to the master to see."""
    try:
        host = _cluster.split_address(local_hostname, 0)[0]
    except ValueError:
        return ""
    return "" if host in LOOPBACK or host == "0.0.0.0" else host


class Place:
    """The folder of a broker that setups of this node share, for one master and one user."""

    def __init__(self, name: str, master: str) -> None:
        mark = hashlib.blake2b(master.encode(), digest_size=4).hexdigest()
        base = tempfile.gettempdir()
        if len(base) > 30:  # the path of a socket has at most 107 bytes
            base = "/tmp"
        self.folder = Path(base, f"mooncake-{os.getuid()}-{name[:32]}-{mark}")
        self.socket_path = str(self.folder / "run" / SOCKET)
        self._said = self.folder / "agent.log"

    def start(self, name: str, host: str, master: str) -> str:
        """Starts the agent, unless another setup has just done so; waits for its broker."""
        self._make_folder()
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if answers(self.socket_path):
                return self.socket_path
            process = self._spawn(name, host, master)
            end = time.monotonic() + START_S
            while not answers(self.socket_path):
                if process.poll() is not None or time.monotonic() > end:
                    process.kill()
                    process.wait()
                    raise fb.Unavailable(
                        f"no featured broker runs on this node, and none can be started: {self._why()}"
                    )
                time.sleep(0.02)
        return self.socket_path

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        facts = self.folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            raise fb.Denied(
                f"{self.folder} is not a folder that only this user may write to: remove it"
            )

    def _spawn(self, name: str, host: str, master: str) -> "subprocess.Popen[bytes]":
        """It gets a session of its own: it goes on when the launcher ends this process's group."""
        with self._said.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "mooncake._agent", str(self.folder), name, host, master],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                cwd="/", env=_agent_environment(),
            )  # fmt: skip

    def _why(self) -> str:
        try:
            lines = self._said.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return lines[-1] if lines else f"it did not answer within {START_S:.0f} s"


def _agent_environment() -> dict[str, str]:
    """The agent finds this package where this process has found it, and uses no GPU."""
    packages = {Path(file).absolute().parents[1] for file in (fb.__file__, __file__)}
    paths = [str(path) for path in sorted(packages)]
    old = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths + ([old] if old else [])),
        "CUDA_VISIBLE_DEVICES": "",
    }
