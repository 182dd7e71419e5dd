# SPDX-License-Identifier: Apache-2.0
"""What nodes and mooncake_master say to each other: JSON over HTTP, on the master's rpc_port.

    POST /featured/where  {"node": N}
        -> {"node": M, "socket": PATH, "machine": ID, "joinable": bool, "why": SENTENCE}
    POST /featured/join   {"node": N, "machine": ID, "host": H or "", "port": P}
        -> {"node": N', "secret": S, "peers": [[node, address], ...]}

`where` changes nothing. `join` makes the caller a member (N' is N unless another machine has that
name), and is repeated every second: so members that come later become known to all. A host "" means:
the address that the request comes from. Whoever can reach the port belongs to the cluster, as with
Mooncake.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

ASK_S = 5.0
_BAD = re.compile(r"[^A-Za-z0-9._-]")


class NoAnswer(Exception):
    """Nobody answers at the address, or not what was to be expected."""


def node_name() -> str:
    """FEATURED_NODE, else the host name, in the characters that a node's name may have."""
    name = _BAD.sub("-", os.environ.get("FEATURED_NODE") or socket.gethostname())[:48]
    return name.lstrip(".-") or "node"


def machine() -> str:
    """Tells nodes of one name on two machines apart."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """host, host:port, [IPv6]:port. Raises ValueError."""
    found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\s]+))(?::(\d{1,5}))?", address.strip())
    if not found:
        raise ValueError(f"{address!r} is no address: give host:port")
    return found[1] or found[2], int(found[3] or default_port)


def ask(address: str, what: str, question: dict[str, Any], timeout_s: float = ASK_S) -> dict[str, Any]:
    """The master's answer. Raises NoAnswer, and ValueError for a bad address."""
    host, port = split_address(address, 50051)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("POST", f"/featured/{what}", json.dumps(question))
        response = connection.getresponse()
        said = response.read(1 << 20)
        if response.status != 200:
            raise NoAnswer(f"{address} says {response.status} {response.reason}")
        answer = json.loads(said)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{address}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise NoAnswer(f"{address} is no mooncake_master of featured")
    return answer
