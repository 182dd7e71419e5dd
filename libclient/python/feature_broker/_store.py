# SPDX-License-Identifier: Apache-2.0
"""A store: puts, gets, acks and probes of samples."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Iterable, Literal, Mapping, Sequence, overload

from . import _sinks
from ._dtypes import parse
from ._errors import FeatureError, Invalid, check_batch, failure, text
from ._feature import ffi, lib
from ._handles import StoreHandle, milliseconds
from ._ref import Key, Ref, _c_string, c_key
from ._reservation import Reservation
from ._sources import Source, describe, join_names, sized, to_numbers
from ._tensor import to_shape
from ._view import CONSUMED, RETURNED, Lease, View, indices_of

# What is not dense goes through memory of its own up to here, and travels in one message; above it
# is copied straight into the arena. The same limit as the broker's inline puts have.
SMALL_BYTES = 64 << 10

_STATES = (
    "never seen", "planned", "sealed", "resident", "retired", "gone", "home lost"
)  # fmt: skip
_NOT_FOUND = (int(lib.FEATURE_E_NOT_FOUND), int(lib.FEATURE_E_LOST))


@dataclass(frozen=True)
class Stat:
    """What the broker knows of a generation."""

    sample_id: str
    generation: int
    state: str
    """"resident" (readable), "retired", "gone", "planned", "sealed", "never seen", "home lost"."""
    reason: str
    """Why it is retired or gone, for example "superseded"; else ""."""
    extent_bytes: int
    """Memory that it takes."""
    age_s: float
    leases: int
    """Reads under way on its home."""
    consumed: int
    """Reads that said consumed."""
    readers: int
    """As many of those as retire it, in a store of policy on-release."""
    landing: bool
    """Whether this is a copy whose home is another node."""
    ref: Ref | None
    """None in lists, and where there is none."""


def _stat_of(info: Any, ref: Ref | None) -> Stat:
    state = int(info.state)
    return Stat(
        sample_id=text(info.sample_id),
        generation=int(info.generation),
        state=_STATES[state] if 0 <= state < len(_STATES) else f"state {state}",
        reason=text(info.reason) if info.reason else "",
        extent_bytes=int(info.extent_bytes),
        age_s=int(info.age_ms) / 1000,
        leases=int(info.leases),
        consumed=int(info.consumed),
        readers=int(info.readers),
        landing=bool(info.landing),
        ref=ref,
    )


class Store:
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
        out = ffi.new("struct feature_ref **")
        status = lib.binding_put(
            handle.raw,
            _c_string(sample_id, "sample id"),
            names,
            to_numbers(sources),
            len(sources),
            _c_metadata(metadata),
            len(metadata),
            milliseconds(timeout_s, "timeout_s"),
            out,
        )
        if status:
            raise failure(status, sample_id)
        return Ref._own(out[0])

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
            batch = _Batch(self._open(), milliseconds(timeout_s, "timeout_s"))
            sources = [_densify(source) for source in sources]
            batch.add(sample_id, join_names(dict.fromkeys(names)), sources, metadata)
            batch.flush()
            if batch.statuses[0]:
                raise failure(batch.statuses[0], sample_id)
            ref = batch.refs[0]
            assert ref is not None
            return ref
        if sum(source.bytes for source in sources) <= SMALL_BYTES:
            dense = {
                name: _sinks.RawFramework().wrap(
                    name, source.code, source.shape, source.bytes, _make_dense(source), False
                )
                for name, source in zip(names, sources)
            }
            return self.put(sample_id, dense, metadata=metadata, timeout_s=timeout_s)
        by_name = dict(zip(names, sources))
        with self._reserve(sample_id, by_name, metadata, timeout_s, "raw") as room:
            for name, source in by_name.items():
                buffer = room.buffer(name)
                if not source.bytes:
                    continue
                if source.fill is not None:
                    source.fill(buffer)
                else:
                    lib.binding_copy(
                        ffi.from_buffer(buffer), ffi.cast("void *", source.address), source.bytes
                    )
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
        batch = _Batch(handle, deadline_ms)
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
        return self._reserve(
            sample_id, sources, metadata, timeout_s, framework or self._framework
        )

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
            _c_string(sample_id, "sample id"),
            join_names(sources),
            to_numbers(list(sources.values())),
            len(sources),
            _c_metadata(metadata),
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
        ref, sample_id = c_key(key)
        raw = lib.binding_get(
            handle.raw,
            ref,
            sample_id,
            milliseconds(timeout_s, "timeout_s") or 1,
            milliseconds(wait_s, "wait_s"),
        )
        return finish_get(raw, key, names, copy, consume, made_by)

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
        many = [keys] if isinstance(keys, (str, Ref)) else list(keys)
        if not many:
            return
        array, keep = _make_keys(many)
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
        array, keep = _make_keys([key])
        status = int(lib.feature_exists(handle.raw, array))
        del keep
        if status and status not in _NOT_FOUND:
            raise failure(status, key)
        return status == 0

    def stat(self, key: Key) -> Stat:
        """What is known of a sample. Takes no lease. Raises NotFound when nothing is."""
        handle = self._open()
        array, keep = _make_keys([key])
        info = ffi.new("struct feature_info *")
        info.size = ffi.sizeof("struct feature_info")
        out = ffi.new("struct feature_ref **")
        status = lib.feature_stat(handle.raw, array, info, out)
        del keep
        if status:
            raise failure(status, key)
        return _stat_of(info, Ref._own(out[0]) if out[0] else None)

    def list(self, prefix: str = "") -> "list[Stat]":
        """The resident samples at home on this node whose id begins with prefix. Takes no lease."""
        handle = self._open()
        out = ffi.new("struct feature_info **")
        count = ffi.new("size_t *")
        status = lib.binding_list(handle.raw, _c_string(prefix, "prefix"), out, count)
        if status:
            raise failure(status)
        try:
            return [_stat_of(out[0][index], None) for index in range(count[0])]
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


def finish_get(
    raw: Any, key: Key, names: Any, copy: bool, consume: bool, made_by: _sinks.Framework
) -> dict[str, Any] | View:
    """From the answer of C to tensors or a view. Owns the answer."""
    if not raw:
        raise MemoryError("no memory for a view")
    if raw.status:
        error = failure(raw.status, key)
        lib.binding_release(raw, RETURNED)
        raise error
    if not copy:
        lease = Lease(raw)
        return View(lease, indices_of(raw, names, key), made_by, consume)
    tensors: dict[str, Any] = {}
    pairs: list[int] = []
    try:
        for name, index in indices_of(raw, names, key):
            of = raw.tensors[index]
            shape = tuple(ffi.unpack(of.shape, of.rank)) if of.rank else ()
            tensors[name], address = made_by.new(name, of.dtype, shape, of.bytes)
            pairs += (index, address)
    except BaseException:
        lib.binding_release(raw, RETURNED)
        raise
    how = CONSUMED if consume else RETURNED
    if made_by.stream is None:
        lib.binding_copy_out(raw, pairs, len(pairs) // 2, how)
        return tensors
    status = lib.binding_copy_to_device(raw, pairs, len(pairs) // 2, how, made_by.stream)
    if status:
        raise failure(status, key)
    return tensors


def _densify(source: Source) -> Source:
    """The same with its bytes in one piece."""
    if source.fill is None:
        return source
    memory = _make_dense(source)
    address = int(ffi.cast("uintptr_t", memory))
    return source._replace(address=address, keep=memory, fill=None)


def _make_dense(source: Source) -> Any:
    """A pointer to the bytes of a source in one piece; copies those that are not."""
    if source.fill is None:
        return ffi.gc(ffi.cast("char *", source.address), _Keep(source))
    memory = ffi.new("char[]", max(source.bytes, 1))
    if source.bytes:
        source.fill(ffi.buffer(memory, source.bytes))
    return memory


def _c_metadata(metadata: bytes) -> Any:
    """Metadata for C."""
    try:
        return ffi.from_buffer(metadata)
    except (TypeError, ValueError):
        raise Invalid(f"metadata is {type(metadata).__name__}: give bytes") from None


class _Keep:
    """As the destructor of a cffi pointer: keeps a source as long as the pointer lives."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __call__(self, _: Any) -> None:
        pass


