# SPDX-License-Identifier: Apache-2.0
"""Gets under way: a queue of libfeature with one descriptor, polled or watched by an event loop.

No thread is involved: the broker's answers wait in a socket until somebody looks.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from collections import deque
from typing import Any, Iterable, Iterator, NamedTuple

from ._errors import Invalid, failure
from ._feature import ffi, lib
from ._handles import ClientHandle, StoreHandle
from ._ref import Key, Ref, c_key
from ._view import RETURNED, Lease, ref_of

# Ends that are looked at before the event loop gets to do something else.
_ENDS_PER_TURN = 64
# A signal that arrives after the interpreter has looked for signals and before poll() sleeps wakes
# nobody. The sleep is therefore cut, and the interpreter looks again.
_SIGNAL_LOOK_MS = 500


class Queue:
    """Owns a struct feature_queue *. Used by one thread at a time."""

    def __init__(self, client: ClientHandle) -> None:
        out = ffi.new("struct feature_queue **")
        status = lib.binding_queue_open(client.counted, out)
        if status:
            raise failure(status)
        self._raw = out[0]
        self._client = client.counted
        self._context = ffi.new("uint64_t *")
        self._lease = ffi.new("struct binding_lease **")
        self._next = 0
        self._keys: dict[int, tuple[Key, Any]] = {}  # with their struct feature_request *

    @property
    def fd(self) -> int:
        """Readable when there is something to do. Raises Invalid in a forked child."""
        fd = int(lib.feature_queue_fd(self._raw))
        if fd < 0:
            raise Invalid("these gets were started by the parent of this forked process")
        return fd

    def start(self, store: StoreHandle, key: Key, timeout_ms: int, wait_ms: int) -> int:
        """Starts a get and gives its number, by which `ended` tells of it. Does not block."""
        ref, sample_id = c_key(key)
        number = self._next
        self._next += 1
        out = ffi.new("struct feature_request **")
        status = lib.binding_get_start(
            self._raw, store.raw, ref, sample_id, timeout_ms, wait_ms, number, out
        )
        if status:
            raise failure(status, key)
        self._keys[number] = (key, out[0])
        return number

    def ended(self, most: int) -> Iterator[tuple[int, Lease | Exception]]:
        """The gets that have ended, up to so many. Does not block."""
        for _ in range(most):
            if not lib.binding_queue_next(self._raw, self._context, self._lease):
                return
            number, raw = int(self._context[0]), self._lease[0]
            key, _request = self._keys.pop(number)
            if not raw:
                yield number, MemoryError("no memory for a view")
            elif raw.status:
                error = failure(raw.status, key)
                lib.binding_release(raw, RETURNED)
                yield number, error
            else:
                yield number, Lease(raw)

    def cancel(self, number: int) -> None:
        """Forgets a get. One that has ended already is left as it is."""
        _key, request = self._keys.pop(number, (None, None))
        if request is not None:
            lib.feature_request_cancel(request)

    def close(self) -> None:
        """Cancels everything. A second call does nothing."""
        raw, self._raw = self._raw, ffi.NULL
        if raw:
            self._keys.clear()
            lib.binding_queue_close(raw, self._client)

    def __del__(self) -> None:
        if hasattr(self, "_next"):
            self.close()


class Got(NamedTuple):
    """A get of many that has ended well."""

    key: Key
    lease: Lease


def full_ref(got: Got) -> Ref:
    """The ref of what was got: the key, where that is a ref with specs."""
    key = got.key
    return key if isinstance(key, Ref) and key.tensors else ref_of(got.lease.raw)


def get_ahead(
    store: StoreHandle,
    keys: Iterable[Key],
    window: int,
    ordered: bool,
    timeout_ms: int,
    wait_ms: int,
) -> Iterator[Got]:
    """Gets keys, of which up to `window` are under way or there already at a time. Blocks in
    poll(), which a signal (Ctrl-C) interrupts; one that comes just before the sleep begins is seen
    _SIGNAL_LOOK_MS later. Raises the first failure that it comes to."""
    queue = Queue(store.client)
    ends: dict[int, Lease | Exception] = {}
    try:
        waiting: deque[tuple[int, Key]] = deque()
        upcoming = iter(keys)
        poll = select.poll()
        poll.register(queue.fd, select.POLLIN)
        while True:
            while len(waiting) < window:
                for key in upcoming:
                    waiting.append((queue.start(store, key, timeout_ms, wait_ms), key))
                    break
                else:
                    break
            if not waiting:
                return
            place = _find_ended(waiting, ends, ordered)
            if place is None:
                before = len(ends)
                ends.update(queue.ended(window))
                if len(ends) == before:
                    queue.fd  # in a forked child it is closed
                    poll.poll(_SIGNAL_LOOK_MS)
                continue
            number, key = waiting[place]
            del waiting[place]
            end = ends.pop(number)
            if isinstance(end, Exception):
                raise end
            yield Got(key, end)
            del end
    finally:
        queue.close()
        ends.clear()  # an exception keeps this frame


def _find_ended(
    waiting: "deque[tuple[int, Key]]", ends: dict[int, Lease | Exception], ordered: bool
) -> int | None:
    """The place of the one to be given next: the first in line, or whichever has ended."""
    if ordered:
        return 0 if waiting[0][0] in ends else None
    for place, (number, _) in enumerate(waiting):
        if number in ends:
            return place
    return None


class LoopQueue(Queue):
    """The gets of one event loop. Everything here runs in the loop's thread."""

    def __init__(self, client: ClientHandle, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(client)
        self._loop = weakref.ref(loop)
        self._futures: dict[int, asyncio.Future[Lease]] = {}
        loop.add_reader(self.fd, self._on_readable)

    @classmethod
    def of(cls, client: ClientHandle, loop: asyncio.AbstractEventLoop) -> "LoopQueue":
        """The queue of this loop, made when it is wanted first."""
        queue = client.loops.get(loop)
        if queue is None:
            queue = client.loops[loop] = cls(client, loop)
        return queue

    def get(
        self, store: StoreHandle, key: Key, timeout_ms: int, wait_ms: int
    ) -> "tuple[int, asyncio.Future[Lease]]":
        """Starts a get: its number, and what comes of it."""
        number = self.start(store, key, timeout_ms, wait_ms)
        future = self._futures[number] = asyncio.get_running_loop().create_future()
        return number, future

    def drop(self, number: int) -> None:
        """Nobody wants that one any more."""
        future = self._futures.pop(number, None)
        if future is not None:
            future.cancel()
        self.cancel(number)

    def _on_readable(self) -> None:
        for number, end in self.ended(_ENDS_PER_TURN):
            future = self._futures.pop(number, None)
            if future is None or future.done():
                continue  # nobody wants it: the lease ends here
            if isinstance(end, Exception):
                future.set_exception(end)
            else:
                future.set_result(end)

    def close_soon(self) -> None:
        """Closes it in the loop's thread; from any thread."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            self.close()
        elif asyncio._get_running_loop() is loop or not loop.is_running():
            self._close_in(loop)
        else:
            loop.call_soon_threadsafe(self._close_in, loop)

    def _close_in(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._raw:
            return
        fd = int(lib.feature_queue_fd(self._raw))
        if fd >= 0:
            loop.remove_reader(fd)
        for future in self._futures.values():
            if not future.done():
                future.set_exception(Invalid("the client was closed"))
        self._futures.clear()
        self.close()
