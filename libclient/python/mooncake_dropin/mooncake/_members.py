# SPDX-License-Identifier: Apache-2.0
"""The members of a cluster, as mooncake_master keeps them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ._broker import Peer

# A node says every second that it is there. Its broker goes on without the master for a while, so
# does its place here: a peer that cannot be reached only makes the others' questions slower.
GONE_S = 60.0
# One that has said so for the last time longer ago than this may have started again at another
# address. Until then, who comes with its name from elsewhere is another node.
SILENT_S = 5.0


@dataclass
class Member:
    """One node."""

    machine: str
    address: str
    seen: float  # time.monotonic()


class Members:
    """Who has joined. Safe for many threads."""

    def __init__(self, own: str, own_machine: str, own_address: str) -> None:
        self._lock = threading.Lock()
        self._own = own
        self._members = {own: Member(own_machine, own_address, float("inf"))}

    def join(self, node: str, machine: str, address: str) -> str:
        """Notes a node, and gives the name that it has here."""
        with self._lock:
            name = self._name_for(node, machine, address)
            self._members[name] = Member(machine, address, time.monotonic())
            return name

    def _name_for(self, node: str, machine: str, address: str) -> str:
        name, number = node, 1
        silent = time.monotonic() - SILENT_S
        while name in self._members:
            known = self._members[name]
            if known.machine == machine and (known.address == address or known.seen < silent):
                return name
            number += 1
            name = f"{node}-{number}"
        return name

    def peers_of(self, node: str, own_address: str) -> tuple[Peer, ...]:
        """All others. own_address: where that node finds this one."""
        limit = time.monotonic() - GONE_S
        with self._lock:
            for name in [n for n, member in self._members.items() if member.seen < limit]:
                del self._members[name]
            return tuple(
                Peer(name, own_address if name == self._own else member.address)
                for name, member in sorted(self._members.items())
                if name != node
            )
