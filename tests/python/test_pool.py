# SPDX-License-Identifier: Apache-2.0
"""Memory of large copies is used again, and only when nobody has it any more."""

from __future__ import annotations

import gc
import resource
from typing import Any, Iterator

import numpy as np
import pytest

import feature_broker as fb
from feature_broker import _pool

FOUR = {f"t{i}": np.full(1 << 20, i, np.float32) for i in range(4)}  # of 4 MiB each


@pytest.fixture(autouse=True)
def default_limit() -> Iterator[None]:
    gc.collect()
    fb.set_receive_pool(0)
    fb.set_receive_pool(256 << 20)
    yield
    fb.set_receive_pool(256 << 20)


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.fixture(params=["numpy", "torch", "raw"])
def framework(request: pytest.FixtureRequest) -> str:
    if request.param != "raw":
        pytest.importorskip(request.param)
    return str(request.param)


def test_gets_touch_no_fresh_memory(store: fb.Store, sample_id: str, framework: str) -> None:
    """16 MiB are 4,096 pages. A get whose memory is fresh faults for each (or for each huge one,
    after zeroing it)."""
    ref = store.put(sample_id, FOUR)
    for _ in range(3):  # the pool is filled, and the arena mapped
        store.get(ref, framework=framework)
    before = faults()
    for _ in range(10):
        got = store.get(ref, framework=framework)
        del got
    assert faults() - before < 400
    store.abort(ref)


def test_what_is_in_use_is_not_given_again(store: fb.Store, sample_id: str, framework: str) -> None:
    ref = store.put(sample_id, FOUR)
    kept = []
    for _ in range(5):
        got = store.get(ref, framework=framework)
        kept.append(got["t3"][7:] if framework != "raw" else got["t3"].buffer[28:])
        del got
        other = store.get(ref, ["t0"], framework=framework)
        del other
    for part in kept:
        assert np.all(np.frombuffer(memoryview(np.asarray(part)), np.float32) == 3)
    store.abort(ref)


def test_what_is_idle_is_bounded(store: fb.Store, sample_id: str) -> None:
    ref = store.put(sample_id, FOUR)
    got = [store.get(ref, framework="numpy") for _ in range(3)]
    assert _pool.idle_bytes() == 0
    del got
    assert _pool.idle_bytes() == 48 << 20
    fb.set_receive_pool(10 << 20)
    assert _pool.idle_bytes() == 8 << 20
    got = [store.get(ref, framework="numpy") for _ in range(3)]
    assert _pool.idle_bytes() == 0
    fb.set_receive_pool(0)
    del got
    assert _pool.idle_bytes() == 0
    for wrong in (-1, 1 << 64):
        with pytest.raises(fb.Invalid):
            fb.set_receive_pool(wrong)
    store.abort(ref)


def test_an_idle_block_is_given_for_what_nearly_fills_it() -> None:
    first: Any = _pool.take(1 << 20)
    address = int(_pool.ffi.cast("uintptr_t", first))
    assert address % 64 == 0
    del first
    small = _pool.take(600 << 10)
    assert int(_pool.ffi.cast("uintptr_t", small)) != address and _pool.idle_bytes() == 1 << 20
    near = _pool.take(1000 << 10)
    assert int(_pool.ffi.cast("uintptr_t", near)) == address
    with pytest.raises(MemoryError):
        _pool.take(1 << 60)


def test_own_tensors_can_be_written_and_are_contiguous(store: fb.Store, sample_id: str) -> None:
    torch = pytest.importorskip("torch")
    ref = store.put(sample_id, FOUR)
    array = store.get(ref, framework="numpy")["t1"]
    array += 1
    assert array.flags.writeable and array.flags.c_contiguous and array.shape == (1 << 20,)
    tensor = store.get(ref, framework="torch")["t2"]
    tensor.add_(1)
    assert tensor.is_contiguous() and torch.all(tensor == 3)
    store.abort(ref)
