# SPDX-License-Identifier: Apache-2.0
"""What gets give: tensors of numpy, of torch, or Tensors of this package.

Each framework makes a tensor in two ways: `new` gives one with memory of its own, for C to copy
into; `wrap` gives one that lies in memory which is there already, and keeps an owner alive.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

from ._dtypes import (
    F4,
    NumpyTypes,
    TorchTypes,
    by_code,
    numpy_types,
    numpy_types_or_fail,
    torch_types,
)
from ._errors import Invalid
from ._feature import ffi
from ._pool import POOLED_BYTES_MIN, take
from ._tensor import Tensor


class Framework(Protocol):
    """How a library makes tensors. `name` is the tensor's, for error messages.

    stream: where `new` gives GPU memory, the CUDA stream to copy on (0: the legacy default one);
    None: `new` gives plain memory.
    """

    stream: int | None

    def new(self, name: str, code: int, shape: tuple[int, ...], size: int) -> tuple[Any, int]:
        """A tensor with memory of its own, and the memory's address."""

    def wrap(
        self, name: str, code: int, shape: tuple[int, ...], size: int, pointer: Any, writable: bool
    ) -> Any:
        """A tensor over `size` bytes behind a cffi pointer, which it keeps alive."""


class NumpyFramework:
    """numpy arrays. Those over a view are read-only."""

    stream: int | None = None

    def __init__(self, types: NumpyTypes) -> None:
        self._types = types

    def new(self, name: str, code: int, shape: tuple[int, ...], size: int) -> tuple[Any, int]:
        if size >= POOLED_BYTES_MIN:
            pooled = take(size)
            array = self.wrap(name, code, shape, size, pooled, True)
            return array, int(ffi.cast("uintptr_t", pooled))
        dtype = self._types.to(code, name)
        array = self._types.numpy.empty(shape, dtype)
        try:
            pointer = ffi.from_buffer(array)
        except (ValueError, TypeError, BufferError):  # the types of ml_dtypes
            pointer = ffi.from_buffer(array.reshape(-1).view("uint8"))
        return array, int(ffi.cast("uintptr_t", pointer))

    def wrap(
        self, name: str, code: int, shape: tuple[int, ...], size: int, pointer: Any, writable: bool
    ) -> Any:
        dtype = self._types.to(code, name)
        if not size:
            array = self._types.numpy.empty(shape, dtype)
            array.flags.writeable = writable
            return array
        buffer = ffi.buffer(pointer, size)
        if not writable:
            buffer = memoryview(buffer).toreadonly()
        return self._types.numpy.frombuffer(buffer, dtype=dtype).reshape(shape)


class TorchFramework:
    """torch tensors. torch has no read-only tensors: whoever writes into one of a view spoils the
    sample for all its readers, or crashes (a store opened read-only is mapped so)."""

    stream: int | None = None

    def __init__(self, types: TorchTypes) -> None:
        self._types = types

    def new(self, name: str, code: int, shape: tuple[int, ...], size: int) -> tuple[Any, int]:
        if size >= POOLED_BYTES_MIN:
            pooled = take(size)
            tensor = self.wrap(name, code, shape, size, pooled, True)
            return tensor, int(ffi.cast("uintptr_t", pooled))
        dtype = self._types.to(code, name)
        if code == F4.code:
            shape = _halve_last(shape, name)
        tensor = self._types.torch.empty(shape, dtype=dtype)
        return tensor, tensor.data_ptr()

    def wrap(
        self, name: str, code: int, shape: tuple[int, ...], size: int, pointer: Any, writable: bool
    ) -> Any:
        torch = self._types.torch
        dtype = self._types.to(code, name)
        if code == F4.code:
            shape = _halve_last(shape, name)
        if not size:
            return torch.empty(shape, dtype=dtype)
        # As bytes first: frombuffer() does not take every dtype.
        whole = torch.frombuffer(ffi.buffer(pointer, size), dtype=torch.uint8)
        return whole.view(dtype).view(shape)


def _halve_last(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The shape in torch's float4_e2m1fn_x2, whose elements hold two each."""
    if not shape or shape[-1] % 2:
        raise Invalid(
            f"tensor {name}: torch holds F4 in pairs, and the last dimension of {shape} is odd: ask "
            'for framework="raw"'
        )
    return (*shape[:-1], shape[-1] // 2)


class RawFramework:
    """Tensors of this package."""

    stream: int | None = None

    def new(self, name: str, code: int, shape: tuple[int, ...], size: int) -> tuple[Any, int]:
        if size >= POOLED_BYTES_MIN:
            tensor = self.wrap(name, code, shape, size, take(size), True)
        else:
            tensor = Tensor(by_code(code, name), shape, bytearray(size))
        return tensor, tensor.address

    def wrap(
        self, name: str, code: int, shape: tuple[int, ...], size: int, pointer: Any, writable: bool
    ) -> Any:
        buffer = memoryview(ffi.buffer(pointer, size))
        return Tensor(by_code(code, name), shape, buffer if writable else buffer.toreadonly())


_RAW = RawFramework()
_made: dict[str, Framework] = {"raw": _RAW}


def find(framework: str) -> Framework:
    """The framework of that name. "auto": torch if this process has imported it, else numpy, else
    raw. Raises Invalid, or Unsupported where the library is not installed."""
    if framework == "auto":
        framework = "torch" if sys.modules.get("torch") is not None else "numpy"
        if framework == "numpy" and "numpy" not in _made and numpy_types() is None:
            return _RAW
    if not isinstance(framework, str):
        raise Invalid(f'framework {framework!r}: give "auto", "numpy", "torch" or "raw"')
    found = _made.get(framework)
    if found is None:
        if framework.startswith("torch:"):
            return find_device(framework[6:])
        if framework == "numpy":
            found = NumpyFramework(numpy_types_or_fail())
        elif framework == "torch":
            found = TorchFramework(torch_types())
        else:
            raise Invalid(f'framework {framework!r}: give "auto", "numpy", "torch" or "raw"')
        _made[framework] = found
    return found


def find_device(device: Any) -> Framework:
    """What makes tensors on a device: see Store.get()."""
    from ._cuda import find as find_on_device

    return find_on_device(device)
