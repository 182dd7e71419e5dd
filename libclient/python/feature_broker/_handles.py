# SPDX-License-Identifier: Apache-2.0
"""Who keeps a connection and a store open: whoever uses them.

close() in Python only drops a reference. libfeature's handle is closed when the last one is gone:
not while another thread is inside a call with it, and not while a reserved tensor lies in the
store's memory.
"""

from __future__ import annotations

from typing import Any

from ._feature import ffi, lib


class ClientHandle:
    """Owns a struct feature *."""

    __slots__ = ("raw", "log", "__weakref__")

    def __init__(self, raw: Any, log: Any) -> None:
        self.raw = raw
        self.log = log  # what libfeature's log callback finds Python's function by

    def __del__(self) -> None:
        lib.feature_disconnect(self.raw)


class StoreHandle:
    """Owns a struct feature_store *, and keeps its connection: disconnecting would close it."""

    __slots__ = ("raw", "client", "__weakref__")

    def __init__(self, raw: Any, client: ClientHandle) -> None:
        self.raw = raw
        self.client = client

    def __del__(self) -> None:
        lib.feature_store_close(self.raw)

    def let_go(self, _: Any) -> None:
        """As the destructor of a cffi pointer: it keeps this handle as long as the pointer lives."""


def milliseconds(seconds: float | None, what: str) -> int:
    """A time for libfeature: at least 1 ms unless it is 0; None and what is too long: for ever."""
    from ._errors import Invalid

    if seconds is None:
        return 0xFFFFFFFF
    try:
        if seconds > 0:
            return min(max(1, int(seconds * 1000)), 0xFFFFFFFF) if seconds < 4e6 else 0xFFFFFFFF
        if seconds == 0:
            return 0
    except TypeError:
        pass
    raise Invalid(f"{what} is {seconds!r}: give a number of seconds that is not negative, or None")


def c_bytes(value: bytes | None) -> tuple[Any, int]:
    """Bytes for C, and their count; NULL where there are none."""
    return (ffi.NULL, 0) if value is None else (ffi.from_buffer(value), len(value))
