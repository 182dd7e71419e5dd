# SPDX-License-Identifier: Apache-2.0
"""What may be put: numpy arrays, torch tensors, Tensors, DLPack objects and plain buffers.

Each is described by a Source: dtype, shape, and either the address of dense bytes, which C copies,
or a function that fills memory, for what is not dense. torch and numpy are imported only where one
of their tensors has come, so that they are imported already.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Mapping, NamedTuple

from . import _dlpack
from ._dtypes import BY_FORMAT, F4, Dtype, numpy_types, torch_types
from ._errors import Invalid, Unsupported
from ._feature import ffi, lib
from ._tensor import Tensor, address_of, count_bytes

RANK_MAX = int(lib.FEATURE_RANK_MAX)
TENSORS_MAX = int(lib.FEATURE_TENSORS_MAX)


class Source(NamedTuple):
    """One tensor that is to be put."""

    code: int
    address: int  # of dense bytes; 0 where `fill` is there
    bytes: int
    shape: tuple[int, ...]
    keep: Any  # keeps the memory alive
    fill: Callable[[Any], None] | None  # copies into a cffi buffer of `bytes` bytes; None: dense
    stream: int | None = None  # of GPU memory, to be waited for, 0: none; None: plain memory


def of_numpy(array: Any) -> Source:
    """A numpy array of any layout. Other byte orders are turned into this machine's."""
    types = numpy_types()
    assert types is not None
    dtype = types.of(array.dtype)
    native = array.dtype
    if dtype is None:
        native = array.dtype.newbyteorder("=")
        dtype = types.of(native)
        if dtype is None:
            raise Invalid(
                f"a numpy array of dtype {array.dtype} has no dtype here; float4 and float6 arrays have "
                "a byte per element there: pack them and give a feature_broker.Tensor"
            )
    elif array.flags.c_contiguous:
        if type(array.dtype).__module__.startswith("numpy") and dtype.numpy[:3] != "ml:":
            pointer = ffi.from_buffer(array)
        else:  # the buffer protocol has no format for the types of ml_dtypes
            pointer = ffi.from_buffer(array.reshape(-1).view("uint8"))
        address = int(ffi.cast("uintptr_t", pointer))
        return Source(dtype.code, address, array.nbytes, array.shape, (array, pointer), None)

    def fill(buffer: Any) -> None:
        numpy = types.numpy
        numpy.copyto(numpy.frombuffer(buffer, dtype=native).reshape(array.shape), array)

    return Source(dtype.code, 0, array.size * native.itemsize, array.shape, array, fill)


def of_torch(tensor: Any) -> Source:
    """A torch tensor: of the CPU, dense or strided, with or without grad; CUDA ones are copied by
    libfeature, after the current stream has done what it was given before."""
    types = torch_types()
    torch = types.torch
    if tensor.layout is not torch.strided:
        raise Invalid(f"a torch tensor of layout {tensor.layout} cannot be put: call to_dense()")
    dtype = types.codes.get(tensor.dtype)
    if dtype is None:
        raise Invalid(f"a torch tensor of dtype {tensor.dtype} has no dtype here")
    if tensor.requires_grad:
        tensor = tensor.detach()
    shape = tuple(tensor.shape)
    if dtype is F4:
        shape = (*shape[:-1], 2 * shape[-1]) if shape else (2,)
    size = tensor.numel() * tensor.element_size()

    def fill(buffer: Any) -> None:
        if size:
            whole = torch.frombuffer(buffer, dtype=torch.uint8)
            whole.view(tensor.dtype).view(tensor.shape).copy_(tensor)

    if not tensor.is_cpu:
        if not tensor.is_cuda:
            raise Invalid(f"a torch tensor on device {tensor.device} cannot be put: call cpu()")
        tensor = tensor.resolve_conj().resolve_neg().contiguous()
        stream = int(torch.cuda.current_stream(tensor.device).cuda_stream)
        return Source(dtype.code, tensor.data_ptr(), size, shape, tensor, None, stream)
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return Source(dtype.code, 0, size, shape, tensor, fill)
    return Source(dtype.code, tensor.data_ptr(), size, shape, tensor, None)


def of_raw(tensor: Tensor) -> Source:
    """A Tensor of this package."""
    return Source(tensor._dtype.code, tensor.address, tensor.nbytes, tensor.shape, tensor, None)


def of_buffer(value: Any) -> Source:
    """Anything with the buffer protocol: bytes are U8, array.array has its own type."""
    view = memoryview(value)
    dtype = BY_FORMAT.get(view.format.lstrip("@=<"))
    if dtype is None or view.itemsize * 8 != dtype.bits:
        raise Invalid(f"a buffer of format {view.format!r} has no dtype here")
    shape = tuple(view.shape or ())
    if not view.c_contiguous:
        return Source(
            dtype.code, 0, view.nbytes, shape, view, lambda buffer: _copy_bytes(buffer, view)
        )
    return Source(dtype.code, address_of(view), view.nbytes, shape, view, None)


