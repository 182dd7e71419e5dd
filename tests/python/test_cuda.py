# SPDX-License-Identifier: Apache-2.0
"""GPU memory through Python, with the fake driver of tests/cuda/fake: its device memory cannot be
touched by the processor, so a copy that does not go through the driver ends the process.

Each test runs in a process of its own: the fake, once loaded, stays.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import feature_broker as fb
from brokers import BUILD, DEADLINE_S, Broker


class Device:
    """The fake GPU, loaded as a program that uses CUDA would load the driver."""

    def __init__(self) -> None:
        self.driver = ctypes.CDLL(str(BUILD / "tests/fake/libcuda.so.1"))
        self.driver.cuInit(0)
        context = ctypes.c_void_p()
        self.driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
        self.driver.cuCtxSetCurrent(context)

    def allocate(self, name: str, dtype: str, shape: tuple[int, ...]) -> "Array":
        return Array(self, dtype, shape)


class Array:
    """Device memory as CuPy shows it."""

    def __init__(self, device: Device, dtype: str, shape: tuple[int, ...], stream: Any = None) -> None:
        self.driver = device.driver
        self.numpy = np.dtype({"F32": "f4", "U8": "u1", "I64": "i8"}[dtype])
        self.shape = shape
        self.bytes = self.numpy.itemsize * int(np.prod(shape))
        pointer = ctypes.c_ulonglong()
        assert self.driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(self.bytes)) == 0
        self.pointer = pointer.value
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": self.numpy.str, "data": (self.pointer, False),
            "strides": None, "version": 3, "stream": stream,
        }  # fmt: skip

    def write(self, values: np.ndarray) -> "Array":
        data = np.ascontiguousarray(values).tobytes()
        self.driver.cuMemcpyHtoD_v2(ctypes.c_ulonglong(self.pointer), data, ctypes.c_size_t(self.bytes))
        return self

    def read(self) -> np.ndarray:
        data = ctypes.create_string_buffer(self.bytes)
        self.driver.cuMemcpyDtoH_v2(data, ctypes.c_ulonglong(self.pointer), ctypes.c_size_t(self.bytes))
        return np.frombuffer(data.raw, self.numpy).reshape(self.shape)


def put_device_arrays(store: fb.Store) -> None:
    device = Device()
    for sample_id, length in (("small", 10), ("large", 1 << 20)):
        values = np.arange(length * 2, dtype="f4").reshape(length, 2)
        array = Array(device, "F32", values.shape).write(values)
        store.put(sample_id, {"gpu": array})
        np.testing.assert_array_equal(store.get(sample_id, consume=True)["gpu"], values)


def put_beside_host_arrays_that_are_not_dense(store: fb.Store) -> None:
    device = Device()
    values = np.arange(1 << 18, dtype="f4").reshape(512, 512)
    array = Array(device, "F32", values.shape).write(values)
    store.put("one", {"gpu": array, "host": values.T, "bytes": b"abc"})
    store.put_many([("two", {"gpu": array}), ("three", {"host": values}), ("four", {"a": array, "b": values.T})])
    one, four = store.get("one", consume=True), store.get("four", consume=True)
    np.testing.assert_array_equal(one["gpu"], values)
    np.testing.assert_array_equal(one["host"], values.T)
    assert one["bytes"].tobytes() == b"abc"
    np.testing.assert_array_equal(store.get("two", consume=True)["gpu"], values)
    np.testing.assert_array_equal(store.get("three", consume=True)["host"], values)
    np.testing.assert_array_equal(four["a"], values)
    np.testing.assert_array_equal(four["b"], values.T)


def put_waits_for_the_stream_of_the_array(store: fb.Store) -> None:
    device = Device()
    stream = ctypes.c_void_p()
    device.driver.cuStreamCreate(ctypes.byref(stream), 1)
    array = Array(device, "U8", (1 << 20,), stream.value)
    array.write(np.zeros(1 << 20, "u1"))
    for value in range(1, 20):  # each takes a millisecond
        device.driver.cuMemsetD8Async(
            ctypes.c_ulonglong(array.pointer), value, ctypes.c_size_t(array.bytes), stream
        )
    store.put("s", {"gpu": array})
    assert set(np.unique(store.get("s", consume=True)["gpu"])) == {19}
    with pytest.raises(fb.Invalid, match="different CUDA streams"):
        other = Array(device, "U8", (4,), 2)
        store.put("s", {"a": array, "b": other})


def get_into_device_arrays(store: fb.Store) -> None:
    device = Device()
    values = {"a": np.arange(300000, dtype="f4"), "b": np.arange(3, dtype="i8")}
    store.put("s", values)
    arrays = store.get("s", device=device.allocate, consume=True)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array.read(), values[name])
    assert not store.exists("s")


def a_get_that_cannot_be_copied_leaves_the_sample(store: fb.Store) -> None:
    device = Device()
    store.put("s", {"a": np.arange(1000, dtype="f4")})
    with pytest.raises(fb.Invalid, match="400 bytes, 4000 are needed"):
        store.get("s", device=lambda name, dtype, shape: Array(device, "F32", (100,)), consume=True)
    with pytest.raises(fb.Invalid, match="__cuda_array_interface__"):
        store.get("s", device=lambda name, dtype, shape: object(), consume=True)
    device.driver.fake_cuda_plant(b"cuMemcpyHtoDAsync", 0, 700)
    with pytest.raises(fb.Unavailable, match=r"cuMemcpyHtoDAsync of 4000 bytes for tensor a .*\(700\)"):
        store.get("s", device=device.allocate, consume=True)
    with pytest.raises(fb.Invalid, match="copy=False"):
        store.get("s", device=device.allocate, copy=False)["a"]
    assert store.get("s", consume=True)["a"].size == 1000


CASES = [
    put_device_arrays,
    put_beside_host_arrays_that_are_not_dense,
    put_waits_for_the_stream_of_the_array,
    get_into_device_arrays,
    a_get_that_cannot_be_copied_leaves_the_sample,
]


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_with_a_gpu(broker: Broker, case: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, broker.socket_path, case],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True, text=True, timeout=5 * DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_devices_that_are_not_there(store: fb.Store, sample_id: str) -> None:
    torch = pytest.importorskip("torch")
    store.put(sample_id, {"a": np.arange(4, dtype="f4")})
    assert torch.equal(store.get(sample_id, device="cpu")["a"], torch.arange(4.0))
    assert torch.equal(store.get(sample_id, framework="torch:cpu")["a"], torch.arange(4.0))
    with pytest.raises(fb.Invalid, match="device 'mars'"):
        store.get(sample_id, device="mars")
    if not torch.cuda.is_available():
        for device in ("cuda", "pinned"):
            with pytest.raises(fb.Unsupported, match="no CUDA device"):
                store.get(sample_id, device=device)
    store.get(sample_id, consume=True)


def test_a_commit_waits_for_torch(
    store: fb.Store, sample_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    room: Any = None
    waited: list[bool] = []

    class Stream:
        def synchronize(self) -> None:
            assert not store.exists(sample_id)
            room["a"][...] = 7  # a copy that was queued
            waited.append(True)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    with store.reserve(sample_id, {"a": ("F32", (1000,))}) as room:
        room["a"][...] = 0
    assert waited == [True]
    assert set(store.get(sample_id, consume=True)["a"]) == {7.0}


if __name__ == "__main__":
    with fb.connect(sys.argv[1], timeout_s=DEADLINE_S) as connection, connection.store("run", framework="numpy") as opened:
        globals()[sys.argv[2]](opened)
