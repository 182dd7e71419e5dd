# SPDX-License-Identifier: Apache-2.0
"""Gets under way: get_many, and those of asyncio."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import Any, Iterator

import numpy as np
import pytest

import feature_broker as fb
from brokers import DEADLINE_S, Broker, wait_until
from conftest import World

X = np.arange(1000, dtype=np.int32)
BIG = np.arange(1 << 17, dtype=np.float64)  # 1 MiB


def put_all(store: fb.Store, sample_id: str, count: int, array: Any = X) -> list[fb.Ref]:
    return store.put_many([(f"{sample_id}-{i}", {"x": array + i}) for i in range(count)])


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# ---- get_many ----


@pytest.mark.parametrize("array", [X, BIG], ids=["small", "large"])
@pytest.mark.parametrize("ordered", [True, False])
def test_get_many(world: World, sample_id: str, ordered: bool, array: Any) -> None:
    producer, consumer = world.stores()
    refs = put_all(producer, sample_id, 30, array)
    got = []
    for ref, tensors in consumer.get_many(refs, window=8, ordered=ordered, consume=True):
        number = int(ref.sample_id.rsplit("-", 1)[1])
        assert np.array_equal(tensors["x"], array + number)
        got.append(ref)
    assert got == refs if ordered else set(got) == set(refs)
    world.settle()
    assert not producer.list(sample_id)


def test_get_many_takes_keys_as_the_window_moves(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    refs = put_all(store, sample_id, 20)
    taken: list[int] = []

    def keys() -> Iterator[fb.Ref]:
        for number, ref in enumerate(refs):
            taken.append(number)
            yield ref

    for number, _ in enumerate(store.get_many(keys(), window=4)):
        assert len(taken) <= number + 4
        assert client.health().leases <= 4
    assert len(taken) == 20
    store.abort(refs)


def test_get_many_views_and_ids(store: fb.Store, sample_id: str) -> None:
    refs = put_all(store, sample_id, 5)
    for ref, view in store.get_many([ref.sample_id for ref in refs], ["x"], copy=False):
        assert ref in refs and ref.tensors
        assert np.array_equal(view["x"], X + refs.index(ref))
        view.release(consumed=True)
    store.abort(refs)


def test_get_many_that_fails_gives_the_others_back(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    refs = put_all(store, sample_id, 10)
    store.abort(refs[4])
    before = descriptors()
    seen = []
    with pytest.raises(fb.NotFound) as caught:
        for ref, _ in store.get_many(refs, window=4):
            seen.append(ref)
    assert seen == refs[:4] and caught.value.ref == refs[4]
    assert descriptors() == before
    wait_until(lambda: client.health().leases == 0, "the others are given back")
    store.abort(refs)
    for wrong in (0, -1):
        with pytest.raises(fb.Invalid, match="window"):
            store.get_many(refs, window=wrong)
    assert list(store.get_many([])) == []


def test_get_many_that_is_left_gives_back(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    refs = put_all(store, sample_id, 10)
    before = descriptors()
    for _ in store.get_many(refs, window=5):
        break
    gc.collect()
    wait_until(lambda: client.health().leases == 0, "the others are given back")
    assert descriptors() == before
    store.abort(refs)


def test_get_many_that_is_left_gives_back_without_another_call(
    broker: Broker, client: fb.Client, sample_id: str
) -> None:
    """What had been granted when nobody waited for it any more is given back although the program that
    left goes on to something else. Another connection looks."""
    with broker.connect() as busy, busy.store("run", framework="numpy") as store:
        refs = put_all(store, sample_id, 40)
        for _ in range(20):
            for _ in store.get_many(refs, window=20):
                break
            wait_until(lambda: client.health().leases == 0, "all are given back")
        store.abort(refs)


def test_get_many_waits_for_what_is_not_put(store: fb.Store, sample_id: str) -> None:
    ids = [f"{sample_id}-{i}" for i in range(6)]

    def produce() -> None:
        for key in reversed(ids):
            store.put(key, {"x": X})

    threading.Thread(target=produce).start()
    got = [ref.sample_id for ref, _ in store.get_many(ids, window=6, wait_s=DEADLINE_S)]
    assert got == ids
    store.abort(ids)


def test_ctrl_c_ends_a_get_that_waits(store: fb.Store, sample_id: str) -> None:
    main = threading.get_ident()
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has none
    try:
        with pytest.raises(KeyboardInterrupt):  # and no Timeout
            timer.start()
            store.get(sample_id, wait_s=DEADLINE_S)
    finally:
        signal.signal(signal.SIGINT, handler)
    timer.join()


# ---- asyncio ----


def test_1000_gets_in_flight(world: World, sample_id: str) -> None:
    """They wait for samples that are put only when all are under way; without a thread."""
    producer, consumer = world.stores()
    count = 1000

    async def run() -> None:
        threads = threading.active_count()
        if world.home is world.away:  # by id: nobody has put them yet
            gets = [
                asyncio.ensure_future(consumer.aget(f"{sample_id}-{i}", wait_s=DEADLINE_S, consume=True))
                for i in range(count)
            ]
            await asyncio.sleep(0)
            refs = put_all(producer, sample_id, count)
        else:
            refs = put_all(producer, sample_id, count)
            gets = [
                asyncio.ensure_future(consumer.aget(ref, consume=True, timeout_s=DEADLINE_S))
                for ref in refs
            ]
        for number, tensors in enumerate(await asyncio.gather(*gets)):
            assert np.array_equal(tensors["x"], X + number)
        assert threading.active_count() == threads

    before = descriptors()
    asyncio.run(run())
    assert descriptors() <= before
    world.settle()
    assert not producer.list(sample_id)


def test_other_tasks_run_meanwhile(store: fb.Store, sample_id: str) -> None:
    async def run() -> None:
        getting = asyncio.ensure_future(store.aget(sample_id, wait_s=DEADLINE_S))
        turns = 0
        while turns < 100:
            await asyncio.sleep(0)
            turns += 1
        assert not getting.done()
        ref = await store.aput(sample_id, {"x": X}, metadata=b"m")
        assert np.array_equal((await getting)["x"], X)
        view = await store.aget(ref, copy=False, framework="raw")
        assert view.ref.metadata == b"m"
        view.release()

    asyncio.run(run())
    store.abort(sample_id)


def test_aget_many(world: World, sample_id: str) -> None:
    producer, consumer = world.stores()
    refs = put_all(producer, sample_id, 20)

    async def run(ordered: bool) -> None:
        got = []
        async for ref, tensors in consumer.aget_many(refs, window=4, ordered=ordered):
            assert np.array_equal(tensors["x"], X + refs.index(ref))
            got.append(ref)
        assert got == refs if ordered else set(got) == set(refs)
        async for _ in consumer.aget_many(refs, window=4):
            break
        producer.abort(refs[2])
        with pytest.raises(fb.NotFound) as caught:
            async for _ in consumer.aget_many(refs, window=4):
                pass
        assert caught.value.ref == refs[2]
        producer.put(refs[2].sample_id, {"x": X})
        refs[2] = producer.put(refs[2].sample_id, {"x": X + 2})

    asyncio.run(run(True))
    asyncio.run(run(False))
    producer.abort(refs)


def test_aget_that_fails_and_one_that_is_cancelled(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    async def run() -> None:
        with pytest.raises(fb.NotFound) as caught:
            await store.aget(sample_id)
        assert caught.value.ref == sample_id
        with pytest.raises(fb.Timeout):
            await store.aget(sample_id, wait_s=0.1)
        getting = asyncio.ensure_future(store.aget(sample_id, wait_s=60))
        await asyncio.sleep(0)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting
        store.put(sample_id, {"x": X})
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(store.aget(sample_id + "-2", wait_s=60), 0.1)
        # What has been got when its task is cancelled is given back.
        for _ in range(20):
            getting = asyncio.ensure_future(store.aget(sample_id, copy=False, consume=True))
            await asyncio.sleep(0)
            getting.cancel()
            await asyncio.gather(getting, return_exceptions=True)
            del getting
        gc.collect()

    asyncio.run(run())
    wait_until(lambda: client.health().leases == 0, "nothing is held")
    assert store.exists(sample_id)
    store.abort(sample_id)


def test_closing_the_client_ends_what_is_awaited(broker: Broker, sample_id: str) -> None:
    before = descriptors()

    async def run(from_thread: bool) -> None:
        client = broker.connect()
        store = client.store("run")
        getting = asyncio.ensure_future(store.aget(sample_id, wait_s=60))
        await asyncio.sleep(0)
        if from_thread:
            await asyncio.get_running_loop().run_in_executor(None, client.close)
        else:
            client.close()
        with pytest.raises(fb.Invalid, match="closed"):
            await getting
        with pytest.raises(fb.Invalid, match="closed"):
            await store.aget(sample_id)

    asyncio.run(run(False))
    asyncio.run(run(True))
    assert descriptors() <= before


def test_loops_in_several_threads(store: fb.Store, sample_id: str) -> None:
    refs = put_all(store, sample_id, 50)
    failures: list[BaseException] = []

    async def run() -> None:
        for tensors in await asyncio.gather(*(store.aget(ref) for ref in refs)):
            assert tensors["x"].shape == X.shape

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    store.abort(refs)


def test_gets_under_way_outlive_a_restart_of_the_broker(folder: Any, sample_id: str) -> None:
    broker = Broker(folder, "restarted").start()
    with broker.connect() as client, client.store("run", framework="numpy") as store:

        async def run() -> None:
            getting = asyncio.ensure_future(store.aget(sample_id, wait_s=DEADLINE_S, timeout_s=DEADLINE_S))
            await asyncio.sleep(0)
            broker.kill()
            await asyncio.get_running_loop().run_in_executor(None, broker.start)
            await store.aput(sample_id, {"x": X}, timeout_s=DEADLINE_S)
            assert np.array_equal((await getting)["x"], X)

        asyncio.run(run())
    broker.stop()


def test_many_gets_do_not_grow(client: fb.Client, store: fb.Store, sample_id: str) -> None:
    refs = put_all(store, sample_id, 100)
    before = descriptors()
    for _ in range(20):
        asyncio.run(_get_all(store, refs))
        assert len(list(store.get_many(refs, window=16, ordered=False))) == 100
    assert descriptors() == before
    store.abort(refs)


async def _get_all(store: fb.Store, refs: list[fb.Ref]) -> None:
    await asyncio.gather(*(store.aget(ref) for ref in refs))