def _copy_bytes(buffer: Any, view: memoryview) -> None:
    """Python has no way to copy a strided buffer of any shape in one step: tobytes() goes between."""
    memoryview(buffer)[:] = view.tobytes()


def of_dlpack(value: Any) -> Source:
    """Anything with __dlpack__. What does not lie in CPU memory goes through torch."""
    if not _dlpack.is_cpu(value):
        return of_torch(torch_types().torch.from_dlpack(value))
    foreign = _dlpack.read(value)
    size = count_bytes(foreign.dtype, foreign.shape)
    strides = foreign.strides
    if strides is None:
        return Source(
            foreign.dtype.code, foreign.address, size, foreign.shape, foreign.capsule, None
        )
    item_bytes = foreign.dtype.bits // 8

    def fill(buffer: Any) -> None:
        lib.binding_copy_strided(
            ffi.from_buffer(buffer),
            ffi.cast("void *", foreign.address),
            item_bytes,
            len(foreign.shape),
            list(foreign.shape),
            [stride * item_bytes for stride in strides],
        )

    return Source(foreign.dtype.code, 0, size, foreign.shape, foreign.capsule, fill)


def _find_reader(value: Any) -> Callable[[Any], Source]:
    """How to read a value of this type. numpy's and torch's own types come first: they also have
    DLPack and buffers, which lack some of their dtypes."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return of_torch
    if numpy is not None and isinstance(value, numpy.ndarray):
        return of_numpy
    if numpy is not None and isinstance(value, numpy.generic):
        return lambda scalar: of_numpy(numpy.asarray(scalar))
    if isinstance(value, Tensor):
        return of_raw
    if hasattr(value, "__cuda_array_interface__"):
        from ._cuda import of_cuda_array

        return of_cuda_array
    if hasattr(value, "__dlpack__"):
        return of_dlpack
    try:
        memoryview(value).release()
        return of_buffer
    except TypeError:
        pass
    if numpy is not None and hasattr(value, "__array__"):
        return lambda other: of_numpy(numpy.asarray(other))
    raise Invalid(
        f"a {type(value).__name__} cannot be put: give a numpy array, a torch tensor, a "
        "feature_broker.Tensor, or an object with DLPack or the buffer protocol"
    )


_readers: dict[type, Callable[[Any], Source]] = {}


def describe(tensors: Mapping[str, Any]) -> tuple[bytes, list[Source]]:
    """The names for C, and one source per tensor. Raises Invalid, which names the tensor."""
    sources = []
    name = ""
    try:
        for name, value in tensors.items():
            reader = _readers.get(type(value))
            if reader is None:
                reader = _readers[type(value)] = _find_reader(value)
            sources.append(reader(value))
    except (Invalid, Unsupported) as error:
        raise type(error)(f"tensor {name}: {error.sentence}") from None
    except AttributeError:
        if isinstance(tensors, Mapping):
            raise
        raise Invalid(f"{type(tensors).__name__} is no mapping of names to tensors") from None
    return join_names(tensors), sources


def join_names(tensors: Mapping[str, Any]) -> bytes:
    """C finds the names by their zeros; and it has room for so many."""
    count = len(tensors)
    if count > TENSORS_MAX:
        raise Invalid(f"a sample has at most {TENSORS_MAX} tensors, not {count}")
    try:
        names = "\0".join(tensors).encode()
    except (TypeError, UnicodeEncodeError):
        raise Invalid(f"names of tensors must be str of valid Unicode: {list(tensors)}") from None
    if count and names.count(b"\0") != count - 1:
        raise Invalid(f"the name of a tensor contains a zero byte: {list(tensors)}")
    return names


def to_numbers(sources: list[Source]) -> list[int]:
    """The sources in the form of binding.h."""
    numbers: list[int] = []
    for source in sources:
        shape = source.shape
        if len(shape) > RANK_MAX:
            raise Invalid(f"a tensor has at most {RANK_MAX} dimensions, not {len(shape)}")
        numbers += (source.code, source.address, source.bytes, len(shape), *shape)
    return numbers


def copy_source(source: Source, buffer: Any) -> None:
    """Copies a source of plain memory into a cffi buffer of its size. Without the GIL."""
    if not source.bytes:
        return
    if source.fill is not None:
        source.fill(buffer)
    else:
        lib.binding_copy(ffi.from_buffer(buffer), ffi.cast("void *", source.address), source.bytes)


def sized(dtype: Dtype, shape: tuple[int, ...]) -> Source:
    """A tensor whose bytes do not exist yet, for reserve()."""
    size = count_bytes(dtype, shape)
    if size >= 1 << 63:
        raise Invalid(f"a tensor of dtype {dtype.name} and shape {shape} has too many bytes")
    return Source(dtype.code, 0, size, shape, None, None)
