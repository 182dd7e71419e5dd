# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin for SpecForge's own tests: the in-memory fakes of its Mooncake store become the drop-in.

    cd SPECFORGE; python -m pytest -p mooncake_fake tests/test_runtime/test_mooncake_store.py ...

Those tests look into the fakes: `_d` is a dict of keys and bytes, some attributes count calls or make
removes fail. All of that is here, over a real broker; the bytes lie nowhere else.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import feature_broker as fb

import mooncake_world  # noqa: F401  (puts the drop-in where it is found)
from mooncake import _inventory
from mooncake.store import MooncakeDistributedStore

FAKES = (
    "tests.test_runtime.test_mooncake_store",
    "tests.test_runtime.test_server_capture",
)
NAMES = {
    "MOONCAKE_LOCAL_HOSTNAME": "127.0.0.1",
    "MOONCAKE_METADATA_SERVER": "P2PHANDSHAKE",
    "MOONCAKE_MASTER_SERVER_ADDR": mooncake_world.MASTER_NOWHERE,
}
_brokers: list[Any] = []


class Contents(MutableMapping[str, bytes]):
    """What the broker holds, as a dict."""

    def __init__(self, store: MooncakeDistributedStore) -> None:
        self._store = store

    def __getitem__(self, key: str) -> bytes:
        if key not in self:
            raise KeyError(key)
        return self._store.get(key)

    def __setitem__(self, key: str, value: bytes) -> None:
        MooncakeDistributedStore.remove(self._store, key)
        assert self._store.put(key, value) == 0

    def __delitem__(self, key: str) -> None:
        if MooncakeDistributedStore.remove(self._store, key) != 0:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, str)
        return MooncakeDistributedStore.is_exist(self._store, key) == 1

    def __iter__(self) -> Iterator[str]:
        objects, connection = self._store._objects, self._store._connection
        assert objects is not None and connection is not None
        return iter(_inventory.keys(objects, connection))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __eq__(self, other: object) -> bool:
        return dict(self) == other


class Fake(MooncakeDistributedStore):
    """The drop-in, with what the tests look at."""

    def __init__(self) -> None:
        super().__init__()
        assert self.setup("127.0.0.1", "P2PHANDSHAKE", 256 << 20, 64 << 20) == 0
        self.remove_all()
        self._d = Contents(self)
        self.last_config: Any = None
        self.fail_remove = self.lease_defer = False
        self.put_calls = self.remove_calls = 0

    def put_from(self, key: str, buffer_ptr: int, size: int, config: Any = None) -> int:
        self.last_config = config
        self.put_calls += 1
        return super().put_from(key, buffer_ptr, size, config)

    def remove(self, key: str, force: bool = False) -> int:
        self.remove_calls += 1
        if self.fail_remove:
            return -1
        return 0 if self.lease_defer else super().remove(key, force)


def pytest_configure(config: Any) -> None:
    broker = fb.serve(arena_bytes=1 << 30)
    _brokers.append(broker)
    os.environ["FEATURED_SOCKET"] = broker.socket_path
    os.environ.update(NAMES)
    for name in FAKES:
        setattr(importlib.import_module(name), "_FakeMooncakeStore", Fake)


def pytest_unconfigure(config: Any) -> None:
    for broker in _brokers:
        broker.close()
