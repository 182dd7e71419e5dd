# SPDX-License-Identifier: Apache-2.0
"""The released MooncakeHiddenStatesStore, unmodified, over the mooncake drop-in; also when its
producer has died before the consumer reads, which no object in Mooncake outlives."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import signal
import threading
from typing import Any, Iterator

import pytest

import mooncake_world as world
import released
from brokers import DEADLINE_S, Broker

torch = pytest.importorskip("torch")

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    released.importable(monkeypatch, "hs_connectors")
    released.lend_torch(monkeypatch)


def make_store(broker: Broker) -> Any:
    from hs_connectors.mooncake_store import MooncakeHiddenStatesStore, MooncakeStoreConfig

    config = MooncakeStoreConfig(
        local_hostname="127.0.0.1", master_server_address=world.MASTER_NOWHERE,
        global_segment_size=world.SEGMENT_BYTES, local_buffer_size=0,
    )  # fmt: skip
    with world.environ(FEATURED_SOCKET=broker.socket_path):
        return MooncakeHiddenStatesStore(config).setup()


@pytest.fixture(params=["one node", "two nodes"])
def brokers(request: pytest.FixtureRequest) -> tuple[Broker, Broker]:
    """Where the producer is, and where the consumer is."""
    if request.param == "two nodes":
        home, away = request.getfixturevalue("pair")
        return home, away
    broker = request.getfixturevalue("broker")
    return broker, broker


@pytest.fixture
def ends(brokers: tuple[Broker, Broker]) -> Iterator[tuple[Any, Any]]:
    stores = make_store(brokers[0]), make_store(brokers[1])
    yield stores
    for store in stores:
        assert store._store.close() == 0


def sample(tokens: int = 6) -> tuple[dict[str, Any], dict[str, Any]]:
    """A manifest, as vLLM's answer has it, and the tensors."""
    from hs_connectors.mooncake_store import VERSION, packed_layout

    count = tokens * 3 * 8
    tensors = {
        "hidden_states": torch.arange(count).reshape(tokens, 3, 8).to(torch.bfloat16),
        "token_ids": torch.arange(tokens),
    }
    layout, size = packed_layout(
        {name: (list(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    )
    manifest = {
        "handle": f"cmpl-{os.getpid()}-{next(_numbers)}",
        "version": VERSION,
        "tensors": layout,
        "metadata": {"num_tokens": tokens, "total_aligned_bytes": size},
    }
    return manifest, tensors


def check(got: dict[str, Any], tensors: dict[str, Any]) -> None:
    assert list(got) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(got[name], tensor) and got[name].dtype == tensor.dtype


def test_round_trip(ends: tuple[Any, Any]) -> None:
    producer, consumer = ends
    for tokens in (1, 6, 1000):
        manifest, tensors = sample(tokens)
        producer.put_sample(manifest, tensors)
        check(consumer.get_sample(manifest), tensors)
        check(consumer.get_sample(manifest), tensors)  # a get consumes nothing
        consumer.delete_sample(manifest["handle"])
        consumer.delete_sample(manifest["handle"])
        assert consumer._store.is_exist(manifest["handle"]) == 0
        assert producer._store.is_exist(manifest["handle"]) == 0


def test_a_consumer_that_is_early_waits(ends: tuple[Any, Any]) -> None:
    producer, consumer = ends
    manifest, tensors = sample()
    later = threading.Timer(0.05, producer.put_sample, (manifest, tensors))
    later.start()
    check(consumer.get_sample(manifest, timeout=DEADLINE_S), tensors)
    later.join()
    consumer.delete_sample(manifest["handle"])


def test_errors(ends: tuple[Any, Any]) -> None:
    from hs_connectors.mooncake_store import MooncakeIntegrityError

    producer, consumer = ends
    manifest, _ = sample()
    with pytest.raises(TimeoutError):
        consumer.get_sample(manifest, timeout=0.01)
    producer.put_error(manifest, "the model said NaN")
    with pytest.raises(MooncakeIntegrityError, match="the model said NaN"):
        consumer.get_sample(manifest)
    consumer.delete_sample(manifest["handle"])


def test_its_transfer(brokers: tuple[Broker, Broker], monkeypatch: pytest.MonkeyPatch) -> None:
    """As train.py makes it, from arguments."""
    from hs_connectors import HiddenStatesBackend

    home, away = brokers
    monkeypatch.setenv("MOONCAKE_LOCAL_HOSTNAME", "127.0.0.1")
    backend = HiddenStatesBackend.registry["mooncake"]
    parser = argparse.ArgumentParser()
    backend.add_train_args(parser)
    transfer = backend.from_train_args(
        parser.parse_args(["--mooncake-master", world.MASTER_NOWHERE,
                           "--mooncake-global-segment-gib", "0.0625"]), "/nowhere",
    )  # fmt: skip
    with world.environ(FEATURED_SOCKET=away.socket_path):
        transfer.setup()
    producer = make_store(home)
    manifest, tensors = sample()
    producer.put_sample(manifest, tensors)
    check(transfer.get_generated(manifest), tensors)
    transfer.delete(manifest["handle"])
    assert producer._store.is_exist(manifest["handle"]) == 0
    for store in (producer, transfer.store):
        assert store._store.close() == 0


def test_the_producer_dies_first(brokers: tuple[Broker, Broker]) -> None:
    home, away = brokers
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def produce() -> None:
        store = make_store(home)
        for tokens in (6, 500):
            manifest, tensors = sample(tokens)
            store.put_sample(manifest, tensors)
            queue.put(manifest)
        queue.close()
        queue.join_thread()
        os.kill(os.getpid(), signal.SIGKILL)

    producer = context.Process(target=produce)
    producer.start()
    manifests = [queue.get(timeout=DEADLINE_S) for _ in range(2)]
    producer.join(DEADLINE_S)
    assert producer.exitcode == -signal.SIGKILL
    consumer = make_store(away)
    for manifest in manifests:
        check(consumer.get_sample(manifest), sample(manifest["metadata"]["num_tokens"])[1])
        consumer.delete_sample(manifest["handle"])
    assert consumer._store.close() == 0