def _make_keys(keys: Sequence[Key]) -> tuple[Any, Any]:
    """An array of struct feature_key, and what keeps its strings and refs alive."""
    array = ffi.new("struct feature_key[]", len(keys))
    keep: list[Any] = []
    for index, key in enumerate(keys):
        ref, sample_id = c_key(key)
        if sample_id:
            sample_id = ffi.new("char[]", sample_id)
        keep.append((ref, sample_id))
        array[index].size = ffi.sizeof("struct feature_key")
        array[index].ref = ref
        array[index].sample_id = sample_id
    return array, keep


class _Batch:
    """Collects dense samples that go in one call, and what became of all."""

    def __init__(self, handle: StoreHandle, deadline_ms: int) -> None:
        self.keys: list[str] = []
        self.statuses: list[int] = []
        self.refs: list[Ref | None] = []
        self.sentence = ""
        self._handle = handle
        self._deadline_ms = deadline_ms
        self._waiting: list[tuple[str, bytes, list[Source], bytes]] = []

    def add(self, key: str, names: bytes, sources: list[Source], metadata: bytes) -> None:
        self._waiting.append((key, names, sources, metadata))

    def note(self, key: str, status: int, ref: Ref | None, sentence: str) -> None:
        if status and not any(self.statuses):
            self.sentence = sentence
        self.keys.append(key)
        self.statuses.append(status)
        self.refs.append(ref)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        count = len(waiting)
        samples = ffi.new("struct binding_sample[]", count)
        keep: list[Any] = []
        for index, (key, names, sources, metadata) in enumerate(waiting):
            sample = samples[index]
            strings = (
                ffi.new("char[]", _c_string(key, "sample id")),
                ffi.new("char[]", names),
                ffi.new("uint64_t[]", to_numbers(sources)),
                _c_metadata(metadata),
            )
            keep.append(strings)
            sample.sample_id, sample.names, sample.numbers, sample.metadata = strings
            sample.count = len(sources)
            sample.metadata_bytes = len(metadata)
            if any(source.stream is not None for source in sources):
                from ._cuda import find_stream

                sample.cuda_stream = find_stream(sources) or 0
        statuses = ffi.new("int[]", count)
        refs = ffi.new("struct feature_ref *[]", count)
        failed = lib.binding_put_batch(
            self._handle.raw, samples, count, self._deadline_ms, statuses, refs
        )
        sentence = text(lib.feature_last_error()) if failed else ""
        for index, (key, *_) in enumerate(waiting):
            ref = Ref._own(refs[index]) if refs[index] else None
            self.note(key, int(statuses[index]), ref, sentence)
