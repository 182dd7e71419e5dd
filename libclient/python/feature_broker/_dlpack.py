# SPDX-License-Identifier: Apache-2.0
"""DLPack both ways: capsules for other libraries, and what their capsules say.

The capsule's functions are those of Python's own C API, by ctypes; the structs are declared in
binding.h.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

from ._dtypes import BY_DLPACK, F4, Dtype
from ._errors import Invalid, Unsupported
from ._feature import ffi, lib

if TYPE_CHECKING:
    from ._tensor import Tensor

CPU = 1
CPU_PINNED = 3  # by CUDA; the CPU reads it as any other
_CPUS = (CPU, CPU_PINNED)
_READ_ONLY = 1

_new = ctypes.pythonapi.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype = ctypes.c_int
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.restype = ctypes.c_void_p
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

# PyCapsule_New() keeps the pointers to these names.
_PLAIN = b"dltensor"
_VERSIONED = b"dltensor_versioned"
_DESTRUCTOR = int(lib.binding_dl_capsule_destructor())


def make_capsule(tensor: "Tensor", dtype: Dtype, max_version: tuple[int, int] | None) -> Any:
    """A capsule that keeps the tensor alive until its consumer has called the deleter."""
    code, bits, lanes = dtype.dlpack
    shape = [int(length) for length in tensor.shape]
    data = ffi.cast("void *", tensor.address) if tensor.nbytes else ffi.NULL
    if max_version is not None and max_version[0] >= 1:
        name = _VERSIONED
        flags = _READ_ONLY if tensor.buffer.readonly else 0
        managed = lib.binding_dl_new_versioned(
            data, code, bits, lanes, len(shape), shape, id(tensor), flags
        )
    else:
        name = _PLAIN
        managed = lib.binding_dl_new(data, code, bits, lanes, len(shape), shape, id(tensor))
    if not managed:
        raise MemoryError("no memory for a DLPack capsule")
    return _new(int(ffi.cast("uintptr_t", managed)), name, _DESTRUCTOR)


class Foreign(NamedTuple):
    """A tensor of another library; valid while `capsule` lives."""

    capsule: Any
    dtype: Dtype
    shape: tuple[int, ...]
    address: int
    strides: tuple[int, ...] | None  # in elements; None: dense


def is_cpu(value: Any) -> bool:
    """Whether the memory of an object with __dlpack__ is the CPU's."""
    return int(value.__dlpack_device__()[0]) in _CPUS


def read(value: Any) -> Foreign:
    """What an object with __dlpack__ and CPU memory says. Raises Invalid or Unsupported."""
    capsule = value.__dlpack__()
    # Left in its capsule: it is given back when the capsule is collected.
    if not _is_valid(capsule, _PLAIN):
        raise Invalid(f"the __dlpack__() of {type(value).__name__} gave no DLPack capsule")
    tensor = ffi.cast("struct binding_dl_managed *", _get_pointer(capsule, _PLAIN)).tensor
    if tensor.device.type not in _CPUS:
        raise Unsupported(f"a DLPack tensor on device type {tensor.device.type} cannot be put")
    shape = tuple(int(tensor.shape[i]) for i in range(tensor.ndim))
    kind = (int(tensor.code), int(tensor.bits), int(tensor.lanes))
    dtype = BY_DLPACK.get(kind)
    if kind == (*F4.dlpack[:2], 2) and shape:  # two in each element of the last dimension
        dtype, shape = F4, (*shape[:-1], 2 * shape[-1])
    if dtype is None:
        raise Invalid(f"a DLPack tensor of type {kind} (code, bits, lanes) has no dtype here")
    strides = None
    if tensor.strides:
        strides = tuple(int(tensor.strides[i]) for i in range(tensor.ndim))
        if _is_dense(tuple(int(tensor.shape[i]) for i in range(tensor.ndim)), strides):
            strides = None
        elif dtype.bits % 8:
            raise Invalid(f"a DLPack tensor of {dtype.name} must be dense")
    address = int(ffi.cast("uintptr_t", tensor.data)) + int(tensor.byte_offset)
    return Foreign(capsule, dtype, shape, address, strides)


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    stride = 1
    for length, step in zip(reversed(shape), reversed(strides)):
        if length == 0:
            return True
        if length != 1 and step != stride:
            return False
        stride *= length
    return True
