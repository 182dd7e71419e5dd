# SPDX-License-Identifier: Apache-2.0
"""mooncake.store over featured: MooncakeDistributedStore, ReplicateConfig, BufferHandle.

A program that was written for the Mooncake store runs unchanged. What it puts is owned by the
featured broker of its node, not by the process: the process may end, and the object can still be
read. See docs/mooncake.md for what else differs.

Every function here returns what Mooncake's returns, and takes the same arguments by position and by
keyword. Failures are numbers (see _codes.py); the sentence that explains one goes to the logger
"mooncake". Sizes are in bytes, and addresses are plain integers. Functions block without the GIL.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Sequence

import feature_broker as fb
from feature_broker import _sinks
from feature_broker._feature import ffi
from feature_broker._tensor import address_of
from feature_broker._view import finish_get

from . import _codes, _inventory, _keys, _node, _objects
from ._codes import INVALID_PARAMS, OBJECT_NOT_FOUND
from ._objects import Objects

__all__ = ["BufferHandle", "MooncakeDistributedStore", "ReplicateConfig"]

_allocate = ffi.new_allocator(should_clear_after_alloc=False)


class ReplicateConfig:
    """How Mooncake should replicate an object. Accepted and kept; featured does not act on it.

    Nothing is ever evicted here, so every object is as safe as a hard-pinned one, and each has
    exactly one home.
    """

    def __init__(
        self,
        replica_num: int = 1,
        with_soft_pin: bool = False,
        with_hard_pin: bool = False,
        preferred_segment: str = "",
    ) -> None:
        self.replica_num = replica_num
        self.with_soft_pin = with_soft_pin
        self.with_hard_pin = with_hard_pin
        self.preferred_segment = preferred_segment
        self.preferred_segments: list[str] = []
        self.prefer_alloc_in_same_node = False

    def __repr__(self) -> str:
        return f"ReplicateConfig({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class BufferHandle:
    """The bytes of one object, in memory of this process that ends with the handle."""

    def __init__(self, memory: Any, size: int) -> None:
        self._memory = memory
        self._size = size

    def ptr(self) -> int:
        """The address of the bytes; good as long as the handle lives."""
        return int(ffi.cast("uintptr_t", self._memory))

    def size(self) -> int:
        """How many bytes."""
        return self._size

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return bytes(ffi.buffer(self._memory, self._size))

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(ffi.buffer(self._memory, self._size))


class MooncakeDistributedStore:
    """A connection to the objects of a cluster. Many threads may use one at once.

    Before setup() and after close() every function fails with -600, or gives what stands for
    "absent" where it does not return numbers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: _node.Connection | None = None
        self._objects: Objects | None = None

    # ---- connection ----

    def setup(
        self,
        local_hostname: str = "localhost",
        metadata_server: str = "P2PHANDSHAKE",
        global_segment_size: int = 16 << 20,
        local_buffer_size: int = 16 << 20,
        protocol: str = "tcp",
        rdma_devices: str = "",
        master_server_addr: str = "127.0.0.1:50051",
        engine: Any = None,
        **others: Any,
    ) -> int:
        """Connects to the broker of this node; starts one where none runs. 0, or a code.

        local_hostname: where other nodes find this one, when a broker is started for it.
        metadata_server: a URL of mooncake_master's, or "P2PHANDSHAKE".
        global_segment_size: bytes for objects on this node. The first setup on a node that gives
            any decides; the others share it. 0: this process brings none.
        local_buffer_size: bytes for objects of other nodes while they are read here; as above.
        protocol, rdma_devices: the broker's configuration decides; they are accepted.
        master_server_addr: host:port of mooncake_master, for a node where no broker runs.

        Blocks until the broker answers, at most half a minute.
        """
        with self._lock:
            if self._objects is not None:
                return 0
            try:
                connection = _node.connect(
                    local_hostname,
                    metadata_server,
                    master_server_addr,
                    int(global_segment_size),
                    int(local_buffer_size),
                )
            except (TypeError, ValueError) as error:
                return _codes.refuse("setup", str(error))
            except fb.FeatureError as error:
                return _codes.of_error(error, "setup")
            self._connection = connection
            self._objects = Objects(connection.store._open(), _node.put_wait_ms())
            return 0

    def close(self) -> int:
        """Ends the connection; objects stay. 0, also the second time."""
        with self._lock:
            connection, self._connection, self._objects = self._connection, None, None
        if connection is not None:
            connection.close()
        return 0

    def health_check(self) -> int:
        """0: the broker of this node answers. Else a code."""
        connection = self._connection
        if connection is None:
            return INVALID_PARAMS
        try:
            connection.client.health()
        except fb.FeatureError as error:
            return _codes.of_error(error, "health_check")
        return 0

    def get_hostname(self) -> str:
        """The name of this node's broker; "" when there is no connection."""
        connection = self._connection
        return connection.node if connection is not None else ""

    def register_buffer(self, buffer_ptr: int, size: int) -> int:
        """0. Nothing needs to be registered: the broker's own memory is, once and for all. So it
        is no mistake either to register something twice, or what overlaps."""
        return 0 if self._objects is not None else INVALID_PARAMS

    def unregister_buffer(self, buffer_ptr: int) -> int:
        """0, also for what was never registered."""
        return 0 if self._objects is not None else INVALID_PARAMS

    def allocate_and_mount_segment(
        self, size: int, protocol: str = "tcp", location: str = ""
    ) -> dict[str, Any]:
        """What Mooncake answers to a program that brings more memory: {"ret", "segment_ids",
        "allocated_size"}. Here the room was decided by the first setup, and stays as it is."""
        connection = self._connection
        if connection is None or not _is_count(size):
            return {"ret": INVALID_PARAMS, "segment_ids": [], "allocated_size": 0}
        return {"ret": 0, "segment_ids": [connection.node], "allocated_size": size}

    # ---- put ----

    def put(self, key: str, value: Any, config: ReplicateConfig | None = None) -> int:
        """Copies a buffer (bytes, memoryview, array) into the store. 0, also when the key is live:
        the old bytes stay. Waits for room; -200 when there was none in time."""
        objects, name = self._objects, _keys.make(key)
        if objects is None or name is None:
            return INVALID_PARAMS
        view = memoryview(value)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        return objects.put(name, address_of(view), view.nbytes)

    def put_from(
        self, key: str, buffer_ptr: int, size: int, config: ReplicateConfig | None = None
    ) -> int:
        """The same from an address. Size 0 puts a real, empty object."""
        objects, name = self._objects, _keys.make(key)
        if objects is None or name is None or not _is_memory(buffer_ptr, size):
            return INVALID_PARAMS
        return objects.put(name, buffer_ptr, size)

    def batch_put_from(
        self,
        keys: Sequence[str],
        buffer_ptrs: Sequence[int],
        sizes: Sequence[int],
        config: ReplicateConfig | None = None,
    ) -> list[int]:
        """put_from() for several, with few messages. A code for each."""
        objects = self._objects
        if objects is None or not len(keys) == len(buffer_ptrs) == len(sizes):
            return [INVALID_PARAMS] * len(keys)
        names = [_keys.make(key) for key in keys]
        good = [
            index
            for index, name in enumerate(names)
            if name is not None and _is_memory(buffer_ptrs[index], sizes[index])
        ]
        codes = [INVALID_PARAMS] * len(keys)
        if good:
            made = objects.put_many(
                [name for index in good if (name := names[index]) is not None],
                [buffer_ptrs[index] for index in good],
                [sizes[index] for index in good],
            )
            for index, code in zip(good, made):
                codes[index] = code
        return codes

    def put_tensor(self, key: str, tensor: Any) -> int:
        """Puts a torch tensor (or a numpy array) with its dtype and shape; get_tensor() gives it
        back. As object of plain bytes it has the tensor's bytes alone, without a header."""
        objects, connection, name = self._objects, self._connection, _keys.make(key)
        if objects is None or connection is None or name is None:
            return INVALID_PARAMS
        return objects.put_tensor(name, connection.store, tensor)

    # ---- get ----

    def get(self, key: str) -> bytes:
        """The bytes; b"" when the object is absent or cannot be read."""
        code, raw = self._lease(key)
        if raw is None:
            return b""
        tensor = raw.tensors[0]
        data = bytes(ffi.buffer(tensor.data, tensor.bytes)) if tensor.bytes else b""
        _objects.end(raw)
        return data

    def get_batch(self, keys: Sequence[str]) -> list[bytes]:
        """get() for several."""
        return [self.get(key) for key in keys]

    def get_into(self, key: str, buffer_ptr: int, size: int) -> int:
        """Copies the object to an address where `size` bytes have room. Its bytes, exactly; -704
        when it is absent, -600 when the room is too small (nothing is written then)."""
        if not _is_memory(buffer_ptr, size):
            return INVALID_PARAMS
        code, raw = self._lease(key)
        return code if raw is None else _copy_fitting(raw, buffer_ptr, size)

    def batch_get_into(
        self, keys: Sequence[str], buffer_ptrs: Sequence[int], sizes: Sequence[int]
    ) -> list[int]:
        """get_into() for several; those of other nodes come at the same time."""
        objects = self._objects
        if objects is None or not len(keys) == len(buffer_ptrs) == len(sizes):
            return [INVALID_PARAMS] * len(keys)
        names = [
            _keys.make(key) if _is_memory(address, size) else None
            for key, address, size in zip(keys, buffer_ptrs, sizes)
        ]
        good = [index for index, name in enumerate(names) if name is not None]
        codes = [INVALID_PARAMS] * len(keys)
        leases = objects.lease_many([name for name in names if name is not None]) if good else []
        for index, (code, raw) in zip(good, leases):
            codes[index] = (
                code if raw is None else _copy_fitting(raw, buffer_ptrs[index], sizes[index])
            )
        return codes

    def get_buffer(self, key: str) -> BufferHandle | None:
        """The object in memory of this process; None when it is absent."""
        return _to_buffer(self._lease(key)[1])

    def batch_get_buffer(self, keys: Sequence[str]) -> list[BufferHandle | None]:
        """get_buffer() for several; those of other nodes come at the same time."""
        objects = self._objects
        if objects is None:
            return [None] * len(keys)
        names = [_keys.make(key) for key in keys]
        leases = iter(objects.lease_many([name for name in names if name is not None]))
        return [None if name is None else _to_buffer(next(leases)[1]) for name in names]

    def get_tensor(self, key: str) -> Any:
        """The torch tensor that put_tensor() put, in memory of its own; None when it is absent.
        What was put as bytes comes as a tensor of uint8."""
        try:
            made_by = _sinks.find("torch")
            code, raw = self._lease(key)
            if raw is None:
                return None
            tensors = finish_get(raw, key, None, True, False, made_by)
        except fb.FeatureError as error:
            _codes.of_error(error, "get_tensor")
            return None
        return tensors[_objects.NAME.decode()]

    def _lease(self, key: str) -> tuple[int, Any]:
        objects, name = self._objects, _keys.make(key)
        if objects is None or name is None:
            return INVALID_PARAMS, None
        return objects.lease(name)

    # ---- probes: no lease is taken, and nothing is delayed ----

    def is_exist(self, key: str) -> int:
        """1 or 0, or a code."""
        objects, name = self._objects, _keys.make(key)
        if objects is None or name is None:
            return INVALID_PARAMS
        return _to_answer(objects.exists(name))

    def batch_is_exist(self, keys: Sequence[str]) -> list[int]:
        """is_exist() for several."""
        return [self.is_exist(key) for key in keys]

    def get_size(self, key: str) -> int:
        """The object's bytes; -704 when it is absent."""
        objects, name = self._objects, _keys.make(key)
        if objects is None or name is None:
            return INVALID_PARAMS
        return objects.size(name)

    # ---- remove ----

    def remove(self, key: str, force: bool = False) -> int:
        """Ends the object, on whatever node it is. 0; -704 when there is none.

        It works at once, and is seen at once everywhere, also while others read: they keep their
        bytes until they have done. So `force` changes nothing.
        """
        objects, name = self._objects, _keys.make(key)
        if objects is None or name is None:
            return INVALID_PARAMS
        return objects.remove(name)

    def batch_remove(self, keys: Sequence[str], force: bool = False) -> list[int]:
        """batch_remove(keys, force=False) -> list[int]: remove() for several, a code for each."""
        return [self.remove(key, force) for key in keys]

    def remove_by_regex(self, regex_pattern: str, force: bool = False) -> int:
        """Ends every object, of all nodes, in whose key the pattern is found. How many, or a code.
        The syntax is that of Python's re."""
        try:
            pattern = re.compile(regex_pattern)
        except (re.error, TypeError) as error:
            return _codes.refuse("remove_by_regex", f"{regex_pattern!r} is no pattern: {error}")
        return self._remove_where(pattern)

    def remove_all(self, force: bool = False) -> int:
        """Ends every object of all nodes. How many, or a code."""
        return self._remove_where(None)

    def _remove_where(self, pattern: re.Pattern[str] | None) -> int:
        objects, connection = self._objects, self._connection
        if objects is None or connection is None:
            return INVALID_PARAMS
        try:
            keys = _inventory.keys(objects, connection)
        except fb.FeatureError as error:
            return _codes.of_error(error, "remove_all")
        wanted = [key for key in keys if pattern is None or pattern.search(key)]
        names = [name for key in wanted if (name := _keys.make(key)) is not None]
        codes = [objects.remove(name) for name in names]
        failed = [code for code in codes if code not in (0, OBJECT_NOT_FOUND)]
        return failed[0] if failed else codes.count(0)


# ---- small parts ----


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_memory(address: Any, size: Any) -> bool:
    """An address with room, as far as one can tell; nothing needs no address."""
    return _is_count(size) and _is_count(address) and (address > 0 or size == 0)


def _to_answer(status: int) -> int:
    if status == 0:
        return 1
    code = _codes.of_get(status, "is_exist")
    return 0 if code == OBJECT_NOT_FOUND else code


def _copy_fitting(raw: Any, address: int, room: int) -> int:
    size = int(raw.tensors[0].bytes)
    if size > room:
        _objects.end(raw)
        return _codes.refuse("get_into", f"the object has {size} bytes, and the buffer {room}")
    return _objects.copy_out(raw, address)


def _to_buffer(raw: Any) -> BufferHandle | None:
    if raw is None:
        return None
    size = int(raw.tensors[0].bytes)
    memory = _allocate("char[]", size or 1)
    _objects.copy_out(raw, int(ffi.cast("uintptr_t", memory)))
    return BufferHandle(memory, size)
