# SPDX-License-Identifier: Apache-2.0
"""Every dtype comes back bit for bit: as Tensor always, as numpy and torch where they have it."""

from __future__ import annotations

import random
import sys
from typing import Any, Iterator

import numpy as np
import pytest

import feature_broker as fb
from feature_broker._dtypes import DTYPES, Dtype
from feature_broker._feature import ffi, lib

torch = pytest.importorskip("torch")

SHAPES = [(), (0,), (3, 0, 2), (8,), (2, 3, 4), (1, 1, 1, 1, 2, 1, 1, 8)]


def size_of(dtype: Dtype, shape: tuple[int, ...]) -> int | None:
    """Bytes; None where they do not come out whole."""
    bits = int(np.prod(shape)) * dtype.bits
    return None if bits % 8 else bits // 8


def some_bytes(dtype: Dtype, size: int) -> bytes:
    """Any bits at all: NaNs with payloads, denormals, negative zeros. Booleans are 0 or 1."""
    random.seed(dtype.name)
    data = bytes(random.randrange(256) for _ in range(size))
    return bytes(byte & 1 for byte in data) if dtype.name == "BOOL" else data


@pytest.fixture(scope="module")
def any_store(broker: Any) -> Iterator[fb.Store]:
    with broker.connect() as client, client.store("keep") as store:
        yield store


def cases() -> list[Any]:
    return [
        pytest.param(dtype, shape, id=f"{dtype.name}-{'x'.join(map(str, shape)) or 'scalar'}")
        for dtype in DTYPES
        for shape in SHAPES
        if size_of(dtype, shape) is not None
    ]


def bits_of(tensor: Any) -> bytes:
    """The bytes of a dense tensor of any framework."""
    if isinstance(tensor, fb.Tensor):
        return tensor.tobytes()
    if isinstance(tensor, np.ndarray):
        return tensor.tobytes()
    assert tensor.is_contiguous()
    size = tensor.numel() * tensor.element_size()
    return bytes(ffi.buffer(ffi.cast("char *", tensor.data_ptr()), size)) if size else b""


def has(framework: str, dtype: Dtype) -> bool:
    if framework == "raw":
        return True
    if framework == "torch":
        return bool(dtype.torch) and hasattr(torch, dtype.torch)
    if dtype.numpy.startswith("ml:"):
        try:
            import ml_dtypes
        except ImportError:
            return False
        return hasattr(ml_dtypes, dtype.numpy[3:])
    return bool(dtype.numpy)


def test_the_table_is_that_of_the_library() -> None:
    for dtype in DTYPES:
        assert lib.feature_dtype_bits(dtype.code) == dtype.bits, dtype.name
        assert ffi.string(lib.feature_dtype_name(dtype.code)).decode() == dtype.name
    assert lib.feature_dtype_bits(len(DTYPES) + 1) == 0


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype,shape", cases())
def test_bits_come_back(any_store: fb.Store, dtype: Dtype, shape: tuple[int, ...]) -> None:
    size = size_of(dtype, shape)
    assert size is not None
    data = some_bytes(dtype, size)
    key = f"dtype-{dtype.name}"
    ref = any_store.put(key, {"t": fb.Tensor(dtype.name, shape, data)})
    spec = ref.tensors[0]
    assert (spec.dtype, spec.shape, spec.bytes) == (dtype.name, shape, size)
    for framework in ("raw", "numpy", "torch"):
        if not has(framework, dtype):
            with pytest.raises(fb.Unsupported, match='framework="'):
                any_store.get(ref, framework=framework)
            continue
        if framework == "torch" and dtype.name == "F4" and (not shape or shape[-1] % 2):
            continue
        copied = any_store.get(ref, framework=framework)["t"]
        assert bits_of(copied) == data
        with any_store.get(ref, copy=False, framework=framework) as view:
            assert bits_of(view["t"]) == data
        # What a get gives, a put takes.
        again = any_store.put(key + "-again", {"t": copied})
        assert again.tensors[0] == spec
        assert any_store.get(again, framework="raw")["t"].tobytes() == data
        with any_store.reserve(
            key + "-reserve", {"t": (dtype.name, shape)}, framework=framework
        ) as room:
            if framework == "raw":
                room["t"].buffer[:] = data
            elif framework == "numpy":
                room["t"][...] = copied
            else:
                room["t"].copy_(copied)
        assert any_store.get(room.ref, framework="raw")["t"].tobytes() == data


@pytest.mark.parametrize(
    "dtype", [d for d in DTYPES if has("torch", d) and d.dlpack[0] not in (6,)]
)
def test_dlpack_gives_the_same_bits_to_torch(dtype: Dtype) -> None:
    data = some_bytes(dtype, 16 * dtype.bits // 8)
    tensor = fb.Tensor(dtype.name, (2, 8), data)
    try:
        theirs = torch.from_dlpack(tensor)
    except (RuntimeError, BufferError):
        pytest.skip(f"this torch reads no {dtype.name} by DLPack")
    assert bits_of(theirs) == data


def test_names_of_dtypes() -> None:
    for word in ("F32", "float32", np.float32, np.dtype("float32"), torch.float32):
        assert fb.Tensor(word, (1,), bytes(4)).dtype == "F32"
    assert fb.Tensor("bfloat16", (1,), bytes(2)).dtype == "BF16"
    with pytest.raises(fb.Invalid, match="is no dtype"):
        fb.Tensor("float33", (1,), bytes(4))
    with pytest.raises(fb.Invalid, match="needs 8 bytes"):
        fb.Tensor("F32", (2,), bytes(4))
    with pytest.raises(fb.Invalid, match="no whole bytes"):
        fb.Tensor("F4", (3,), bytes(2))


def test_tensor_speaks_the_buffer_protocol_and_dlpack() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = fb.Tensor("F32", (2, 3), values.tobytes())
    assert tensor.memoryview().tolist() == values.tolist() and tensor.buffer.readonly
    assert np.array_equal(np.from_dlpack(tensor), values)
    assert torch.equal(torch.from_dlpack(tensor), torch.from_numpy(values))
    assert tensor.__dlpack_device__() == (1, 0) and len(tensor) == 2
    if sys.version_info >= (3, 12):
        assert memoryview(tensor).tolist() == values.tolist()
    for capsule in (tensor.__dlpack__(), tensor.__dlpack__(max_version=(1, 0))):
        del capsule  # a capsule that nobody takes gives its memory back
    assert sys.getrefcount(tensor) == 2
    with pytest.raises(fb.Invalid):
        fb.Tensor("BF16", (1,), bytes(2)).memoryview()
