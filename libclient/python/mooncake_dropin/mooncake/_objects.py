# SPDX-License-Identifier: Apache-2.0
"""Objects by key in one store of featured: each is a sample with one tensor named "value".

The functions here take addresses and give Mooncake's codes. Bytes go once between the caller's
memory and the arena, in C and without the GIL.

What Mooncake promises and a put of featured does not: a put of a key that is live changes nothing.
So a put asks first, or has libfeature ask while it copies. Two puts of one key at the same moment may both find nothing; the later one then
replaces the earlier, and a reader sees the bytes of one or of the other, never a mixture. Threads of
one process do not meet in that gap, for a key's puts take turns.
"""

from __future__ import annotations

import threading
from typing import Any, Sequence

from feature_broker import FeatureError, Store
from feature_broker._feature import ffi, lib
from feature_broker._handles import StoreHandle
from feature_broker._interrupts import raise_interrupt

from . import _codes
from ._keys import Key

NAME = b"value"
U8 = int(lib.FEATURE_DTYPE_U8)
GET_MS = 30_000
_RETURNED = int(lib.FEATURE_RELEASE_RETURNED)
_NOT_FOUND = int(lib.FEATURE_E_NOT_FOUND)
_EXISTS = int(lib.FEATURE_E_EXISTS)
_RESIDENT = int(lib.FEATURE_STATE_RESIDENT)
_KEY_SIZE = int(ffi.sizeof("struct feature_key"))
_INFO_SIZE = int(ffi.sizeof("struct feature_info"))
_ITEM_SIZE = int(ffi.sizeof("struct feature_get_item"))
_TURNS = 64


