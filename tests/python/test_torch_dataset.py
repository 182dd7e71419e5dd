# SPDX-License-Identifier: Apache-2.0
"""feature_broker.torch: order, shards, workers, acks and resuming."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any, Iterator

import pytest

torch = pytest.importorskip("torch")

import feature_broker as fb  # noqa: E402
from brokers import Broker  # noqa: E402
from feature_broker.torch import Batch, FeatureDataset, Item, collate, read_manifest  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

COUNT = 23


@pytest.fixture
def refs(broker: Broker) -> Iterator[list[fb.Ref]]:
    """Samples 0 to 22 of the store keep; each holds its number and a tensor of its own length."""
    with broker.connect() as client, client.store("keep") as store:
        refs = [
            store.put(
                f"d{number}",
                {"number": torch.tensor([number]), "long": torch.full((number + 1, 3), float(number))},
            )
            for number in range(COUNT)
        ]
        yield refs
        store.abort(refs)


def make(broker: Broker, keys: Any, **options: Any) -> FeatureDataset:
    return FeatureDataset("keep", keys, socket_path=broker.socket_path, **options)


def numbers(source: Any) -> list[int]:
    """Which samples came, in their order, from a dataset or a loader of batches."""
    seen: list[int] = []
    for got in source:
        for number in [got.tensors["number"]] if isinstance(got, Item) else got["number"]:
            seen.append(int(number))
    return seen


def loader(data: FeatureDataset, workers: int = 0, context: str | None = None, **options: Any) -> Any:
    return DataLoader(
        data, batch_size=4, num_workers=workers, multiprocessing_context=context,
        collate_fn=collate, **options,
    )  # fmt: skip


def test_items_have_their_tensors(broker: Broker, refs: list[fb.Ref]) -> None:
    data = make(broker, refs)
    items = list(data)
    assert [item.ref for item in items] == refs
    assert [item.position for item in items] == list(range(COUNT))
    for number, item in enumerate(items):
        assert torch.equal(item.tensors["long"], torch.full((number + 1, 3), float(number)))
    assert [list(item.tensors) for item in make(broker, refs[:2], names=["number"])] == [["number"]] * 2
    data.close()
    assert numbers(data) == list(range(COUNT))


@pytest.mark.parametrize("form", ["uri", "json", "ids"])
def test_keys_may_be_a_manifest(broker: Broker, refs: list[fb.Ref], tmp_path: Path, form: str) -> None:
    path = tmp_path / "refs"
    if form == "uri":
        path.write_text("# a run\n\n" + "".join(f"{ref.uri}\n" for ref in refs))
    elif form == "json":  # as featurectl ingest writes it
        lines = [
            {"store": "keep", "sample_id": ref.sample_id, "ref": base64.b64encode(ref.to_bytes()).decode()}
            for ref in refs
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = [f"d{number}" for number in range(COUNT)] if form == "ids" else path
    assert numbers(make(broker, keys)) == list(range(COUNT))


def test_featurectl_writes_manifests_that_are_read(broker: Broker, tmp_path: Path) -> None:
    samples = Path(__file__).resolve().parents[1] / "data"
    path = tmp_path / "refs.jsonl"
    broker.ctl("ingest", str(samples), "--store", "keep", "--manifest", str(path))
    items = list(make(broker, path))
    assert sorted(item.ref.sample_id for item in items) == sorted(
        file.stem for file in samples.glob("*.safetensors")
    )
    with broker.connect() as client, client.store("keep") as store:
        store.abort([item.ref for item in items])


def test_a_line_that_is_no_ref_is_named(tmp_path: Path) -> None:
    path = tmp_path / "refs"
    for wrong in ("feature://", "/some/file", '{"store": "keep"}', '{"ref": "$"}', "{"):
        path.write_text(f"# first\n{wrong}\n")
        with pytest.raises(fb.Invalid, match="refs, line 2: "):
            read_manifest(path)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches_in_the_same_order(
    broker: Broker, refs: list[fb.Ref], context: str
) -> None:
    data = make(broker, refs, shuffle=True, seed=5, block=4)
    alone = numbers(loader(data))  # so the parent has a connection, which is nothing to its children
    assert sorted(alone) == list(range(COUNT)) and alone != sorted(alone)
    assert numbers(loader(data, 2, context)) == alone
    assert numbers(loader(data, 3, context)) == alone


def test_each_epoch_has_its_own_order_that_seed_and_epoch_give(
    broker: Broker, refs: list[fb.Ref]
) -> None:
    data = make(broker, refs, shuffle=True, seed=1, block=4)
    persistent = loader(data, 2, "fork", persistent_workers=True)
    orders = []
    for epoch in range(3):
        data.set_epoch(epoch)
        orders.append(numbers(persistent))
        again = make(broker, refs, shuffle=True, seed=1)
        again.set_epoch(epoch)
        assert numbers(again) == orders[-1]
    assert len({tuple(order) for order in orders}) == 3
    assert numbers(make(broker, refs, shuffle=True, seed=2)) != orders[0]
    del persistent


def test_ranks_share_the_samples(broker: Broker, refs: list[fb.Ref]) -> None:
    shards = [
        numbers(loader(make(broker, refs, shuffle=True, rank=rank, world_size=3, block=4), 2, "fork"))
        for rank in range(3)
    ]
    assert [len(shard) for shard in shards] == [7, 7, 7]  # 23 // 3: every rank has as many
    assert len({number for shard in shards for number in shard}) == 21
    with pytest.raises(fb.Invalid, match="rank 3 of world_size 3"):
        make(broker, refs, rank=3, world_size=3)


def test_a_batch_is_stacked_where_shapes_agree(broker: Broker, refs: list[fb.Ref]) -> None:
    batch = next(iter(loader(make(broker, refs))))
    assert isinstance(batch, Batch) and len(batch) == 4
    assert batch["number"].shape == (4, 1)
    assert [tensor.shape for tensor in batch["long"]] == [(1, 3), (2, 3), (3, 3), (4, 3)]
    moved = batch.to(torch.device("cpu"))
    assert moved.refs == refs[:4] and torch.equal(moved["number"], batch["number"])
    items = [Item(refs[0], {"a": torch.zeros(1)}, 0), Item(refs[1], {"b": torch.zeros(1)}, 1)]
    with pytest.raises(fb.Invalid, match=r"sample d1 has the tensors \['b'\]"):
        collate(items)


def test_ack_retires_and_a_restart_skips_what_was_acked(broker: Broker) -> None:
    with broker.connect() as client, client.store("ack") as store:
        refs = [store.put(f"a{number}", {"number": torch.tensor([number])}) for number in range(10)]
        data = FeatureDataset("ack", refs, socket_path=broker.socket_path, block=4)
        for batch in loader(data):
            data.ack(batch)
            assert not any(store.exists(ref) for ref in batch.refs)
            if len(batch.positions) and batch.positions[-1] == 7:
                break
        again = FeatureDataset("ack", refs, socket_path=broker.socket_path)
        with pytest.raises(fb.NotFound, match="a0"):
            list(again)
        again = FeatureDataset("ack", refs, socket_path=broker.socket_path, missing="skip")
        assert numbers(again) == [8, 9]
        store.ack(refs)


def test_resuming_goes_on_behind_the_last_acked_ref(broker: Broker, refs: list[fb.Ref]) -> None:
    whole = make(broker, refs, shuffle=True, seed=3, block=4)
    whole.set_epoch(2)
    order = numbers(whole)
    first = make(broker, refs, shuffle=True, seed=3, block=4)
    first.set_epoch(2)
    batches = list(loader(first, 2, "fork"))
    for batch in (batches[0], batches[1], batches[3]):  # 2 is still under way when the run is killed
        first.note_done(batch.positions)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert (state["epoch"], state["done"]) == (2, 8) and state["after"] == refs[order[7]].uri
    second = make(broker, refs, shuffle=True, seed=3, block=4)
    second.load_state_dict(state)
    second.set_epoch(2)
    assert numbers(loader(second, 2, "fork")) == order[8:]
    second.set_epoch(3)
    assert sorted(numbers(second)) == list(range(COUNT))
    with pytest.raises(fb.Invalid, match="other samples, another seed"):
        make(broker, refs, shuffle=True, seed=4).load_state_dict(state)


def test_transform_runs_in_the_worker(broker: Broker, refs: list[fb.Ref]) -> None:
    data = make(broker, refs, transform=double)
    assert list(DataLoader(data, batch_size=None, num_workers=1)) == [2 * i for i in range(COUNT)]


def double(item: Item) -> int:
    return 2 * int(item.tensors["number"])
