# SPDX-License-Identifier: Apache-2.0
"""The released SpecForge's own parts on a BrokerFeatureStore: its loader, its acknowledgements at the
optimizer step, its restart, its channel of refs, and its helpers at the end of a run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Iterator

import pytest

import released
from brokers import Broker

torch = pytest.importorskip("torch")

META = {"run_id": "run0", "num_tokens": 4, "strategy": "eagle3"}

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    released.importable(monkeypatch, "specforge")


@pytest.fixture
def stores(broker: Broker) -> Iterator[tuple[Any, Any]]:
    """A producer's and a consumer's, as an online run has them."""
    from feature_broker.specforge import BrokerFeatureStore

    where = {"store_id": "run", "socket_path": broker.socket_path}
    with BrokerFeatureStore(**where) as producer:
        with BrokerFeatureStore(**where, retain_on_release=True) as consumer:
            yield producer, consumer


def put(store: Any, count: int) -> list[Any]:
    start = next(_numbers)
    return [
        store.put(
            {"hidden_state": torch.full((4, 8), float(i)), "input_ids": torch.arange(4)},
            sample_id=f"run0:r{start}-{i}",
            metadata=META,
        )
        for i in range(count)
    ]


def resident(store: Any, refs: list[Any]) -> list[bool]:
    return [store._attachment.store.exists(ref.feature_store_uri) for ref in refs]


def test_it_counts_as_a_feature_store(stores: tuple[Any, Any]) -> None:
    from specforge.runtime.contracts import SampleRef, assert_no_tensors
    from specforge.runtime.data_plane.feature_store import FeatureStore

    assert isinstance(stores[0], FeatureStore)
    (ref,) = put(stores[0], 1)
    assert isinstance(ref, SampleRef)
    assert_no_tensors(ref)
    stores[0].abort(ref.sample_id, reason="done")


def test_loader(stores: tuple[Any, Any]) -> None:
    """Two epochs over the same refs; the store keeps what it released."""
    from specforge.runtime.data_plane.feature_dataloader import FeatureDataLoader

    producer, consumer = stores
    refs = put(producer, 4)
    loader = FeatureDataLoader(consumer, refs=refs, batch_size=2, gc_interval_s=0.0)
    for _ in range(2):
        batches = list(loader)
        assert [batch.sample_ids for batch in batches] == [
            [ref.sample_id for ref in refs[:2]], [ref.sample_id for ref in refs[2:]],
        ]  # fmt: skip
        assert batches[1].tensors["hidden_state"][1].unique().tolist() == [3.0]
    assert consumer.health()["active_leases"] == 0 and resident(consumer, refs) == [True] * 4
    for ref in refs:
        producer.abort(ref.sample_id, reason="done")


def test_ack_at_the_optimizer_step(stores: tuple[Any, Any]) -> None:
    """What is durable is freed at once; what is only prefetched stays for a replay."""
    from specforge.runtime.control_plane.dp_ack import DPAckController
    from specforge.runtime.control_plane.metadata_store import InMemoryMetadataStore

    producer, consumer = stores
    durable, prefetched = put(producer, 2)
    for ref in (durable, prefetched):
        consumer.release(consumer.get(ref)[1])
    controller = DPAckController(
        "run0", feature_store=consumer, metadata_store=InMemoryMetadataStore()
    )
    controller.commit_samples("distributor", [durable, prefetched])
    controller.ack_train_refs(
        "trainer", [durable.sample_id], global_step=1, optimizer_durable=True
    )
    assert resident(producer, [durable, prefetched]) == [False, True]
    assert consumer.health()["release_pending"] == 0
    producer.abort(prefetched.sample_id, reason="done")


def test_restart(stores: tuple[Any, Any]) -> None:
    """A trainer that starts again frees what was acknowledged, though it never read it."""
    from specforge.runtime.control_plane.controller import DataFlowController
    from specforge.runtime.control_plane.metadata_store import InMemoryMetadataStore

    producer, restarted = stores
    refs = put(producer, 2)
    ledger = InMemoryMetadataStore()
    before = DataFlowController("run0", metadata_store=ledger)
    before.commit_samples("distributor", refs)
    before.ack_train_refs(
        "trainer", [refs[0].sample_id], global_step=4, optimizer_durable=True
    )
    after = DataFlowController("run0", metadata_store=ledger)
    report = after.reconcile_on_restart(restarted)
    assert report["released"] == [refs[0].sample_id]
    assert report["requeued"] == [refs[1].sample_id]
    assert resident(producer, refs) == [False, True]
    producer.abort(refs[1].sample_id, reason="done")


def test_refs_go_through_its_channel(stores: tuple[Any, Any], tmp_path: Path) -> None:
    """Refs travel as JSON there; a generation needs all its 64 bits."""
    from specforge.runtime.data_plane.streaming_ref_channel import StreamingRefChannel

    producer, consumer = stores
    refs = put(producer, 2)
    channel = StreamingRefChannel(str(tmp_path / "refs.jsonl"))
    channel.publish_many(refs)
    read = list(StreamingRefChannel(str(tmp_path / "refs.jsonl")).poll())
    assert [ref.metadata["generation"] for ref in read] == [
        ref.metadata["generation"] for ref in refs
    ]
    for ref in read:
        consumer.release(consumer.get(ref)[1])
        consumer.abort(ref.sample_id, reason="done")
    assert resident(producer, refs) == [False, False]


def test_the_end_of_a_run(stores: tuple[Any, Any]) -> None:
    from specforge.runtime.data_plane.feature_store import (
        drain_feature_store_removals,
        drain_feature_store_sample_removals,
    )

    producer, consumer = stores
    (ref,) = put(producer, 1)
    producer.abort(ref.sample_id, reason="done")
    assert drain_feature_store_sample_removals(producer, [ref.sample_id])["release_pending"] == 0
    for store in stores:
        assert drain_feature_store_removals(store)["release_pending"] == 0


def test_install(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """SpecForge's own code makes the store when its configuration says backend: mooncake."""
    import specforge.runtime.data_plane.mooncake_store as module

    from feature_broker.specforge import BrokerFeatureStore, install

    monkeypatch.setattr(module, "MooncakeFeatureStore", module.MooncakeFeatureStore)
    install()
    from specforge.runtime.data_plane.mooncake_store import MooncakeFeatureStore

    assert MooncakeFeatureStore is BrokerFeatureStore
    monkeypatch.setenv("FEATURED_SOCKET", broker.socket_path)
    setup = {"metadata_server": "P2PHANDSHAKE", "master_server_addr": "127.0.0.1:50051"}
    with MooncakeFeatureStore(store_id="run", setup_kwargs=setup) as store:
        assert store.health()["backend"] == "featured"