class Objects:
    """The objects behind one connection. Many threads may use it at once."""

    def __init__(self, handle: StoreHandle, put_ms: int) -> None:
        self.handle = handle
        self.put_ms = put_ms
        self._turns = [threading.Lock() for _ in range(_TURNS)]

    # ---- probes: no lease, nothing is delayed ----

    def stat(self, key: Key) -> tuple[int, Any]:
        """0 and a struct feature_ref * that the caller frees, or a status of libfeature and None."""
        sample_id = ffi.new("char[]", key.sample_id)
        ask = ffi.new("struct feature_key *", (_KEY_SIZE, ffi.NULL, sample_id))
        info = ffi.new("struct feature_info *")
        info.size = _INFO_SIZE
        out = ffi.new("struct feature_ref **")
        status = int(lib.feature_stat(self.handle.raw, ask, info, out))
        if status:
            return status, None
        ref = out[0]
        if not ref:
            return _NOT_FOUND, None
        if info.state != _RESIDENT or not is_meant(ref, key):
            lib.feature_ref_free(ref)
            return _NOT_FOUND, None
        return 0, ref

    def exists(self, key: Key) -> int:
        """A status of libfeature: 0 when it is there."""
        if key.metadata:
            status, ref = self.stat(key)
            if ref is not None:
                lib.feature_ref_free(ref)
            return status
        sample_id = ffi.new("char[]", key.sample_id)
        ask = ffi.new("struct feature_key *", (_KEY_SIZE, ffi.NULL, sample_id))
        return int(lib.feature_exists(self.handle.raw, ask))

    def size(self, key: Key) -> int:
        """Bytes, or a code."""
        status, ref = self.stat(key)
        if ref is None:
            return _codes.of_get(status, "get_size")
        size = int(lib.feature_ref_bytes(ref))
        lib.feature_ref_free(ref)
        return size

    # ---- put ----

    def put(self, key: Key, address: int, size: int) -> int:
        """Copies `size` bytes at `address`; they become the object, at one moment. A code."""
        with self._turns[hash(key.sample_id) % _TURNS]:
            # Two long keys can have one id: only the object's metadata tell whose it is.
            code = self._is_free(key) if key.metadata else 1
            if code <= 0:
                return code
            put = lib.binding_put if key.metadata else lib.binding_put_new
            status = put(
                self.handle.raw, key.sample_id, NAME, (U8, address, size, 1, size), 1,
                ffi.from_buffer(key.metadata), len(key.metadata), self.put_ms, ffi.NULL,
            )  # fmt: skip
        return _codes.of_put(int(status), "put") if status not in (0, _EXISTS) else 0

    def put_tensor(self, key: Key, store: Store, tensor: Any) -> int:
        """Puts anything that feature_broker takes as a tensor, with its dtype and shape. A code."""
        with self._turns[hash(key.sample_id) % _TURNS]:
            code = self._is_free(key)
            if code <= 0:
                return code
            try:
                store.put(
                    key.sample_id.decode(), {NAME.decode(): tensor}, metadata=key.metadata,
                    timeout_s=self.put_ms / 1000,
                )  # fmt: skip
            except FeatureError as error:
                return _codes.of_error(error, "put_tensor")
        return 0

    def _is_free(self, key: Key) -> int:
        """1: a put may go on. 0: the key is live, which is success. Else a code."""
        status = self.exists(key)
        if status == 0:
            return 0
        if status != _NOT_FOUND and _codes.of_get(status, "put") != _codes.OBJECT_NOT_FOUND:
            return _codes.of_put(status, "put")
        if key.metadata and self._is_taken(key):
            return _codes.refuse("put", f"another key has the sample id {key.sample_id!r}")
        return 1

    def _is_taken(self, key: Key) -> bool:
        """Whether another key's object has this id."""
        return self.exists(Key(key.sample_id, b"")) == 0

    def put_many(self, keys: Sequence[Key], addresses: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Puts several with few messages. They wait for room together, not one after the other."""
        codes = [self._is_free(key) for key in keys]
        # Of one key that is given twice the first counts: the second would replace it.
        first: dict[bytes, int] = {}
        for index, key in enumerate(keys):
            if codes[index] > 0 and first.setdefault(key.sample_id, index) != index:
                codes[index] = 0
        wanted = [index for index, code in enumerate(codes) if code > 0]
        if not wanted:
            return codes
        samples = ffi.new("struct binding_sample[]", len(wanted))
        statuses = ffi.new("int[]", len(wanted))
        refs = ffi.new("struct feature_ref *[]", len(wanted))
        names = ffi.new("char[]", NAME)
        keep = []
        for place, index in enumerate(wanted):
            key, size = keys[index], sizes[index]
            sample_id = ffi.new("char[]", key.sample_id)
            numbers = ffi.new("uint64_t[]", (U8, addresses[index], size, 1, size))
            metadata = ffi.from_buffer(key.metadata)
            keep.append((sample_id, numbers, metadata))
            samples[place] = (sample_id, names, numbers, 1, metadata, len(key.metadata))
        lib.binding_put_batch(self.handle.raw, samples, len(wanted), self.put_ms, statuses, refs)
        for place, index in enumerate(wanted):
            codes[index] = _codes.of_put(int(statuses[place]), "batch put")
            if refs[place]:
                lib.feature_ref_free(refs[place])
        return codes

    # ---- get ----

    def lease(self, key: Key) -> tuple[int, Any]:
        """0 and a struct binding_lease * that the caller ends, or a code and None."""
        raw = lib.binding_get(self.handle.raw, ffi.NULL, key.sample_id, GET_MS, 0)
        if not raw:
            return _codes.INTERNAL_ERROR, None
        if raw.status:
            code = _codes.of_get(int(raw.status), "get")
            lib.binding_free(raw)
            return code, None
        return self._only_meant(raw, key)

    def _only_meant(self, raw: Any, key: Key) -> tuple[int, Any]:
        if raw.count == 1 and is_meant(raw.ref, key):
            return 0, raw
        lib.binding_release(raw, _RETURNED)
        return _codes.OBJECT_NOT_FOUND, None

    def lease_many(self, keys: Sequence[Key]) -> list[tuple[int, Any]]:
        """The same for several, which come at the same time. Each is ended by the caller."""
        items = ffi.new("struct feature_get_item[]", len(keys))
        keep = [ffi.new("char[]", key.sample_id) for key in keys]
        for index, sample_id in enumerate(keep):
            items[index].size = _ITEM_SIZE
            items[index].sample_id = sample_id
        lib.binding_get_batch(self.handle.raw, items, len(keys))
        try:
            raise_interrupt()
        except BaseException:
            for index in range(len(keys)):
                lib.feature_release(items[index].view, _RETURNED)
            raise
        found: list[tuple[int, Any]] = []
        for index, key in enumerate(keys):
            if items[index].status:
                found.append((_codes.of_get(int(items[index].status), "batch get"), None))
                continue
            raw = lib.binding_lease_new(items[index].view)
            found.append(self._only_meant(raw, key) if raw else (_codes.INTERNAL_ERROR, None))
        return found

    # ---- remove ----

    def remove(self, key: Key) -> int:
        """Ends the object, wherever it is. 0, -704 when there is none, or a code.

        An abort acts on the home that a ref names. So it is told by ref, which the stat brings from
        whatever node has it; with several nodes that put the same key at the same moment there can
        be more than one.
        """
        removed = False
        while True:
            status, ref = self.stat(key)
            if ref is None:
                code = _codes.of_get(status, "remove")
                return 0 if removed and code == _codes.OBJECT_NOT_FOUND else code
            ask = ffi.new("struct feature_key *", (_KEY_SIZE, ref, ffi.NULL))
            status = int(lib.feature_abort(self.handle.raw, ask, 1, ffi.NULL))
            code = _codes.of_get(status, "remove")
            lib.feature_ref_free(ref)
            if code not in (0, _codes.OBJECT_NOT_FOUND):
                return code
            removed = True


def is_meant(ref: Any, key: Key) -> bool:
    """Whether an object that was found under the key's id is the key's."""
    if not key.metadata:
        return True
    return metadata_of(ref) == key.metadata


def metadata_of(ref: Any) -> bytes:
    """What the object carries beside its bytes."""
    size = ffi.new("size_t *")
    pointer = lib.feature_ref_metadata(ref, size)
    return bytes(ffi.buffer(pointer, size[0])) if size[0] else b""


def copy_out(raw: Any, address: int) -> int:
    """Copies a leased object to an address, which may be a GPU's, and ends the lease. The bytes, or
    a code."""
    size = int(raw.tensors[0].bytes)
    status = int(lib.binding_copy_to_device(raw, (0, address), 1, _RETURNED, 0))
    return _codes.of_get(status, "get_into") if status else size


def end(raw: Any) -> None:
    """Ends a lease."""
    lib.binding_release(raw, _RETURNED)
