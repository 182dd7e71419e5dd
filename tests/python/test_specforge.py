# SPDX-License-Identifier: Apache-2.0
"""BrokerFeatureStore keeps the contract of SpecForge's feature stores. Each test runs with our
records, and with those of the released package where it can be had."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

import feature_broker as fb
import released
from brokers import DEADLINE_S, Broker, wait_until

torch = pytest.importorskip("torch")

from feature_broker.specforge import AuthPolicy, BrokerFeatureStore  # noqa: E402

META = {"run_id": "run0", "num_tokens": 4, "strategy": "eagle3", "ttt_length": 7}

_numbers = itertools.count()


@pytest.fixture(params=["our records", "SpecForge's records"], autouse=True)
def records(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "our records":
        released.forget(monkeypatch, "specforge")
        monkeypatch.setitem(sys.modules, "specforge", None)
    else:
        released.importable(monkeypatch, "specforge")
    yield request.param


class Clock:
    """Time that stands still until it is told to pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., BrokerFeatureStore]


@pytest.fixture
def make(broker: Broker) -> Iterator[Make]:
    """Makes stores on one broker, in its store "run" unless told otherwise."""
    made: list[BrokerFeatureStore] = []

    def make(**arguments: Any) -> BrokerFeatureStore:
        arguments.setdefault("store_id", "run")
        arguments.setdefault("socket_path", broker.socket_path)
        made.append(BrokerFeatureStore(**arguments))
        return made[-1]

    yield make
    for store in made:
        store.close()
    with broker.connect() as client:
        wait_until(lambda: client.health().leases == 0, "no leases are left")


@pytest.fixture
def fresh(broker: Broker) -> Iterator[str]:
    """The id of a store that does not exist yet; it is dropped afterwards."""
    name = f"fresh-{next(_numbers)}"
    yield name
    with broker.connect() as client:
        try:
            client.drop_store(name)
        except fb.NotFound:
            pass


@pytest.fixture
def sid() -> str:
    return f"run0:task-{next(_numbers)}"


