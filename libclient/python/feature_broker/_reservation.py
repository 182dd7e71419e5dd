# SPDX-License-Identifier: Apache-2.0
"""Reservations: room in the broker's memory that the producer writes into itself."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Iterator, Mapping

from ._cuda import wait_for_torch
from ._errors import Invalid, failure
from ._feature import ffi, lib
from ._handles import OfThisProcess, StoreHandle
from ._ref import Ref
from ._sinks import Framework
from ._sources import Source


class Reservation(OfThisProcess, Mapping[str, Any]):
    """Room for one sample: a mapping from name to writable tensor, in the broker's memory.

    Used in a ``with`` block: a clean end commits, so that all tensors become visible at one moment,
    and an exception cancels. After that nothing may be written: the bytes are others' to read.
    What was not committed within the store's `max_reserve` (10 minutes unless configured) has
    ended; its commit raises NotFound.
    """

    def __init__(
        self,
        handle: StoreHandle,
        raw: Any,
        sample_id: str,
        tensors: dict[str, Source],
        framework: Framework,
    ) -> None:
        """Users get reservations from ``store.reserve()``."""
        self._handle = handle
        self._raw = raw  # struct feature_reservation *; NULL after its end
        self._sample_id = sample_id
        self._sources = tensors
        self._places = {name: index for index, name in enumerate(tensors)}
        self._framework = framework
        self._tensors: dict[str, Any] = {}
        self._ref: Ref | None = None

    def _open(self) -> Any:
        if not self._raw:
            raise Invalid(f"the reservation of sample {self._sample_id} has ended", self._sample_id)
        return self._raw

    @property
    def ref(self) -> Ref:
        """The ref, once it is committed. Raises Invalid before."""
        if self._ref is None:
            raise Invalid(f"sample {self._sample_id} is not committed", self._sample_id)
        return self._ref

    def buffer(self, name: str) -> Any:
        """The writable bytes of a tensor, as a cffi buffer (bytes-like)."""
        raw = self._open()
        data = lib.feature_reservation_data(raw, self._places[name])
        # The store stays open, and so the memory mapped, as long as somebody has the pointer.
        pointer = ffi.gc(ffi.cast("char *", data), self._handle.let_go)
        return ffi.buffer(pointer, self._sources[name].bytes)

    def __getitem__(self, name: str) -> Any:
        raw = self._open()
        tensor = self._tensors.get(name)
        if tensor is None:
            source = self._sources[name]
            data = lib.feature_reservation_data(raw, self._places[name])
            pointer = ffi.gc(ffi.cast("char *", data), self._handle.let_go)
            tensor = self._framework.wrap(
                name, source.code, source.shape, source.bytes, pointer, True
            )
            self._tensors[name] = tensor
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def commit(self) -> Ref:
        """Makes the sample visible. Blocks for the checksums and one answer of the broker.

        Raises NotFound when the reservation had ended by itself, Timeout or Unavailable when it is
        not known whether the sample is visible (put it again).
        """
        raw = self._open()
        wait_for_torch()
        self._end()
        out = ffi.new("struct feature_ref **")
        status = lib.binding_commit(raw, out)
        if status:
            raise failure(status, self._sample_id)
        self._ref = Ref._own(out[0])
        return self._ref

    def cancel(self) -> None:
        """Gives the room back. A second call does nothing."""
        raw = self._raw
        if raw:
            self._end()
            lib.feature_cancel(raw)

    def _end(self) -> None:
        """numpy arrays that somebody still has become read-only; torch knows no such thing."""
        self._raw = None
        for tensor in self._tensors.values():
            flags = getattr(tensor, "flags", None)
            if flags is not None:
                flags.writeable = False
        self._tensors.clear()

    def __del__(self) -> None:
        self.cancel()

    def __enter__(self) -> "Reservation":
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.cancel()
        elif self._raw:
            self.commit()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
