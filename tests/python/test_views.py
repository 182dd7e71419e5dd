# SPDX-License-Identifier: Apache-2.0
"""How long a lease holds: as long as anything that points into its bytes."""

from __future__ import annotations

import gc
import pickle
import weakref
from typing import Any, Callable

import numpy as np
import pytest

import feature_broker as fb
from brokers import DEADLINE_S, Broker, wait_until

torch = pytest.importorskip("torch")

X = np.arange(4096, dtype=np.float32).reshape(64, 64)


@pytest.fixture
def ref(store: fb.Store, sample_id: str) -> fb.Ref:
    return store.put(sample_id, {"x": X, "y": X + 1, "none": X[:0]})


def lease_ends(client: fb.Client) -> None:
    gc.collect()
    wait_until(lambda: client.health().leases == 0, "the lease ended")


DERIVED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "the array": ("numpy", lambda x: x),
    "a slice": ("numpy", lambda x: x[3:, ::2]),
    "a reshape": ("numpy", lambda x: x.reshape(-1).view(np.uint8)),
    "its memoryview": ("numpy", lambda x: memoryview(x)),
    "torch of it": (
        "numpy",
        lambda x: torch.utils.dlpack.from_dlpack(torch.as_tensor(np.asarray(x))),
    ),
    "the tensor": ("torch", lambda x: x),
    "a slice of the tensor": ("torch", lambda x: x[3:, ::2]),
    "another dtype of it": ("torch", lambda x: x.view(torch.int32).T),
    "numpy of it": ("torch", lambda x: x.numpy()),
    "its storage": ("torch", lambda x: x.storage()),
    "an autograd graph": ("torch", lambda x: (torch.ones(64, 64, requires_grad=True) * x).sum()),
    "the raw tensor": ("raw", lambda x: x),
    "its buffer": ("raw", lambda x: x.buffer[7:]),
    "numpy by dlpack": ("raw", np.from_dlpack),
    "torch by dlpack": ("raw", lambda x: torch.from_dlpack(x)[1]),
    "a capsule": ("raw", lambda x: x.__dlpack__()),
}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable", "ignore:TypedStorage")
@pytest.mark.parametrize("how", list(DERIVED))
@pytest.mark.parametrize("released", [False, True], ids=["dropped", "released"])
def test_what_is_derived_keeps_the_lease(
    client: fb.Client, store: fb.Store, ref: fb.Ref, how: str, released: bool
) -> None:
    framework, derive = DERIVED[how]
    view = store.get(ref, copy=False, framework=framework)
    derived = derive(view["x"])
    if released:
        view.release(consumed=True)
    del view
    gc.collect()
    client.drain()
    assert client.health().leases == 1
    store.abort(ref)
    # The room is not given to others: what is derived still shows the sample.
    for i in range(8):
        store.abort(store.put(f"{ref.sample_id}-{i}", {"x": -X}))
    assert client.health().leases == 1
    del derived
    lease_ends(client)


def test_a_release_takes_effect_at_once_when_nothing_else_holds(
    client: fb.Client, store: fb.Store, ref: fb.Ref
) -> None:
    view = store.get(ref, copy=False)
    assert view["x"][1, 0] == 64 and view["none"].shape == (0, 64)
    view.release(consumed=True)
    client.drain()
    assert view.released and client.health().leases == 0 and not store.exists(ref)
    view.release()  # again is fine


def test_a_view_that_is_dropped_returns(client: fb.Client, store: fb.Store, ref: fb.Ref) -> None:
    view = store.get(ref, copy=False, consume=True)
    assert view["x"] is view["x"]
    del view
    lease_ends(client)
    assert store.exists(ref)


def test_circles_are_collected(client: fb.Client, store: fb.Store, ref: fb.Ref) -> None:
    for framework in ("numpy", "torch", "raw"):
        circle: list[Any] = [store.get(ref, copy=False, framework=framework)]
        circle += [circle, circle[0]["x"]]
        del circle
        lease_ends(client)


