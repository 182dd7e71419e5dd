# SPDX-License-Identifier: Apache-2.0
"""GPU memory, without a GPU library of our own: what has __cuda_array_interface__ can be put, and
gets can write into torch's, CuPy's or anybody's device arrays. libfeature copies.

https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Sequence

from ._dtypes import F4, TorchTypes, by_code, parse, torch_types
from ._errors import Invalid, Unsupported
from ._sources import Source
from ._tensor import count_bytes

_KINDS = {"b": "BOOL", "u": "U", "i": "I", "f": "F", "c": "C"}


def of_cuda_array(value: Any) -> Source:
    """An object with __cuda_array_interface__: CuPy's, Numba's, JAX's. It must be dense."""
    interface = value.__cuda_array_interface__
    kind = str(interface["typestr"])
    bits = 8 * int(kind[2:])
    word = _KINDS.get(kind[1], "")
    if not word or kind[0] == ">":
        raise Invalid(f"a device array of type {kind!r} has no dtype here")
    dtype = parse(word if kind[1] == "b" else f"{word}{bits}")
    shape = tuple(int(length) for length in interface["shape"])
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _dense_strides(shape, bits // 8):
        raise Invalid("a device array that is not dense cannot be put: copy it to one that is")
    stream = interface.get("stream")
    size = count_bytes(dtype, shape)
    return Source(dtype.code, int(interface["data"][0]), size, shape, value, None, stream or 0)


def _dense_strides(shape: tuple[int, ...], item_bytes: int) -> tuple[int, ...]:
    """Those of an array whose elements stand one after the other, last dimension innermost."""
    strides: list[int] = []
    step = item_bytes
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def find_stream(sources: Sequence[Source]) -> int | None:
    """The stream to wait for before these are copied: 0 is none, None: no source is a GPU's."""
    streams = {source.stream for source in sources if source.stream is not None}
    if not streams:
        return None
    named = streams - {0}
    if len(named) > 1:
        raise Invalid("the tensors of one sample name different CUDA streams: synchronise first")
    return named.pop() if named else 0


def wait_for_torch() -> None:
    """Until torch's current CUDA stream has done what it was given: copies into a reservation, for
    instance. Does nothing where torch has not used a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.current_stream().synchronize()


class TorchDevice:
    """torch tensors on a device, or in host memory that CUDA knows ("pinned")."""

    def __init__(self, types: TorchTypes, device: Any) -> None:
        self._types = types
        torch = types.torch
        pinned = isinstance(device, str) and device == "pinned"
        try:
            self._device = torch.device("cpu" if pinned else device)
        except (RuntimeError, TypeError) as error:
            raise Invalid(f"device {device!r}: {error}") from None
        if self._device.type not in ("cpu", "cuda"):
            raise Unsupported(f"device {device!r}: give cuda, cuda:N, cpu or pinned")
        if (pinned or self._device.type == "cuda") and not torch.cuda.is_available():
            raise Unsupported(f"device {device!r}: this torch has no CUDA device")
        self._pinned = pinned
        self.stream: int | None = None
        if self._device.type == "cuda":
            self.stream = int(torch.cuda.current_stream(self._device).cuda_stream)

    def new(self, name: str, code: int, shape: tuple[int, ...], size: int) -> tuple[Any, int]:
        """A tensor there and its address."""
        dtype = self._types.to(code, name)
        if code == F4.code:
            shape = (*shape[:-1], shape[-1] // 2)
        tensor = self._types.torch.empty(
            shape, dtype=dtype, device=self._device, pin_memory=self._pinned
        )
        return tensor, int(tensor.data_ptr())

    def wrap(
        self, name: str, code: int, shape: tuple[int, ...], size: int, pointer: Any, writable: bool
    ) -> Any:
        """A view lies in the broker's memory, and only there."""
        raise Invalid("a view (copy=False) cannot lie on a device: leave out device=, or copy")


class Allocated:
    """Device arrays from a function of the caller's."""

    stream: int | None = 0

    def __init__(self, allocate: Callable[[str, str, tuple[int, ...]], Any]) -> None:
        self._allocate = allocate

    def new(self, name: str, code: int, shape: tuple[int, ...], size: int) -> tuple[Any, int]:
        """What the function gives, and its address. Its size is checked, its dtype is believed."""
        dtype = by_code(code, name)
        array = self._allocate(name, dtype.name, shape)
        if not hasattr(array, "__cuda_array_interface__"):
            raise Invalid(
                f"tensor {name}: the allocator gave a {type(array).__name__} without "
                "__cuda_array_interface__"
            )
        source = of_cuda_array(array)
        if source.bytes < size:
            raise Invalid(
                f"tensor {name}: the allocator gave {source.bytes} bytes, {size} are needed"
            )
        return array, source.address

    def wrap(
        self, name: str, code: int, shape: tuple[int, ...], size: int, pointer: Any, writable: bool
    ) -> Any:
        """A view lies in the broker's memory, and only there."""
        raise Invalid("a view (copy=False) cannot lie on a device: leave out device=, or copy")


def find(device: Any) -> TorchDevice | Allocated:
    """Where the tensors of get(device=...) are made."""
    if callable(device):
        return Allocated(device)
    return TorchDevice(torch_types(), device)
