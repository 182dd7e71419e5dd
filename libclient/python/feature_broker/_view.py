# SPDX-License-Identifier: Apache-2.0
"""Leases and views: tensors that lie in the broker's memory."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Iterator, Mapping

from ._errors import Invalid, failure, text
from ._feature import ffi, lib
from ._handles import OfThisProcess
from ._ref import Key, Ref
from ._sinks import Framework

RETURNED = int(lib.FEATURE_RELEASE_RETURNED)
CONSUMED = int(lib.FEATURE_RELEASE_CONSUMED)


class Lease:
    """The right to read a sample. It ends when nothing in Python refers to it any more.

    The view refers to it, and so does every tensor of the view: their memory is a cffi pointer
    whose destructor is a method of the lease. So numpy, torch and DLPack keep the lease by keeping
    the memory.
    """

    __slots__ = ("raw", "how", "__weakref__")

    def __init__(self, raw: Any) -> None:
        self.raw = raw  # struct binding_lease *; this object owns it
        self.how = RETURNED

    def __del__(self) -> None:
        lib.binding_release(self.raw, self.how)

    def take(self) -> Any:
        """The struct binding_lease *, which is the caller's to end now."""
        raw, self.raw = self.raw, ffi.NULL
        return raw

    def hold(self, data: Any) -> Any:
        """A pointer to the same place that keeps the lease."""
        return ffi.gc(ffi.cast("char *", data), self._let_go)

    def _let_go(self, _: Any) -> None:
        """The pointer is gone, and with this call its reference to the lease."""


def ref_of(raw: Any) -> Ref:
    """The ref of a lease, as an object of its own."""
    return Ref._own(lib.feature_ref_dup(raw.ref))


def indices_of(raw: Any, names: Any, key: Any) -> list[tuple[str, int]]:
    """Names and places of the tensors wanted: all in their order, or those named."""
    tensors = raw.tensors
    own = [text(tensors[index].name) for index in range(raw.count)]
    if names is None:
        return [(name, index) for index, name in enumerate(own)]
    if isinstance(names, str):
        raise Invalid(f"names must be a list of names, not one str: [{names!r}]", key)
    places = {name: index for index, name in enumerate(own)}
    try:
        return [(name, places[name]) for name in names]
    except TypeError:
        raise Invalid(f"names must be a list of names, not {names!r}", key) from None
    except KeyError as missing:
        raise Invalid(
            f"sample {text(lib.feature_ref_sample_id(raw.ref))} has no tensor {missing.args[0]}, it "
            f"has {', '.join(own)}",
            key,
        ) from None


class View(OfThisProcess, Mapping[str, Any]):
    """The tensors of a sample, in the broker's memory, not copied: a mapping from name to tensor.

    It holds a lease: the bytes stay as they are, whatever becomes of the sample (abort, supersede,
    drop), the connection or the broker. The lease ends with :meth:`release`, with the end of a
    ``with`` block, or when the view is collected; but tensors that were taken out of the view, and
    tensors derived from those, keep the lease until they are collected too. So no tensor ever
    shows another sample's bytes.

    numpy arrays are read-only: writing to one raises ValueError. torch has no such tensors: do not
    write into one of a view.
    """

    def __init__(
        self, lease: Lease, places: list[tuple[str, int]], framework: Framework, consume: bool
    ) -> None:
        """Users get views from ``store.get(key, copy=False)``."""
        self._lease: Lease | None = lease
        self._places = dict(places)
        self._framework = framework
        self._consume = consume
        self._tensors: dict[str, Any] = {}
        self._ref: Ref | None = None

    def _held(self) -> Lease:
        if self._lease is None:
            raise Invalid("the view was released", self._ref)
        return self._lease

    @property
    def ref(self) -> Ref:
        """The ref of the generation that was got, with all its specs and metadata."""
        if self._ref is None:
            self._ref = ref_of(self._held().raw)
        return self._ref

    def __getitem__(self, name: str) -> Any:
        lease = self._held()
        tensor = self._tensors.get(name)
        if tensor is None:
            of = lease.raw.tensors[self._places[name]]
            pointer = lease.hold(of.data)
            shape = tuple(ffi.unpack(of.shape, of.rank)) if of.rank else ()
            tensor = self._framework.wrap(name, of.dtype, shape, of.bytes, pointer, False)
            self._tensors[name] = tensor
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def check(self) -> None:
        """Raises when the lease is gone: Lost when its broker has come back without its memory, or
        this client was closed (the bytes stay as they are); Unavailable when the broker lives and
        has ended the session (get the sample again). A lost connection, or a broker that is away,
        is no reason: the lease holds. May block for a second."""
        status = lib.feature_view_check(self._held().raw.view)
        if status:
            raise failure(status, self.ref)

    def release(self, consumed: bool | None = None) -> None:
        """Ends the read. Does not block, and never fails; a second call does nothing.

        consumed: whether this read counts towards the store's `readers`; None: as the get was told
        (``consume=``).
        Where tensors of this view are still alive, the lease ends when the last of them is
        collected.
        """
        lease = self._lease
        if lease is None:
            return
        self.ref  # readable after the release, too
        if self._consume if consumed is None else consumed:
            lease.how = CONSUMED
        self._lease = None
        self._tensors.clear()

    @property
    def released(self) -> bool:
        """Whether :meth:`release` was called."""
        return self._lease is None

    def __enter__(self) -> "View":
        self._held()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Releases: as the get was told, and as returned when the block failed."""
        self.release(None if kind is None else False)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        state = "released" if self._lease is None else ", ".join(self._places)
        return f"View({self._ref or '...'}: {state})"


def finish_get(
    raw: Any, key: Key, names: Any, copy: bool, consume: bool, made_by: Framework
) -> dict[str, Any] | View:
    """From the answer of C to tensors or a view. Owns the answer."""
    if not raw:
        raise MemoryError("no memory for a view")
    if raw.status:
        try:
            raise failure(raw.status, key)
        finally:
            lib.binding_release(raw, RETURNED)
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