def test_numpy_views_refuse_writes(store: fb.Store, ref: fb.Ref) -> None:
    with store.get(ref, copy=False) as view:
        x = view["x"]
        with pytest.raises(ValueError):
            x[0, 0] = 1
        with pytest.raises(ValueError):
            x += 1
        with pytest.raises(ValueError):
            x.flags.writeable = True
        assert not view["none"].flags.writeable
        del x
    with store.get(ref, copy=False, framework="raw") as view:
        assert view["x"].buffer.readonly
        with pytest.raises(TypeError):
            view["x"].buffer[0] = 1
    assert np.array_equal(store.get(ref)["x"], X)


def test_views_outlive_store_client_and_broker(folder: Any, sample_id: str) -> None:
    broker = Broker(folder, "short-lived").start()
    client = broker.connect()
    store = client.store("run", framework="numpy")
    ref = store.put(sample_id, {"x": X})
    views = [store.get(ref, copy=False) for _ in range(3)]
    arrays = [view["x"] for view in views]
    store.close()
    with pytest.raises(fb.Invalid, match="closed"):
        store.get(ref)
    assert np.array_equal(arrays[0], X)
    client.close()
    with pytest.raises(fb.Invalid, match="closed"):
        client.health()
    assert np.array_equal(arrays[1], X)
    broker.kill()
    assert np.array_equal(arrays[2], X)
    assert np.array_equal(views[0]["x"], X)
    for view in views:
        view.release()


def test_reserved_memory_outlives_store_and_client(broker: Broker, sample_id: str) -> None:
    client = broker.connect()
    store = client.store("run", framework="torch")
    room = store.reserve(sample_id, {"x": ("F32", (64, 64))})
    x = room["x"]
    store.close()
    x.copy_(torch.from_numpy(X))
    ref = room.commit()
    client.close()
    assert torch.equal(x, torch.from_numpy(X))
    del x, room
    with broker.connect() as other, other.store("run", framework="numpy") as again:
        assert np.array_equal(again.get(ref)["x"], X)
        again.abort(ref)


def test_a_reservation_that_is_dropped_is_cancelled(store: fb.Store, sample_id: str) -> None:
    for _ in range(10):  # of 64 MiB, 32 each
        room = store.reserve(sample_id, {"x": ("U8", (32 << 20,))}, timeout_s=DEADLINE_S)
        del room
    room = store.reserve(sample_id, {"x": ("U8", (8,))})
    room.cancel()
    room.cancel()
    for refused in (room.commit, lambda: room["x"], lambda: room.ref, room.__enter__):
        with pytest.raises(fb.Invalid):
            refused()
    assert not store.exists(sample_id)


def test_arrays_of_a_reservation_are_read_only_after_it(store: fb.Store, sample_id: str) -> None:
    with store.reserve(sample_id, {"x": ("F32", (64, 64))}) as room:
        x = room["x"]
        x[:] = X
    with pytest.raises(ValueError):
        x[0] = 1
    store.abort(room.ref)


def test_views_are_compared_by_identity_and_not_pickled(store: fb.Store, ref: fb.Ref) -> None:
    with store.get(ref, copy=False) as one, store.get(ref, copy=False) as two:
        assert one == one and one != two and len({one, two}) == 2
        for mine in (one, store):
            with pytest.raises(TypeError, match="send refs"):
                pickle.dumps(mine)
        assert weakref.ref(one)() is one


def test_a_framework_without_the_dtype_leaves_the_sample(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    ref = store.put(sample_id, {"x": fb.Tensor("F6_E2M3", (4,), b"abc"), "y": X})
    with pytest.raises(fb.Unsupported, match='tensor x is F6_E2M3.*framework="raw"'):
        store.get(ref, consume=True)
    client.drain()
    assert store.exists(ref)
    with store.get(ref, copy=False) as view:
        assert np.array_equal(view["y"], X)
        with pytest.raises(fb.Unsupported):
            view["x"]
    assert np.array_equal(store.get(ref, ["y"])["y"], X)
    assert store.get(ref, framework="raw")["x"].tobytes() == b"abc"
    store.abort(ref)