def tensors(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {
        "hidden_state": torch.randn(4, 8).to(torch.bfloat16),
        "target": torch.randn(8, 4).t(),
        "input_ids": torch.arange(4).unsqueeze(0),
        "loss_mask": torch.tensor([True, False, True, True]),
    }


def test_round_trip(make: Make, sid: str, records: str) -> None:
    producer, consumer = make(), make()
    given = tensors()
    ref = producer.put(given, sample_id=sid, metadata=META)
    assert type(ref).__module__.startswith("specforge" if "SpecForge" in records else "feature_b")
    assert (ref.sample_id, ref.run_id, ref.num_tokens, ref.strategy) == (sid, "run0", 4, "eagle3")
    assert ref.feature_store_uri.startswith("feature://run/")
    assert ref.metadata["ttt_length"] == 7 and "num_tokens" not in ref.metadata
    assert ref.feature_specs["hidden_state"].dtype == "bfloat16"
    assert ref.feature_specs["target"].shape == (4, 8)
    assert ref.estimated_bytes == producer.estimate_bytes(ref.feature_specs) == 64 + 128 + 32 + 4
    got, handle = consumer.get(pickle.loads(pickle.dumps(ref)))
    assert list(got) == list(given)
    for name, tensor in given.items():
        assert torch.equal(got[name], tensor) and got[name].dtype == tensor.dtype
    assert handle.sample_id == sid and handle.generation == ref.metadata["generation"]
    got["target"].zero_()  # one's own
    again, other = consumer.get(ref, names=["target"])
    assert list(again) == ["target"] and torch.equal(again["target"], given["target"])
    consumer.release(handle)
    consumer.release(other)


def test_the_last_release_frees(make: Make, sid: str) -> None:
    producer, consumer = make(), make()
    ref = producer.put(tensors(), sample_id=sid, metadata=META)
    handles = [consumer.get(ref)[1] for _ in range(2)]
    assert consumer.health()["active_leases"] == 2
    consumer.release(handles[0])
    got, third = consumer.get(ref)
    consumer.release(third, reason="loaded")
    consumer.release(handles[1])
    consumer.release(handles[1])  # again is fine
    for store in (producer, consumer):
        with pytest.raises(KeyError):
            store.get(ref)
    assert torch.equal(got["target"], tensors()["target"])


def test_another_process_keeps_what_it_reads(make: Make, sid: str) -> None:
    """Unlike with a lease index in one process: the sample goes with the last lease of all."""
    producer, fast, slow = make(), make(), make()
    ref = producer.put(tensors(), sample_id=sid, metadata=META)
    _, slow_handle = slow.get(ref)
    fast.release(fast.get(ref)[1])
    with pytest.raises(KeyError):
        fast.get(ref)
    late = make(retain_on_release=True)
    late.release(late.get(ref)[1])
    slow.release(slow_handle)
    with pytest.raises(KeyError):
        late.get(ref)


def test_a_new_put_supersedes(make: Make, sid: str) -> None:
    producer, consumer = make(), make()
    old = producer.put(tensors(1), sample_id=sid, metadata=META)
    _, stale = consumer.get(old)
    new = producer.put(tensors(2), sample_id=sid, metadata=META)
    with pytest.raises(KeyError):
        consumer.get(old)
    consumer.release(stale)
    got, handle = consumer.get(new)
    assert torch.equal(got["target"], tensors(2)["target"])
    consumer.release(handle)


def test_retain_on_release(make: Make, sid: str) -> None:
    producer, consumer = make(), make(retain_on_release=True)
    ref = producer.put(tensors(), sample_id=sid, metadata=META)
    for _ in range(3):
        consumer.release(consumer.get(ref)[1])
    consumer.abort(sid, reason="optimizer-boundary-durable-ack")
    with pytest.raises(KeyError):
        producer.get(ref)
    assert consumer.retain_on_release and not producer.retain_on_release


def test_abort(make: Make, sid: str) -> None:
    producer, consumer = make(), make()
    ref = producer.put(tensors(), sample_id=sid, metadata=META)
    got, handle = consumer.get(ref)
    producer.abort(sid, reason="terminal")
    with pytest.raises(KeyError):
        consumer.get(ref)
    assert torch.equal(got["target"], tensors()["target"])
    consumer.release(handle)
    producer.abort(sid, reason="again")
    producer.abort("never-seen", reason="nothing there")
    assert producer.health()["release_pending"] == 0


def test_what_a_get_refuses(make: Make, sid: str, fresh: str) -> None:
    store, elsewhere = make(), make(store_id=fresh, max_resident_bytes=1 << 20)
    with pytest.raises(ValueError, match="at least one tensor"):
        store.put({}, sample_id=sid, metadata=META)
    ref = store.put(tensors(), sample_id=sid, metadata=META)
    with pytest.raises(KeyError, match="has no feature 'logits'"):
        store.get(ref, names=["logits"])
    with pytest.raises(KeyError, match="is of store run"):
        elsewhere.get(ref)
    ref.feature_specs["target"] = ref.feature_specs["input_ids"]
    with pytest.raises(KeyError, match="the ref says int64"):
        store.get(ref)
    assert store.health()["active_leases"] == 0
    store.abort(sid, reason="done")


def test_long_and_strange_names(make: Make, broker: Broker) -> None:
    store_id = "runs/a b:" + "x" * 80
    store = make(store_id=store_id, max_resident_bytes=1 << 20)
    try:
        assert store.store_id == store_id
        ids = ["ä" * 100 + str(i) for i in range(2)]
        refs = [store.put(tensors(i), sample_id=ids[i], metadata=META) for i in range(2)]
        for i in range(2):
            got, handle = make(store_id=store_id).get(refs[i])
            assert handle.sample_id == ids[i]
            assert torch.equal(got["target"], tensors(i)["target"])
        store.abort(ids[0], reason="done")
        with pytest.raises(KeyError):
            store.get(refs[0])
    finally:
        with broker.connect() as client:
            client.drop_store(store._attachment.name)


def test_budget(make: Make, fresh: str) -> None:
    producer = make(store_id=fresh, max_resident_bytes=40 << 10)
    consumer = make(store_id=fresh)
    one = {"x": torch.zeros(8 << 10)}
    with pytest.raises(MemoryError, match="the consumer is behind"):
        producer.put({"x": torch.zeros(16 << 10)}, sample_id="big", metadata=META)
    ref = producer.put(one, sample_id="a", metadata=META)
    with pytest.raises(MemoryError):
        producer.put(one, sample_id="b", metadata=META)
    consumer.release(consumer.get(ref)[1])  # by another process, as far as the producer can tell
    wait_until(lambda: not consumer._attachment.store.exists("a"), "a is free")
    producer.put(one, sample_id="b", metadata=META)
    assert producer.health()["resident_samples"] == 1


def test_a_full_broker_is_a_memory_error(make: Make) -> None:
    store = make(store_id="small", put_timeout_s=0.0)
    with pytest.raises(MemoryError) as caught:
        for i in range(20):
            store.put({"x": torch.zeros(64 << 10)}, sample_id=f"s{i}", metadata=META)
    assert isinstance(caught.value, fb.Full)
    for i in range(20):
        store.abort(f"s{i}", reason="done")


def test_gc(make: Make, sid: str) -> None:
    clock = Clock()
    store = make(max_hold_age_s=10.0, clock=clock)
    other = make()
    refs = [
        store.put(tensors(), sample_id=f"{sid}-{what}", metadata=META)
        for what in ("idle", "here", "there")
    ]
    here, there = store.get(refs[1])[1], other.get(refs[2])[1]
    assert store.gc()["force_freed"] == 0
    clock.now += 11
    young = store.put(tensors(), sample_id=f"{sid}-young", metadata=META)
    report = store.gc()
    assert report == {"force_freed": 1, "force_freed_bytes": 228, "release_pending": 0}
    assert store.health()["force_freed_total"] == 1
    with pytest.raises(KeyError):
        store.get(refs[0])
    store.release(here)
    other.release(there)
    store.release(store.get(young)[1])


def test_samples_of_other_processes(make: Make, sid: str) -> None:
    """A capture server puts, and SpecForge makes refs of its own with a generation of its own."""
    server, store = make(), make()
    ref = server.put(tensors(), sample_id=sid, metadata=META)
    fields = {name: getattr(ref, name) for name in ref.__dataclass_fields__}
    fields["feature_store_uri"] = f"mooncake://run/{sid}"
    fields["metadata"] = {"generation": 1}
    foreign = type(ref)(**fields)
    store.track_external_attempt(sid, generation=1, feature_names=list(foreign.feature_keys))
    assert store.health()["provisional_external"] == 1
    store.adopt(foreign)
    assert store.health()["provisional_external"] == 0
    assert store.discard_external_attempts() == 0
    got, handle = store.get(foreign)
    assert handle.generation == 1 and torch.equal(got["target"], tensors()["target"])
    store.release(handle)
    with pytest.raises(KeyError):
        store.get(foreign)

    server.put(tensors(), sample_id=sid, metadata=META)  # its answer is lost
    store.track_external_attempt(sid, generation=1, feature_names=["target"])
    assert store.discard_external_attempts(reason="terminal") == 1
    with pytest.raises(KeyError):
        store.get(foreign)
    store.adopt(server.put(tensors(), sample_id=sid, metadata=META))
    store.track_external_attempt(sid, generation=1, feature_names=["target"])
    with pytest.raises(RuntimeError, match="adopted generation is"):
        store.discard_external_attempts()
    store.abort(sid, reason="done")
    with pytest.raises(ValueError, match="at least one feature"):
        store.track_external_attempt(sid, generation=1, feature_names=[])
    fields["metadata"] = {}
    with pytest.raises(ValueError, match="no generation"):
        store.adopt(type(ref)(**fields))


@pytest.mark.parametrize("records", ["our records"], indirect=True)
def test_frees_are_not_lost_while_the_broker_is_away(folder: Path, sid: str) -> None:
    broker = Broker(folder, f"mortal{next(_numbers)}").start()
    store = BrokerFeatureStore(
        store_id="run", socket_path=broker.socket_path, max_release_attempts=1
    )
    ref = store.put(tensors(), sample_id=sid, metadata=META)
    broker.kill()
    # Calls wait 10 s for a broker that may come back; that is not what is tested here.
    attached, client = store._attachment.store, store._attachment.client
    abort, ask = attached.abort, client.health
    attached.abort = client.health = _unavailable  # type: ignore[method-assign,assignment]
    store.abort(sid, reason="done")
    health = store.health()
    assert health["release_pending"] == 1 and health["resident_samples"] == 1
    assert health["broker"] is None
    with pytest.raises(KeyError, match="was freed here"):
        store.get(ref)
    for _ in range(2):
        assert store.gc()["release_pending"] == 1
    assert store.retry_sample_removals(["another"])["remaining_ids"] == []
    report = store.retry_sample_removals([sid])
    assert report["remaining_ids"] == [sid] and report["removed"] == 0
    slept: list[float] = []
    with pytest.raises(RuntimeError, match="could not drain 1 pending removal"):
        store.drain_pending_removals(max_attempts=3, retry_interval_s=0.5, sleep=slept.append)
    assert slept == [0.5, 0.5]
    assert store.drain_sample_removals(["another"])["release_pending"] == 0
    broker.start()
    attached.abort, client.health = abort, ask  # type: ignore[method-assign]
    report = store.drain_sample_removals([sid], max_attempts=20)
    assert report["removed"] == 1 and report["release_pending"] == 0
    assert store.health()["release_pending"] == 0
    assert store.health()["resident_samples"] == 0
    assert store.drain_pending_removals()["attempts"] == 0
    store.close()
    broker.stop()


def _unavailable(key: Any = None) -> None:
    raise fb.Unavailable("the broker is away", key)


def test_tokens(make: Make, fresh: str, sid: str) -> None:
    auth = AuthPolicy("s3cret")
    for wrong in ("wrong", None):
        with pytest.raises(PermissionError):
            make(auth=auth, credential=wrong)
    store = make(store_id=fresh, auth=auth, credential="s3cret", max_resident_bytes=1 << 20)
    assert store.health()["auth_required"] and not make().health()["auth_required"]
    ref = store.put(tensors(), sample_id=sid, metadata=META)
    # A process that does not check itself is refused by the broker.
    for wrong in ("wrong", None):
        with pytest.raises(fb.Denied):
            make(store_id=fresh, credential=wrong)
    with pytest.raises(PermissionError):
        make(store_id=fresh, auth=AuthPolicy("another"), credential="another")
    reader = make(store_id=fresh, credential="s3cret")
    reader.release(reader.get(ref)[1])


def test_arguments_that_mean_nothing_here(make: Make) -> None:
    for arguments, what in (
        ({"replica_num": 2}, "replica_num=2"),
        ({"receive_buffers": "mmap"}, "receive_buffers"),
        ({"receive_pool_bytes": 0}, "receive_pool_bytes"),
        ({"max_quarantined_bytes": -1}, "max_quarantined_bytes"),
    ):
        with pytest.raises(ValueError, match=what):
            make(**arguments)
    store = make(setup_kwargs={"protocol": "rdma"}, hard_pin=False)
    assert store.health()["hard_pin"] is True


def test_health_has_the_keys_of_the_mooncake_store(make: Make) -> None:
    wanted = {
        "store_id", "backend", "resident_samples", "provisional_external", "active_leases",
        "resident_bytes", "max_resident_bytes", "auth_required", "release_pending",
        "oldest_age_s", "avg_age_s", "force_freed_total", "hard_pin", "quarantined_buffers",
        "quarantined_bytes", "max_quarantined_bytes", "receive_buffers", "receive_pool_bytes",
        "receive_pool_free_slots", "receive_pool_quarantined_bytes", "receive_pool_hits",
        "receive_pool_grown", "receive_pool_overflow", "receive_pool_quarantined",
    }  # fmt: skip
    clock = Clock()
    store = make(clock=clock)
    health = store.health()
    assert wanted <= set(health) and health["oldest_age_s"] == 0.0
    before = health["resident_samples"]
    store.put(tensors(), sample_id="aged", metadata=META)
    clock.now += 5
    health = store.health()
    assert health["resident_samples"] == before + 1 and health["oldest_age_s"] == 5.0
    assert health["broker"]["node"] == "solo"
    store.abort("aged", reason="done")
    assert store.health()["resident_samples"] == before
    assert store.health()["oldest_age_s"] == 0.0


def test_consumer_device(make: Make, monkeypatch: pytest.MonkeyPatch, sid: str) -> None:
    assert make().consumer_device() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make(receive_buffers="pinned").consumer_device() is None
    cuda = make(receive_buffers="cuda")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert cuda.consumer_device() == torch.device("cuda", 2)
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert cuda.consumer_device() == torch.device("cuda", 3)
    ref = cuda.put(tensors(), sample_id=sid, metadata=META)
    with pytest.raises(ValueError, match="device-side consumer"):
        cuda.get(ref)
    cuda.abort(sid, reason="done")


def _consume(store: BrokerFeatureStore, ref: Any, answers: Any) -> None:
    got, handle = store.get(ref)
    store.release(handle)
    answers.put(float(got["target"].sum()))
    store.close()


def test_threads(make: Make, sid: str) -> None:
    store = make()

    def work(number: int) -> bool:
        given = tensors(number)
        ref = store.put(given, sample_id=f"{sid}-{number}", metadata=META)
        got, handle = store.get(ref)
        same = all(torch.equal(got[name], tensor) for name, tensor in given.items())
        store.release(handle)
        with pytest.raises(KeyError):
            store.get(ref)
        return same

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(400)))
    health = store.health()
    assert (health["active_leases"], health["release_pending"], health["oldest_age_s"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("method", "records"),
    [("fork", "our records"), ("fork", "SpecForge's records"), ("spawn", "SpecForge's records")],
    indirect=["records"],
)
def test_workers(make: Make, sid: str, method: str) -> None:
    """A store goes into workers of a DataLoader."""
    store = make()
    ref = store.put(tensors(), sample_id=sid, metadata=META)
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    worker = context.Process(target=_consume, args=(store, ref, answers))
    worker.start()
    assert answers.get(timeout=DEADLINE_S) == float(tensors()["target"].sum())
    worker.join(DEADLINE_S)
    assert worker.exitcode == 0
    with pytest.raises(KeyError):
        store.get(ref)


def _produce(socket_path: str, refs: Any) -> None:
    store = BrokerFeatureStore(store_id="run", socket_path=socket_path)
    for i in range(3):
        refs.put(store.put(tensors(i), sample_id=f"orphan-{os.getpid()}-{i}", metadata=META))
    refs.close()
    refs.join_thread()
    os.kill(os.getpid(), 9)


def test_samples_outlive_their_producer(pair: tuple[Broker, Broker]) -> None:
    home, away = pair
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    producer = context.Process(target=_produce, args=(home.socket_path, queue))
    producer.start()
    refs = [queue.get(timeout=DEADLINE_S) for _ in range(3)]
    producer.join(DEADLINE_S)
    assert producer.exitcode == -9
    with BrokerFeatureStore(store_id="run", socket_path=away.socket_path) as store:
        for i, ref in enumerate(refs[:2]):
            got, handle = store.get(ref)
            assert torch.equal(got["target"], tensors(i)["target"])
            store.release(handle)
        store.adopt(refs[2])
        assert store.health()["resident_samples"] == 1  # the one at home elsewhere
        store.abort(refs[2].sample_id, reason="done")
        store.drain_pending_removals()
        for ref in refs:
            with pytest.raises(KeyError):
                store.get(ref)
