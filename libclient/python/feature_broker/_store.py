# SPDX-License-Identifier: Apache-2.0
"""A store: puts, gets, acks and probes of samples."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from types import TracebackType
from typing import Any, AsyncIterator, Iterable, Iterator, Literal, Mapping, Sequence, overload

from . import _sinks
from ._batch import Batch, c_metadata, densify, make_dense
from ._dtypes import parse
from ._errors import FeatureError, Invalid, check_batch, failure, text
from ._feature import ffi, lib
from ._handles import OfThisProcess, StoreHandle, milliseconds
from ._queue import Got, LoopQueue, full_ref, get_ahead
from ._ref import Key, Ref, c_key, c_string, make_keys
from ._reservation import Reservation
from ._sources import Source, copy_source, describe, join_names, sized, to_numbers
from ._stat import Stat, stat_of
from ._tensor import to_shape
from ._view import Lease, View, finish_get

# What is not dense goes through memory of its own up to here, and travels in one message; above it
# is copied straight into the arena. The same limit as the broker's inline puts have.
SMALL_BYTES = 64 << 10

_NOT_FOUND = (int(lib.FEATURE_E_NOT_FOUND), int(lib.FEATURE_E_LOST))


class Store(OfThisProcess):
    """An open store, from :meth:`Client.store`. Many threads may use one at once.

    The calls that ask the broker block, without the GIL, for a round trip (tens of microseconds)
    and for what their docstring says. Every one raises a :class:`FeatureError`: Invalid for a
    closed store or after fork() in the child, Unavailable while the broker is down (the store
    connects again by itself), and what its docstring names.
    """

    def __init__(self, handle: StoreHandle, name: str, read_only: bool, framework: str) -> None:
        """Users get stores from ``client.store(name)``."""
        self._handle: StoreHandle | None = handle
        self._name = name
        self._read_only = read_only
        self._framework = framework

    @property
    def name(self) -> str:
        """The store's name."""
        return self._name

    @property
    def read_only(self) -> bool:
        """Whether it was opened for gets and acks only."""
        return self._read_only

    @property
    def framework(self) -> str:
        """What gets give: "auto", "numpy", "torch" or "raw"."""
        return self._framework

    def _open(self) -> StoreHandle:
        handle = self._handle
        if handle is None:
            raise Invalid(f"store {self._name} was closed")
        return handle

    # ---- put ----

    def put(
        self,
        sample_id: str,
        tensors: Mapping[str, Any],
        *,
        metadata: bytes = b"",
        timeout_s: float | None = 30.0,
    ) -> Ref:
        """Copies tensors into the store and makes them visible, all at one moment.

        sample_id: 1 to 128 bytes of UTF-8. A second put of an id supersedes the first: no get of
            the older generation succeeds any more, on any node.
        tensors: 1 to 64 names with numpy arrays, torch tensors, :class:`Tensor`, objects with
            DLPack, or buffers (bytes are U8); of any shape up to 8 dimensions, dense or not.
        metadata: opaque bytes; with the names and shapes at most 8 KiB. Readers find them in
            ``ref.metadata``.
        timeout_s: how long to wait, in all, when the store is full; 0: not at all, None: for ever.

        Blocks for the copy, and while the store is full. Raises Full when there was no room in
        time (the sentence says who holds it), Invalid for tensors that cannot be put, Denied for a
        read-only store, Timeout or Unavailable when it is not known whether the sample is visible
        (put it again).
        """
        handle = self._open()
        names, sources = describe(tensors)
        for source in sources:
            if source.fill is not None or source.stream is not None:
                return self._put_filling(sample_id, tensors, sources, metadata, timeout_s)
        ref, out = Ref._later()
        status = lib.binding_put(
            handle.raw,
            c_string(sample_id, "sample id"),
            names,
            to_numbers(sources),
            len(sources),
            c_metadata(metadata),
            len(metadata),
            milliseconds(timeout_s, "timeout_s"),
            out,
        )
        if status:
            raise failure(status, sample_id)
        return ref

    def _put_filling(
        self,
        sample_id: str,
        names: Iterable[str],
        sources: list[Source],
        metadata: bytes,
        timeout_s: float | None,
    ) -> Ref:
        """A put in which something is not dense, or is a GPU's."""
        if any(source.stream is not None for source in sources):
            batch = Batch(self._open(), milliseconds(timeout_s, "timeout_s"))
            dense_sources = [densify(source) for source in sources]
            batch.add(sample_id, join_names(dict.fromkeys(names)), dense_sources, metadata)
            batch.flush()
            ref = batch.refs[0]
            if ref is None:
                raise failure(batch.statuses[0], sample_id)
            return ref
        if sum(source.bytes for source in sources) <= SMALL_BYTES:
            dense = {
                name: _sinks.RawFramework().wrap(
                    name, source.code, source.shape, source.bytes, make_dense(source), False
                )
                for name, source in zip(names, sources)
            }
            return self.put(sample_id, dense, metadata=metadata, timeout_s=timeout_s)
        by_name = dict(zip(names, sources))
        with self._reserve(sample_id, by_name, metadata, timeout_s, "raw") as room:
            for name, source in by_name.items():
                copy_source(source, room.buffer(name))
        return room.ref

    def put_many(
        self,
        samples: Iterable[tuple[str, Mapping[str, Any]]],
        *,
        metadata: bytes | Sequence[bytes] = b"",
        timeout_s: float | None = 30.0,
    ) -> list[Ref]:
        """Puts many samples, small ones with few messages. Returns their refs, in order.

        samples: pairs of sample id and tensors, as in :meth:`put`. Of two with one id the later
            supersedes the earlier.
        metadata: that of each sample, or one for all.
        timeout_s: for all together.

        Each sample stands alone. Raises BatchError when some failed: its `errors` name them, its
        `results` have the refs of the others.
        """
        handle = self._open()
        items = list(samples)
        metas = [metadata] * len(items) if isinstance(metadata, bytes) else list(metadata)
        if len(metas) != len(items):
            raise Invalid(f"put_many: {len(items)} samples with {len(metas)} metadata")
        deadline_ms = milliseconds(timeout_s, "timeout_s")
        described = [(key, tensors, *describe(tensors)) for key, tensors in items]
        batch = Batch(handle, deadline_ms)
        for (key, tensors, names, sources), meta in zip(described, metas):
            if all(source.fill is None for source in sources):
                batch.add(key, names, sources, meta)
                continue
            batch.flush()
            try:
                ref = self._put_filling(key, tensors, sources, meta, timeout_s)
                batch.note(key, 0, ref, "")
            except FeatureError as error:
                batch.note(key, int(getattr(lib, "FEATURE_E_" + error.status)), None, str(error))
        batch.flush()
        check_batch("put", batch.statuses, batch.keys, batch.refs, batch.sentence)
        return [ref for ref in batch.refs if ref is not None]

    def reserve(
        self,
        sample_id: str,
        tensors: Mapping[str, tuple[Any, Sequence[int]]],
        *,
        metadata: bytes = b"",
        timeout_s: float | None = 30.0,
        framework: str | None = None,
    ) -> Reservation:
        """Takes room for a sample, which the caller writes itself: no copy is made.

        tensors: for each name a dtype ("BF16", "float32", numpy's or torch's own) and a shape.
        framework: what the tensors in the reservation are; None: as this store was opened.

        Use it in a ``with`` block::

            with store.reserve("s1", {"hidden": ("BF16", (4096, 8192))}) as room:
                model(..., out=room["hidden"])
            print(room.ref)

        Blocks while the store is full. Raises as :meth:`put` does.
        """
        try:
            sources = {
                name: sized(parse(dtype), to_shape(shape))
                for name, (dtype, shape) in tensors.items()
            }
        except FeatureError:
            raise
        except (TypeError, AttributeError, ValueError):
            raise Invalid(
                "reserve: give for each name a dtype and a shape, as {'h': ('F32', (4, 8))}"
            ) from None
        return self._reserve(sample_id, sources, metadata, timeout_s, framework or self._framework)

    def _reserve(
        self,
        sample_id: str,
        sources: dict[str, Source],
        metadata: bytes,
        timeout_s: float | None,
        framework: str,
    ) -> Reservation:
        handle = self._open()
        made_by = _sinks.find(framework)
        out = ffi.new("struct feature_reservation **")
        status = lib.binding_reserve(
            handle.raw,
            c_string(sample_id, "sample id"),
            join_names(sources),
            to_numbers(list(sources.values())),
            len(sources),
            c_metadata(metadata),
            len(metadata),
            milliseconds(timeout_s, "timeout_s"),
            out,
        )
        if status:
            raise failure(status, sample_id)
        return Reservation(handle, out[0], sample_id, sources, made_by)

    # ---- get ----

    @overload
    def get(
        self,
        key: Key,
        names: Sequence[str] | None = None,
        *,
        copy: Literal[True] = True,
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
        device: Any = None,
    ) -> dict[str, Any]: ...

    @overload
    def get(
        self,
        key: Key,
        names: Sequence[str] | None = None,
        *,
        copy: Literal[False],
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
    ) -> View: ...

    @overload
    def get(
        self,
        key: Key,
        names: Sequence[str] | None = None,
        *,
        copy: bool,
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
        device: Any = None,
    ) -> dict[str, Any] | View: ...

    def get(
        self,
        key: Key,
        names: Sequence[str] | None = None,
        *,
        copy: bool = True,
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
        device: Any = None,
    ) -> dict[str, Any] | View:
        """Reads a sample: a dict of tensors of one's own, or a view.

        key: a :class:`Ref`, a ref's URI, or a sample id (whatever generation is current).
        names: which tensors, in which order; None: all. It is an error if one is not there.
        copy: True gives ``dict[str, tensor]``, and the read is over. False gives a :class:`View`:
            read-only tensors in the broker's memory, which hold a lease.
        consume: whether this read counts towards the store's `readers`, so that an on-release
            sample retires. With a view: at its release, unless that says otherwise.
        wait_s: how long to wait for a sample that is not put yet; None: for ever.
        timeout_s: how long the bytes may stand still on their way here; a transfer that moves is
            not cut off.
        framework: "numpy", "torch", "raw" or "auto"; None: as the store was opened.
            "torch:cuda", "torch:cuda:1" and "torch:pinned" are torch on that device, here and
            wherever a framework is named.
        device: with a copy, where its tensors are: "cuda:1" or a torch.device; "pinned" (host
            memory that CUDA copies from at full speed); or a function ``(name, dtype, shape)``
            that gives objects with ``__cuda_array_interface__``, such as CuPy's. The bytes are there
            when the call returns; they are copied on torch's current stream of that device.

        Blocks for the wait, the transfer from another node, and the copy. Raises NotFound for what
        is retired, superseded, gone or not put, Timeout for what was not put within wait_s or
        stood still for timeout_s, Lost when its node is gone, Corrupt (a checksum did not match,
        twice), Full (no room here for a copy from another node), and Unsupported when the framework
        lacks a dtype; the sample stays readable then.
        """
        if device is None:
            made_by = _sinks.find(framework or self._framework)
        else:
            made_by = _sinks.find_device(device)
        handle = self._open()
        wait_ms = milliseconds(wait_s, "wait_s")
        timeout_ms = milliseconds(timeout_s, "timeout_s") or 1
        if wait_ms:  # perhaps long: in a way that Ctrl-C ends
            for got in get_ahead(handle, [key], 1, True, timeout_ms, wait_ms):
                return finish_get(got.lease.take(), key, names, copy, consume, made_by)
        ref, sample_id = c_key(key)
        raw = lib.binding_get(handle.raw, ref, sample_id, timeout_ms, wait_ms)
        return finish_get(raw, key, names, copy, consume, made_by)

    def get_many(
        self,
        keys: Iterable[Key],
        names: Sequence[str] | None = None,
        *,
        window: int = 8,
        ordered: bool = True,
        copy: bool = True,
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
    ) -> Iterator[tuple[Ref, Any]]:
        """Reads many samples: yields each ref and what :meth:`get` gives for it, while the next
        ones are already on their way.

        keys: taken one by one, as the window moves; may be endless.
        window: how many are under way, or here and not yet yielded, at a time. Each is a lease, and
            where it comes from another node also memory of the store's landing room.
        ordered: yield in the order of keys; False: as they come.
        The rest is as in :meth:`get`.

        Blocks for the next one only. No thread is started. What fails raises, as from `get`, when
        its turn comes; that ends the iteration, and the others are given back.
        """
        made_by = _sinks.find(framework or self._framework)
        handle = self._open()
        if window < 1:
            raise Invalid(f"window is {window}: at least one sample must be under way")
        wait_ms = milliseconds(wait_s, "wait_s")
        timeout_ms = milliseconds(timeout_s, "timeout_s") or 1

        def iterate() -> Iterator[tuple[Ref, Any]]:
            for got in get_ahead(handle, keys, window, ordered, timeout_ms, wait_ms):
                ref = full_ref(got)
                raw = got.lease.take()
                yield ref, finish_get(raw, got.key, names, copy, consume, made_by)

        return iterate()

    # ---- asyncio ----

    async def aget(
        self,
        key: Key,
        names: Sequence[str] | None = None,
        *,
        copy: bool = True,
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
    ) -> Any:
        """:meth:`get` for asyncio. The loop watches one descriptor for all gets of the connection;
        no thread is started, and thousands may be under way. The copy runs in the loop's thread
        (about 0.1 ms for each MiB; none with copy=False)."""
        made_by = _sinks.find(framework or self._framework)
        handle = self._open()
        queue = LoopQueue.of(handle.client, asyncio.get_running_loop())
        number, future = queue.get(
            handle, key, milliseconds(timeout_s, "timeout_s") or 1, milliseconds(wait_s, "wait_s")
        )
        try:
            lease = await future
        except asyncio.CancelledError:
            queue.drop(number)
            raise
        return finish_get(lease.take(), key, names, copy, consume, made_by)

    async def aget_many(
        self,
        keys: Iterable[Key],
        names: Sequence[str] | None = None,
        *,
        window: int = 8,
        ordered: bool = True,
        copy: bool = True,
        consume: bool = False,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
        framework: str | None = None,
    ) -> AsyncIterator[tuple[Ref, Any]]:
        """:meth:`get_many` for asyncio: ``async for ref, tensors in store.aget_many(keys): ...``"""
        made_by = _sinks.find(framework or self._framework)
        handle = self._open()
        if window < 1:
            raise Invalid(f"window is {window}: at least one sample must be under way")
        wait_ms = milliseconds(wait_s, "wait_s")
        timeout_ms = milliseconds(timeout_s, "timeout_s") or 1
        queue = LoopQueue.of(handle.client, asyncio.get_running_loop())
        waiting: deque[tuple[Key, int, asyncio.Future[Lease]]] = deque()
        upcoming = iter(keys)
        try:
            while True:
                for key in itertools.islice(upcoming, window - len(waiting)):
                    waiting.append((key, *queue.get(handle, key, timeout_ms, wait_ms)))
                if not waiting:
                    return
                if ordered:
                    place = 0
                    await asyncio.wait([waiting[0][2]])
                else:
                    await asyncio.wait(
                        [future for _, _, future in waiting], return_when=asyncio.FIRST_COMPLETED
                    )
                    place = next(i for i, (_, _, future) in enumerate(waiting) if future.done())
                key, _, future = waiting[place]
                del waiting[place]
                got = Got(key, future.result())
                ref = full_ref(got)
                yield ref, finish_get(got.lease.take(), key, names, copy, consume, made_by)
                del got, future
        finally:
            while waiting:  # emptied, because an exception keeps this frame
                queue.drop(waiting.pop()[1])

    async def aput(
        self,
        sample_id: str,
        tensors: Mapping[str, Any],
        *,
        metadata: bytes = b"",
        timeout_s: float | None = 30.0,
    ) -> Ref:
        """:meth:`put` for asyncio: runs it in the loop's thread pool, as it copies. When the task is
        cancelled a put that waits for room ends within a second, and nothing was put; one that is
        copying goes on."""
        stop = ffi.new("int *")

        def put() -> Ref:
            lib.binding_stop_by(stop)
            try:
                return self.put(sample_id, tensors, metadata=metadata, timeout_s=timeout_s)
            finally:
                lib.binding_stop_by(ffi.NULL)

        try:
            return await asyncio.get_running_loop().run_in_executor(None, put)
        except asyncio.CancelledError:
            stop[0] = 1
            raise

    # ---- retire ----

    def ack(self, keys: Key | Iterable[Key]) -> None:
        """Retires samples that were used: one key, or many in one message.

        No get of them succeeds afterwards. Harmless for those that are gone or superseded. Where
        the home of a ref cannot be reached the ack is kept and repeated. Raises BatchError when
        some failed (one key: what that one's failure is).
        """
        self._retire("ack", lib.feature_ack, keys)

    def abort(self, keys: Key | Iterable[Key]) -> None:
        """Retires samples that nobody shall read. As :meth:`ack`, but it also asks other nodes for
        a sample id, and raises Unavailable when they cannot be reached. Views of it stay good."""
        self._retire("abort", lib.feature_abort, keys)

    def _retire(self, what: str, call: Any, keys: Key | Iterable[Key]) -> None:
        handle = self._open()
        if isinstance(keys, (str, Ref)):
            many = [keys]
        elif isinstance(keys, Iterable):
            many = list(keys)
        else:
            raise Invalid(f"{what}: {keys!r} is neither a key nor a list of keys")
        if not many:
            return
        array, keep = make_keys(many)
        statuses = ffi.new("int[]", len(many))
        status = call(handle.raw, array, len(many), statuses)
        del keep
        if not status:
            return
        if len(many) == 1:
            raise failure(status, many[0])
        given = [int(one) for one in statuses]
        if not any(given):
            raise failure(status)
        sentence = text(lib.feature_last_error())
        check_batch(what, given, many, [None] * len(many), sentence)

    # ---- probes ----

    def exists(self, key: Key) -> bool:
        """Whether a get would find it now. Takes no lease and delays no free."""
        handle = self._open()
        array, keep = make_keys([key])
        status = int(lib.feature_exists(handle.raw, array))
        del keep
        if status and status not in _NOT_FOUND:
            raise failure(status, key)
        return status == 0

    def stat(self, key: Key) -> Stat:
        """What is known of a sample. Takes no lease. Raises NotFound when nothing is."""
        handle = self._open()
        array, keep = make_keys([key])
        info = ffi.new("struct feature_info *")
        info.size = ffi.sizeof("struct feature_info")
        out = ffi.new("struct feature_ref **")
        status = lib.feature_stat(handle.raw, array, info, out)
        del keep
        if status:
            raise failure(status, key)
        return stat_of(info, Ref._own(out[0]) if out[0] else None)

    def list(self, prefix: str = "") -> "list[Stat]":
        """The resident samples at home on this node whose id begins with prefix. Takes no lease."""
        handle = self._open()
        out = ffi.new("struct feature_info **")
        count = ffi.new("size_t *")
        status = lib.binding_list(handle.raw, c_string(prefix, "prefix"), out, count)
        if status:
            raise failure(status)
        try:
            return [stat_of(out[0][index], None) for index in range(count[0])]
        finally:
            lib.binding_free(out[0])

    def gc(self, max_hold_s: float = 0.0) -> int:
        """Frees samples on this node that nobody reads and that are older than max_hold_s seconds;
        0: the store's own `max_hold`. Returns how many."""
        handle = self._open()
        freed = ffi.new("uint64_t *")
        status = lib.feature_gc(handle.raw, milliseconds(max_hold_s, "max_hold_s"), freed)
        if status:
            raise failure(status)
        return int(freed[0])

    # ---- end ----

    def close(self) -> None:
        """Closes the store. Views and reservations stay good. A second call does nothing."""
        self._handle = None

    def __enter__(self) -> "Store":
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self._name!r}{', closed' if self._handle is None else ''})"
