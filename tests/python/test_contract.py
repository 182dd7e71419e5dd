# SPDX-License-Identifier: Apache-2.0
"""The contract (what a user may rely on), clause by clause, through Python: on one broker and on two."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import feature_broker as fb
from brokers import DEADLINE_S, STORES, Broker, full, wait_until
from conftest import World

X = np.arange(1000, dtype=np.int32)
BIG = np.arange(1 << 18, dtype=np.float64)  # 2 MiB: its room is reserved, not inline


def run_child(code: str, *arguments: str) -> "subprocess.Popen[str]":
    """Python code in a process of its own, which says a line when it is ready."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def kill(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.communicate()


def test_1_all_or_nothing(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    with producer.reserve(sample_id, {"a": ("I32", (1000,)), "b": ("I32", (1000,))}) as room:
        room["a"][:] = X
        assert not producer.exists(sample_id)
        with pytest.raises(fb.NotFound):
            consumer.get(sample_id)
        room["b"][:] = X
    tensors = consumer.get(room.ref)
    assert np.array_equal(tensors["a"], X) and np.array_equal(tensors["b"], X)


def test_1_a_producer_that_dies_leaves_nothing(
    broker: Broker, store: fb.Store, client: fb.Client, sample_id: str
) -> None:
    child = run_child(
        "import sys, feature_broker as fb\n"
        "store = fb.connect(sys.argv[1], timeout_s=120).store('run', framework='raw')\n"
        "room = store.reserve(sys.argv[2], {'a': ('U8', (32 << 20,))})\n"
        "room['a'].buffer[:5] = b'hello'\n"
        "print('ready', flush=True); sys.stdin.read()",
        broker.socket_path,
        sample_id,
    )
    kill(child)
    assert not store.exists(sample_id)
    # Its room is there again: two of 32 MiB fill the store.
    refs = [store.put(f"{sample_id}-{i}", {"a": np.zeros(31 << 20, np.uint8)}) for i in range(2)]
    store.abort(refs)


def test_2_no_use_after_free(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    ref = producer.put(sample_id, {"x": X})
    view = consumer.get(ref, copy=False)
    producer.abort(ref)
    for store in (producer, consumer):
        with pytest.raises(fb.NotFound):
            store.get(ref)
    # Other samples come and go; the bytes that are read stay.
    for i in range(20):
        producer.abort(producer.put(f"{sample_id}-{i}", {"x": X + i}))
    assert np.array_equal(view["x"], X)
    view.release()


def test_3_supersede(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    old = producer.put(sample_id, {"x": X})
    view = consumer.get(old, copy=False)
    new = producer.put(sample_id, {"x": X + 1})
    assert new.generation != old.generation
    for store in (producer, consumer):
        with pytest.raises(fb.NotFound):
            store.get(old)
        assert np.array_equal(store.get(new)["x"], X + 1)
    assert np.array_equal(view["x"], X)
    view.release(consumed=True)
    consumer.ack(old)  # stale: a harmless success
    world.settle()
    assert np.array_equal(consumer.get(sample_id)["x"], X + 1)
    producer.abort(sample_id)


def test_4_nothing_is_evicted(client: fb.Client, sample_id: str) -> None:
    small = client.store("small", framework="numpy")
    half = np.zeros(500 << 10, np.uint8)
    kept = [small.put(f"{sample_id}-{i}", {"x": half + i}) for i in range(2)]
    refusal = full(lambda: small.put(sample_id, {"x": half}, timeout_s=0.2))
    assert isinstance(refusal, MemoryError) and "small" in refusal.sentence
    full(lambda: small.put(sample_id, {"x": half}, timeout_s=0))
    assert all(small.exists(ref) for ref in kept)

    # Whoever waits is served when room is freed.
    refs: list[fb.Ref] = []
    waiter = threading.Thread(
        target=lambda: refs.append(small.put(sample_id, {"x": half}, timeout_s=DEADLINE_S))
    )
    waiter.start()
    small.ack(kept[0])
    waiter.join()
    assert small.exists(refs[0]) and small.exists(kept[1])
    small.abort([*refs, kept[1]])


def test_5_on_release(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    ref = producer.put(sample_id, {"x": X})
    consumer.get(ref)  # returned, not consumed
    with consumer.get(ref, copy=False):
        pass
    world.settle()
    assert producer.exists(ref)
    consumer.get(ref, consume=True)
    world.settle()
    assert not producer.exists(ref)
    ref = producer.put(sample_id, {"x": X})
    with consumer.get(ref, copy=False, consume=True) as view:
        assert np.array_equal(view["x"], X)
    world.settle()
    assert not producer.exists(ref)


def test_5_a_block_that_fails_consumes_nothing(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    ref = producer.put(sample_id, {"x": X})
    with pytest.raises(RuntimeError), consumer.get(ref, copy=False, consume=True):
        raise RuntimeError
    world.settle()
    assert producer.exists(ref)
    producer.abort(ref)


def test_5_on_ack_and_retain(world: World, sample_id: str) -> None:
    for name, gone_after_ack in (("ack", True), ("keep", False)):
        producer, consumer = world.stores(name)
        refs = producer.put_many([(f"{sample_id}-{i}", {"x": X}) for i in range(3)])
        for ref in refs:
            consumer.get(ref, consume=True)
        world.settle()
        assert all(producer.exists(ref) for ref in refs)
        if gone_after_ack:
            consumer.ack(refs)
            consumer.ack(refs)  # idempotent
            world.settle()
            assert not any(producer.exists(ref) for ref in refs)
        producer.abort(refs)


def test_6_a_dead_holder_consumes_nothing(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    ref = producer.put(sample_id, {"x": X})
    child = run_child(
        "import sys, feature_broker as fb\n"
        "store = fb.connect(sys.argv[1], timeout_s=120).store('run', framework='raw')\n"
        "view = store.get(sys.argv[2], copy=False, consume=True)\n"
        "print('ready', flush=True); sys.stdin.read()",
        world.away.socket_path,
        ref.uri,
    )
    assert world.consumer.health().leases == 1
    kill(child)
    wait_until(lambda: world.consumer.health().leases == 0, "the dead process's lease ended")
    world.settle()
    assert np.array_equal(consumer.get(ref)["x"], X)
    producer.abort(ref)


def test_7_frees_are_idempotent_and_drain_waits(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    refs = producer.put_many([(f"{sample_id}-{i}", {"x": X}) for i in range(50)])
    for ref in refs:
        consumer.get(ref, copy=False).release(consumed=True)
    world.settle()
    assert world.consumer.health().release_pending == 0
    assert not any(producer.exists(ref) for ref in refs)
    producer.abort([*refs, "never put"])


def test_8_gc_spares_what_is_read(client: fb.Client, store: fb.Store, sample_id: str) -> None:
    read, unread = store.put_many([(f"{sample_id}-{i}", {"x": X}) for i in range(2)])
    with store.get(read, copy=False) as view:
        wait_until(lambda: store.stat(unread).age_s > 0.01, "it is old enough")
        assert store.gc(0.01) >= 1
        assert not store.exists(unread) and store.exists(read)
        assert np.array_equal(view["x"], X)
    store.abort(read)


def test_9_probes_have_no_side_effects(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    ref = producer.put(sample_id, {"x": X})
    for _ in range(5):
        for store in (producer, consumer):
            assert store.exists(ref)
        assert producer.stat(sample_id).leases == 0
        assert len(producer.list(sample_id)) == 1
        assert world.consumer.health().leases == 0
    consumer.get(ref, consume=True)
    world.settle()
    assert not consumer.exists(ref) and not consumer.exists("never put")


def test_10_quota(client: fb.Client, sample_id: str) -> None:
    client.create_store("few", max_samples=2, max_resident_bytes=1 << 20, landing_bytes=0)
    few = client.store("few", framework="numpy")
    refs = [few.put(f"{sample_id}-{i}", {"x": X}) for i in range(2)]
    refusal = full(lambda: few.put(sample_id, {"x": X}, timeout_s=0))
    assert isinstance(refusal, MemoryError) and "few" in str(refusal)
    with pytest.raises(fb.Invalid, match="can never fit"):
        few.put(sample_id, {"x": np.zeros(2 << 20, np.uint8)})
    few.abort(refs)
    client.drop_store("few")
    client.drop_store("few")  # again is fine
    with pytest.raises(fb.NotFound):
        client.store("few")


def test_11_integrity(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    with producer.reserve(sample_id, {"x": ("F64", BIG.shape)}) as room:
        late = memoryview(room.buffer("x"))
        room["x"][:] = BIG
    late[:8] = b"spoiled!"  # after the commit, which is forbidden: its checksum is made
    if world.home is world.away:  # checked after a network only
        assert not np.array_equal(consumer.get(room.ref)["x"], BIG)
    else:
        with pytest.raises(fb.Corrupt, match="tensor x") as caught:
            consumer.get(room.ref)
        assert isinstance(caught.value, OSError) and caught.value.ref is room.ref
    del late
    producer.abort(room.ref)


def test_12_access(folder: Path, sample_id: str) -> None:
    secret = secrets.token_bytes(32)
    broker = Broker(folder, "locked", STORES).start()
    try:
        with broker.connect() as client:
            client.create_store(
                "secret", max_resident_bytes=1 << 20, landing_bytes=0, secret=secret
            )
            store = client.store("secret", secret=secret)
            ref = store.put(sample_id, {"x": X})
            reader = client.store("secret", secret=secret, read_only=True, framework="numpy")
            assert reader.read_only and np.array_equal(reader.get(ref)["x"], X)
            with pytest.raises(fb.Denied, match="read-only"):
                reader.put("other", {"x": X})
            for wrong in (None, secrets.token_bytes(32)):
                with pytest.raises(PermissionError):
                    client.store("secret", secret=wrong)
            with pytest.raises(fb.Invalid, match="bytes"):
                client.store("secret", secret="text" * 8)  # type: ignore[arg-type]
    finally:
        broker.stop()


def test_13_every_error_is_also_the_built_in_one() -> None:
    kinds = {
        "INVALID": (fb.Invalid, ValueError),
        "DENIED": (fb.Denied, PermissionError),
        "NOT_FOUND": (fb.NotFound, KeyError),
        "LOST": (fb.Lost, fb.NotFound),
        "EXISTS": (fb.Exists, FileExistsError),
        "FULL": (fb.Full, MemoryError),
        "TIMEOUT": (fb.Timeout, TimeoutError),
        "UNAVAILABLE": (fb.Unavailable, ConnectionError),
        "CORRUPT": (fb.Corrupt, OSError),
        "UNSUPPORTED": (fb.Unsupported, NotImplementedError),
        "INTERNAL": (fb.Internal, RuntimeError),
    }
    import copy
    import pickle

    for status, (kind, builtin) in kinds.items():
        error = kind("what happened", ref="s1")
        assert isinstance(error, builtin) and isinstance(error, fb.FeatureError)
        assert (error.status, error.sentence, error.ref) == (status, "what happened", "s1")
        assert str(error) == "what happened" and "what happened" in repr(error)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and again.sentence == error.sentence and again.ref == "s1"
        assert type(copy.copy(error)) is kind


def test_13_errors_of_calls(client: fb.Client, store: fb.Store, sample_id: str) -> None:
    with pytest.raises(fb.Exists):
        client.create_store("run", policy="retain", max_resident_bytes=1 << 20)
    with pytest.raises(fb.NotFound):
        client.store("nowhere")
    with pytest.raises(fb.Invalid):
        client.store("no/such name")
    with pytest.raises(fb.Invalid, match="policy"):
        client.create_store("x", policy="sometimes")
    with pytest.raises(fb.Invalid, match="framework"):
        client.store("run", framework="jax")
    with pytest.raises(fb.Unavailable) as caught:
        fb.connect("/nowhere/featured.sock", timeout_s=0.1)
    assert "/nowhere/featured.sock" in caught.value.sentence
    with pytest.raises(fb.Timeout, match="was not put within 200 ms"):
        store.get(sample_id, wait_s=0.2)


def test_13_a_batch_names_each_failure(store: fb.Store, sample_id: str) -> None:
    wrong = "x" * 200
    with pytest.raises(fb.BatchError) as caught:
        store.put_many([(sample_id, {"x": X}), (wrong, {"x": X}), (sample_id + "-2", {"x": X.T})])
    error = caught.value
    assert list(error.errors) == [1] and isinstance(error.errors[1], fb.Invalid)
    assert error.errors[1].ref == wrong and error.status == "INVALID"
    assert error.results[1] is None and error.results[0].sample_id == sample_id
    store.ack([ref for ref in error.results if ref])
    with pytest.raises(fb.BatchError) as caught:
        store.ack([sample_id, wrong])
    assert list(caught.value.errors) == [1]
    with pytest.raises(fb.Invalid):
        store.ack(wrong)


def test_14_15_a_client_outlives_its_broker(folder: Path, sample_id: str) -> None:
    said: list[str] = []
    broker = Broker(folder, "mortal").start()
    with broker.connect(log=lambda level, sentence: said.append(f"{level}: {sentence}")) as client:
        store = client.store("run", framework="numpy")
        ref = store.put(sample_id, {"x": X})
        view = store.get(ref, copy=False)
        broker.kill()
        with pytest.raises(fb.Unavailable):
            store.put("later", {"x": X}, timeout_s=0.2)
        assert np.array_equal(view["x"], X)
        view.check()  # nobody has said that its lease is over: the broker may come back with its memory
        broker.start()
        again = store.put(sample_id, {"x": X}, timeout_s=DEADLINE_S)
        with pytest.raises(fb.Lost):  # it has come back without
            view.check()
        assert np.array_equal(store.get(again)["x"], X)
        with pytest.raises(fb.NotFound):
            store.get(ref)
        assert np.array_equal(view["x"], X)
        view.release()
    assert said
    broker.stop()


def test_16_a_sample_is_waited_for(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    got: list[dict[str, np.ndarray]] = []
    # By id: the one who waits does not know of the put.
    reader = threading.Thread(target=lambda: got.append(producer.get(sample_id, wait_s=DEADLINE_S)))
    reader.start()
    ref = producer.put(sample_id, {"x": X})
    reader.join()
    assert np.array_equal(got[0]["x"], X)
    assert np.array_equal(consumer.get(ref, wait_s=DEADLINE_S)["x"], X)
