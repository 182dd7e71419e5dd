# SPDX-License-Identifier: Apache-2.0
"""One process of tests/bench/peers.py: whichever `mooncake.store` it imports, it makes the same calls.

It reads questions from standard input, one JSON object a line, and answers in the same way. Buffers
are there, warm and registered once, before anything is timed: Mooncake wants that.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any, Callable

from mooncake.store import MooncakeDistributedStore, ReplicateConfig

BUFFER_BYTES = 64 << 20
MIB = 1 << 20


class Buffer:
    """Warm memory with an address."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(BUFFER_BYTES + 4096)
        self.address = (ctypes.addressof(self._memory) + 4095) & ~4095
        ctypes.memset(self.address, 1, BUFFER_BYTES)


class Worker:
    def __init__(self) -> None:
        self.store = MooncakeDistributedStore()
        self.config = ReplicateConfig()
        self.config.replica_num = 1
        self.config.with_hard_pin = True
        self.buffer, self.other = Buffer(), Buffer()

    def setup(self, segment: int, metadata: str, master: str) -> None:
        code = self.store.setup("127.0.0.1", metadata, segment, 256 * MIB, "tcp", "", master)
        check(code == 0, f"setup gives {code}")
        self.store.register_buffer(self.buffer.address, BUFFER_BYTES)

    def put(self, keys: list[str], sizes: list[int]) -> list[int]:
        address, (size,) = self.buffer.address, sizes
        ctypes.memmove(address, os.urandom(64), 64)
        return [timed(lambda: self._put(key, address, size)) for key in keys]

    def _put(self, key: str, address: int, size: int) -> None:
        code = self.store.put_from(key, address, size, self.config)
        check(code == 0, f"put_from gives {code}")

    def get(self, keys: list[str], sizes: list[int]) -> list[int]:
        address, (size,) = self.buffer.address, sizes
        return [timed(lambda: self._get(key, address, size)) for key in keys]

    def _get(self, key: str, address: int, size: int) -> None:
        code = self.store.get_into(key, address, size)
        check(code == size, f"get_into gives {code}")

    def sample_put(self, keys: list[str], sizes: list[int]) -> list[int]:
        return [timed(lambda: self._sample_put(key, sizes)) for key in keys]

    def _sample_put(self, key: str, sizes: list[int]) -> None:
        """As MooncakeFeatureStore.put() of SpecForge does it."""
        address = self.buffer.address
        for number, size in enumerate(sizes):
            self.store.register_buffer(address, size)
            self._put(f"{key}{number or ''}", address, size)
            self.store.unregister_buffer(address)
            address += (size + 4095) & ~4095

    def sample_get(self, keys: list[str], sizes: list[int]) -> list[int]:
        return [timed(lambda: self._sample_get(key, sizes)) for key in keys]

    def _sample_get(self, key: str, sizes: list[int]) -> None:
        """As MooncakeFeatureStore.get() of SpecForge does it."""
        address = self.buffer.address
        for number, size in enumerate(sizes):
            check(self.store.is_exist(f"{key}{number or ''}") == 1, "it is not there")
            self.store.register_buffer(address, size)
            self._get(f"{key}{number or ''}", address, size)
            self.store.unregister_buffer(address)
            address += (size + 4095) & ~4095

    def remove(self, keys: list[str], sizes: list[int]) -> list[int]:
        for key in keys:
            for number in range(len(sizes)):
                code = self.store.remove(f"{key}{number or ''}", force=True)
                check(code == 0, f"remove gives {code}")
        return []

    def memcpy(self, bytes: int) -> dict[str, list[float]]:  # noqa: A002
        """GB/s of put_from and of get_into, each with that of memcpy between two warm buffers.

        Each of the three has buffers of its own, so that none finds in the cache what another has
        just read."""
        copies, puts, gets = [], [], []
        source, target = self.buffer.address, self.other.address
        third, fourth = source + BUFFER_BYTES // 2, target + BUFFER_BYTES // 2
        for number in range(8):
            copies.append(timed(lambda: ctypes.memmove(fourth, third, bytes)))
            puts.append(timed(lambda: self._put("memcpy", source, bytes)))
            gets.append(timed(lambda: self._get("memcpy", target, bytes)))
            check(self.store.remove("memcpy", force=True) == 0, "remove")
        rates = [bytes / sorted(times[2:])[len(times[2:]) // 2] for times in (puts, gets, copies)]
        return {"put": [rates[0], rates[2]], "get": [rates[1], rates[2]]}


def timed(call: Callable[[], Any]) -> int:
    began = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - began


def check(good: bool, what: str) -> None:
    if not good:
        raise RuntimeError(what)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    worker = Worker()
    for line in sys.stdin:
        question = json.loads(line)
        do = question.pop("do")
        try:
            answer = {"said": getattr(worker, do)(**question)}
        except Exception as error:  # noqa: BLE001
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    worker.store.close()


if __name__ == "__main__":
    main()
