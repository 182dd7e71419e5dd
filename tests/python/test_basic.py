# SPDX-License-Identifier: Apache-2.0
"""The life of a sample through Python, and what each kind of call gives."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import feature_broker as fb

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_put_get(store: fb.Store, sample_id: str) -> None:
    ref = store.put(sample_id, {"x": X, "ids": np.arange(5)}, metadata=b"about it")
    tensors = store.get(ref)
    assert list(tensors) == ["x", "ids"]
    assert np.array_equal(tensors["x"], X) and tensors["x"].dtype == np.float32
    assert np.array_equal(tensors["ids"], np.arange(5)) and tensors["ids"].dtype == np.int64
    tensors["x"][0, 0] = 7  # one's own
    assert store.get(ref, ["x"])["x"][0, 0] == 0


def test_names_choose_and_order(store: fb.Store, sample_id: str) -> None:
    ref = store.put(sample_id, {"a": X, "b": X + 1, "c": X + 2})
    assert list(store.get(ref, ["c", "a"])) == ["c", "a"]
    with pytest.raises(fb.Invalid, match="no tensor d"):
        store.get(ref, ["a", "d"])
    with pytest.raises(fb.Invalid, match="list of names"):
        store.get(ref, "a")


def test_ref(store: fb.Store, sample_id: str) -> None:
    ref = store.put(sample_id, {"x": X}, metadata=b"\0meta")
    assert (ref.store, ref.sample_id, ref.home) == ("run", sample_id, "solo")
    assert ref.metadata == b"\0meta" and ref.total_bytes == X.nbytes
    spec = ref.tensors[0]
    assert (spec.name, spec.dtype, spec.shape, spec.bytes) == ("x", "F32", (3, 4), 48)
    for other in (
        pickle.loads(pickle.dumps(ref)),
        fb.Ref.from_bytes(ref.to_bytes()),
        fb.Ref.from_uri(ref.uri),
    ):
        assert other == ref and hash(other) == hash(ref)
        assert np.array_equal(store.get(other)["x"], X)
    assert np.array_equal(store.get(ref.uri)["x"], X)
    assert store.put(sample_id, {"x": X}) != ref


def test_view(store: fb.Store, sample_id: str) -> None:
    ref = store.put(sample_id, {"x": X, "y": X.T})
    with store.get(ref, copy=False) as view:
        assert list(view) == ["x", "y"] and len(view) == 2 and "z" not in view
        assert view.ref == ref and view.ref.tensors == ref.tensors
        assert np.array_equal(view["y"], X.T)
        with pytest.raises(ValueError):
            view["x"][0, 0] = 1
    with pytest.raises(fb.Invalid, match="released"):
        view["x"]
    assert view.ref == ref


def test_reserve(store: fb.Store, sample_id: str) -> None:
    with store.reserve(sample_id, {"x": ("float32", (3, 4))}, metadata=b"m") as room:
        room["x"][...] = X
        with pytest.raises(fb.Invalid, match="not committed"):
            room.ref
        assert not store.exists(sample_id)
    assert room.ref.metadata == b"m"
    assert np.array_equal(store.get(room.ref)["x"], X)
    with pytest.raises(KeyError):
        with store.reserve(sample_id + "-2", {"x": ("F32", (3, 4))}) as room:
            raise KeyError
    assert not store.exists(sample_id + "-2")


def test_torch(client: fb.Client, sample_id: str) -> None:
    torch = pytest.importorskip("torch")
    with client.store("run") as store:
        given = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)
        ref = store.put(sample_id, {"x": given})
        assert torch.equal(store.get(ref)["x"], given)  # torch is imported: auto gives torch
        with store.get(ref, copy=False) as view:
            assert torch.equal(view["x"], given)


def test_probes_and_retire(store: fb.Store, sample_id: str) -> None:
    refs = store.put_many([(f"{sample_id}-{i}", {"x": X + i}) for i in range(3)])
    assert [stat.sample_id for stat in store.list(sample_id)] == [ref.sample_id for ref in refs]
    stat = store.stat(refs[0])
    assert (stat.state, stat.readers, stat.leases, stat.ref) == ("resident", 1, 0, refs[0])
    store.abort(refs[0])
    store.ack([refs[1], refs[2].sample_id])
    store.abort(refs)  # again is fine
    assert not any(store.exists(ref) for ref in refs)
    with pytest.raises(KeyError) as caught:
        store.get(refs[0])
    assert isinstance(caught.value, fb.NotFound) and caught.value.ref is refs[0]
    assert caught.value.status == "NOT_FOUND" and sample_id in caught.value.sentence
