# SPDX-License-Identifier: Apache-2.0
"""Who keeps a connection and a store open: whoever uses them.

close() in Python only drops a reference. libfeature's handle is closed when the last one is gone:
not while another thread is inside a call with it, and not while a reserved tensor lies in the
store's memory.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from ._errors import Invalid
from ._feature import lib

if TYPE_CHECKING:
    import asyncio

    from ._queue import LoopQueue


class OfThisProcess:
    """What makes no sense in another process, and says so when it is pickled."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} belongs to this process and cannot be pickled or copied: send "
            "refs, and connect in the other process"
        )


class ClientHandle:
    """Owns a connection."""

    __slots__ = ("raw", "counted", "log", "loops", "__weakref__")

    def __init__(self, raw: Any, log: Any) -> None:
        self.counted = lib.binding_client_new(raw)
        if not self.counted:
            raise MemoryError("no memory for a connection")
        self.raw = raw  # struct feature *, for calls
        self.log = log  # what libfeature's log callback finds Python's function by
        # What each event loop gets with.
        self.loops: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopQueue]"
        self.loops = weakref.WeakKeyDictionary()

    def close_loops(self) -> None:
        """Ends the gets of event loops: with Invalid."""
        for queue in list(self.loops.values()):
            queue.close_soon()

    def __del__(self) -> None:
        if self.counted:
            self.close_loops()
            lib.binding_client_unref(self.counted)


class StoreHandle:
    """Owns an open store, and keeps its connection. (The garbage collector may end the ClientHandle
    first, where both are part of one circle: C counts too.)"""

    __slots__ = ("raw", "client", "_counted", "__weakref__")

    def __init__(self, raw: Any, client: ClientHandle) -> None:
        self.raw = raw  # struct feature_store *
        self.client = client
        self._counted = client.counted
        lib.binding_client_ref(self._counted)

    def __del__(self) -> None:
        lib.binding_store_close(self.raw, self._counted)

    def let_go(self, _: Any) -> None:
        """As the destructor of a cffi pointer: it keeps this handle as long as the pointer lives."""


def milliseconds(seconds: float | None, what: str) -> int:
    """A time for libfeature: at least 1 ms unless it is 0; None and what is too long: for ever."""
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
