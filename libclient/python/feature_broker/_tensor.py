# SPDX-License-Identifier: Apache-2.0
"""Tensor: bytes with a dtype and a shape, for those who have neither numpy nor torch."""

from __future__ import annotations

import sys
from typing import Any

from . import _dlpack
from ._dtypes import Dtype, parse
from ._errors import Invalid
from ._feature import ffi


def to_shape(shape: Any) -> tuple[int, ...]:
    """A shape as a tuple of int. Raises Invalid for negative lengths and those beyond 64 bits."""
    try:
        lengths = tuple(int(length) for length in shape)
    except TypeError:
        raise Invalid(f"{shape!r} is no shape: give a tuple of lengths") from None
    if any(not 0 <= length < 1 << 63 for length in lengths):
        raise Invalid(f"{shape!r} is no shape: a length is negative or too large")
    return lengths


def count_elements(shape: tuple[int, ...]) -> int:
    """How many elements a shape has."""
    count = 1
    for length in shape:
        count *= length
    return count


def count_bytes(dtype: Dtype, shape: tuple[int, ...]) -> int:
    """Bytes of a dense tensor. Raises Invalid where they do not come out whole."""
    bits = count_elements(shape) * dtype.bits
    if bits % 8:
        raise Invalid(
            f"a tensor of dtype {dtype.name} and shape {shape} has {bits} bits, which are no whole "
            "bytes: pad its last dimension"
        )
    return bits // 8


def address_of(view: memoryview) -> int:
    """Where its bytes lie, as long as the memoryview lives.

    The pointer of cffi that tells it is not kept in its place: it exports the memoryview once more,
    and Python's garbage collector crashes when it frees both as parts of one circle.
    """
    with ffi.from_buffer(view) as pointer:
        return int(ffi.cast("uintptr_t", pointer))


class Tensor:
    """A dense tensor in CPU memory: dtype, shape and bytes; of every dtype there is.

    Gets give it with ``framework="raw"``; puts take it. Other libraries read it by DLPack
    (``numpy.from_dlpack(tensor)``, ``torch.from_dlpack(tensor)``, ``jax.dlpack.from_dlpack``) or
    by its bytes: ``memoryview(tensor.buffer)``. From Python 3.12 on it has the buffer protocol
    itself, so that ``memoryview(tensor)`` works too. All of them keep the memory alive, and with
    it the lease of a view.
    """

    __slots__ = ("_dtype", "shape", "_buffer", "_address", "__weakref__")

    def __init__(self, dtype: Any, shape: tuple[int, ...], buffer: Any) -> None:
        """Wraps a buffer, without copying it.

        dtype: a name ("BF16", "float32"), a numpy dtype or a torch dtype.
        shape: lengths, outermost first; counts elements.
        buffer: bytes-like, C-contiguous; exactly the bytes that dtype and shape need. F4 and F6
            are packed, little end first.
        Raises Invalid when they do not fit together.
        """
        self._dtype = parse(dtype)
        self.shape = to_shape(shape)
        try:
            whole = memoryview(buffer)
            if whole.nbytes:
                self._buffer = whole.cast("B")
            else:  # which cast() refuses when there is a 0 in its shape
                self._buffer = memoryview(b"" if whole.readonly else bytearray())
        except TypeError as error:
            raise Invalid(f"a Tensor needs a C-contiguous buffer: {error}") from None
        need = count_bytes(self._dtype, self.shape)
        if self._buffer.nbytes != need:
            raise Invalid(
                f"a tensor of dtype {self._dtype.name} and shape {self.shape} needs {need} bytes, "
                f"the buffer has {self._buffer.nbytes}"
            )
        self._address = address_of(self._buffer)

    @property
    def dtype(self) -> str:
        """The dtype as safetensors calls it: "BF16"."""
        return self._dtype.name

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self._buffer.nbytes

    @property
    def buffer(self) -> memoryview:
        """The bytes, flat; read-only when the tensor is (a view of a sample)."""
        return self._buffer

    @property
    def address(self) -> int:
        """Where the bytes lie."""
        return self._address

    def tobytes(self) -> bytes:
        """A copy of the bytes."""
        return self._buffer.tobytes()

    def memoryview(self) -> memoryview:
        """The tensor with its shape, in the buffer protocol's format.

        Raises Invalid for a dtype that the protocol has no format for (BF16, the FP8 kinds,
        complex): `buffer` has the bytes of those too. A tensor without elements gives no shape.
        """
        code: Any = self._dtype.format
        if not code:
            raise Invalid(f"the buffer protocol has no format for {self.dtype}: use Tensor.buffer")
        if not self.nbytes:
            return self._buffer
        shaped: memoryview = self._buffer.cast(code, self.shape)
        return shaped

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int) -> memoryview:
            return self.memoryview() if self._dtype.format else self._buffer

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_dlpack.CPU, 0)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule as the array API standard has it. stream must be None, as memory is a CPU's.

        A consumer older than DLPack 1.0 cannot be told that the memory is read-only. Whoever
        writes into a view of a sample spoils it for all its readers, or crashes.
        """
        if stream is not None:
            raise Invalid("a Tensor in CPU memory has no streams: stream must be None")
        if dl_device not in (None, (_dlpack.CPU, 0)):
            raise BufferError("a Tensor lies in CPU memory and is not copied elsewhere")
        if copy:
            return Tensor(self._dtype, self.shape, bytearray(self._buffer)).__dlpack__(
                max_version=max_version
            )
        return _dlpack.make_capsule(self, self._dtype, max_version)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a Tensor without dimensions has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Tensor({self.dtype!r}, shape={self.shape})"
