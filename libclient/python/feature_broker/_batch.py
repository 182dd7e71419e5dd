# SPDX-License-Identifier: Apache-2.0
"""Many puts in one call, and sources that are made dense first."""

from __future__ import annotations

from typing import Any

from ._errors import Invalid, text
from ._feature import ffi, lib
from ._handles import StoreHandle
from ._interrupts import raise_interrupt
from ._ref import Ref, c_string
from ._sources import Source, copy_source, to_numbers


def c_metadata(metadata: bytes) -> Any:
    """Metadata for C."""
    try:
        return ffi.from_buffer(metadata)
    except (TypeError, ValueError):
        raise Invalid(f"metadata is {type(metadata).__name__}: give bytes") from None


def make_dense(source: Source) -> Any:
    """A pointer to the bytes of a source in one piece; copies those that are not."""
    if source.fill is None:
        return ffi.gc(ffi.cast("char *", source.address), _Keep(source))
    memory = ffi.new("char[]", max(source.bytes, 1))
    copy_source(source, ffi.buffer(memory, source.bytes))
    return memory


def densify(source: Source) -> Source:
    """The same with its bytes in one piece."""
    if source.fill is None:
        return source
    memory = make_dense(source)
    address = int(ffi.cast("uintptr_t", memory))
    return source._replace(address=address, keep=memory, fill=None)


class _Keep:
    """As the destructor of a cffi pointer: keeps a source as long as the pointer lives."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __call__(self, _: Any) -> None:
        pass


class Batch:
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
                ffi.new("char[]", c_string(key, "sample id")),
                ffi.new("char[]", names),
                ffi.new("uint64_t[]", to_numbers(sources)),
                c_metadata(metadata),
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
        if failed:
            raise_interrupt()
        sentence = text(lib.feature_last_error()) if failed else ""
        for index, (key, *_) in enumerate(waiting):
            ref = Ref._own(refs[index]) if refs[index] else None
            self.note(key, int(statuses[index]), ref, sentence)
