# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, and other signals whose handlers raise, end every call that waits; nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest

import feature_broker as fb
from brokers import DEADLINE_S, STORES, Broker, start_pair, temporary_folder, wait_until

HALF = np.zeros(600 << 10, np.uint8)  # of which the store small takes one
SMALL = np.zeros(60 << 10, np.uint8)  # that goes in a message
LONG_S = 20 * DEADLINE_S  # that no test waits for: a call which is not interrupted fails it


class Stop(BaseException):
    """What the handler raises."""


@pytest.fixture
def interrupted() -> Iterator[Callable[[Callable[[], Any], Callable[[], Any]], None]]:
    """A function that makes a call and interrupts it, once a condition says that it waits."""

    def handler(number: int, frame: Any) -> None:
        raise Stop

    def interrupt(call: Callable[[], Any], waits: Callable[[], Any]) -> None:
        main = threading.get_ident()
        failures: list[BaseException] = []

        def send() -> None:
            try:
                wait_until(waits, "the call waits")
            except BaseException as error:  # noqa: BLE001
                failures.append(error)
            signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=send)
        with pytest.raises(Stop):
            thread.start()
            call()
        thread.join()
        assert not failures

    before = signal.signal(signal.SIGUSR1, handler)
    yield interrupt
    signal.signal(signal.SIGUSR1, before)


def waiters(broker: Broker, kind: str = "put") -> Callable[[], bool]:
    """Whether somebody waits at the broker."""
    return lambda: any(
        f'"{kind}_waiters":{number}' in broker.ctl("stores", "--json") for number in range(1, 300)
    )


@pytest.fixture
def full(broker: Broker, client: fb.Client, sample_id: str) -> Iterator[fb.Store]:
    """The store small with no room left but what is too little for SMALL."""
    with client.store("small", framework="numpy") as store:
        refs = [store.put(f"{sample_id}-full", {"x": HALF})]
        try:
            while True:
                refs.append(store.put(f"{sample_id}-full-{len(refs)}", {"x": SMALL}, timeout_s=0))
        except fb.Full:
            pass
        yield store
        store.abort(refs)


Put = Callable[[fb.Store, str], Any]
PUTS: dict[str, Put] = {
    "large": lambda store, key: store.put(key, {"x": HALF}, timeout_s=LONG_S),
    "small": lambda store, key: store.put(key, {"x": SMALL}, timeout_s=LONG_S),
    "for ever": lambda store, key: store.put(key, {"x": SMALL}, timeout_s=None),
    "strided": lambda store, key: store.put(key, {"x": HALF[::2]}, timeout_s=LONG_S),
    "many small": lambda store, key: store.put_many(
        [(f"{key}-{i}", {"x": SMALL}) for i in range(200)], timeout_s=LONG_S
    ),
    "many large": lambda store, key: store.put_many(
        [(f"{key}-{i}", {"x": HALF}) for i in range(200)], timeout_s=LONG_S
    ),
    "reserve": lambda store, key: store.reserve(key, {"x": ("U8", (600 << 10,))}, timeout_s=LONG_S),
}


@pytest.mark.parametrize("how", list(PUTS))
def test_a_put_that_waits_for_room(
    broker: Broker, full: fb.Store, sample_id: str, how: str, interrupted: Any
) -> None:
    interrupted(lambda: PUTS[how](full, sample_id), waiters(broker))
    wait_until(lambda: not waiters(broker)(), "nobody waits any more")
    full.abort([stat.sample_id for stat in full.list() if "full" in stat.sample_id])
    # There is room now, and nobody who was interrupted takes it.
    kept = full.put(f"{sample_id}-kept", {"x": HALF}, timeout_s=DEADLINE_S)
    assert [stat.sample_id for stat in full.list()] == [kept.sample_id]
    full.abort(kept)
    room = full.reserve(sample_id, {"x": ("U8", (1000 << 10,))}, timeout_s=DEADLINE_S)
    room.cancel()


def test_a_get_and_a_drain_of_a_broker_that_stands_still(sample_id: str, interrupted: Any) -> None:
    for folder in temporary_folder():
        broker = Broker(folder, "frozen", STORES).start()
        process = broker.process
        assert process is not None
        try:
            with broker.connect() as client, client.store("run", framework="numpy") as store:
                ref = store.put(sample_id, {"x": SMALL})
                process.send_signal(signal.SIGSTOP)
                for call in (
                    lambda: store.get(ref, timeout_s=LONG_S),
                    lambda: store.get(ref, copy=False, timeout_s=LONG_S),
                    lambda: next(iter(store.get_many([ref], timeout_s=LONG_S))),
                    lambda: store.put(sample_id + "-2", {"x": SMALL}, timeout_s=LONG_S),
                    lambda: client.drain(LONG_S),
                ):
                    interrupted(call, lambda: True)
                process.send_signal(signal.SIGCONT)
                # What was granted meanwhile is handed back.
                wait_until(lambda: client.health().leases == 0, "no leases are left")
                assert np.array_equal(store.get(ref, timeout_s=DEADLINE_S)["x"], SMALL)
                store.abort([ref, sample_id + "-2"])
        finally:
            process.send_signal(signal.SIGCONT)
            broker.stop()


def test_a_get_whose_home_stands_still(sample_id: str, interrupted: Any) -> None:
    for folder in temporary_folder():
        home, away = start_pair(folder)
        process = home.process
        assert process is not None
        try:
            with home.connect() as producer, away.connect() as consumer:
                ref = producer.store("run").put(sample_id, {"x": HALF})
                store = consumer.store("run", framework="numpy")
                process.send_signal(signal.SIGSTOP)
                interrupted(lambda: store.get(ref, timeout_s=LONG_S), lambda: True)
                interrupted(lambda: store.get(ref, copy=False, timeout_s=LONG_S), lambda: True)
                process.send_signal(signal.SIGCONT)
                wait_until(lambda: consumer.health().leases == 0, "no leases are left")
                wait_until(lambda: producer.health().leases == 0, "nor at home")
                wait_until(lambda: got(store, ref), "it can be read again")
        finally:
            process.send_signal(signal.SIGCONT)
            away.stop()
            home.stop()


def got(store: fb.Store, ref: fb.Ref) -> bool:
    try:
        return np.array_equal(store.get(ref)["x"], HALF)
    except fb.Unavailable:
        return False


def test_a_call_without_a_broker(sample_id: str, interrupted: Any) -> None:
    for folder in temporary_folder():
        broker = Broker(folder, "away", STORES).start()
        with broker.connect() as client, client.store("run", framework="numpy") as store:
            broker.kill()
            interrupted(lambda: store.put(sample_id, {"x": SMALL}, timeout_s=LONG_S), lambda: True)
            interrupted(lambda: store.get(sample_id, timeout_s=LONG_S), lambda: True)


def test_a_handler_that_raises_nothing_changes_nothing(
    broker: Broker, full: fb.Store, sample_id: str
) -> None:
    """It runs during the call, and may make calls of its own."""
    seen: list[bool] = []

    def handler(number: int, frame: Any) -> None:
        seen.append(full.exists(sample_id))
        full.abort([stat.sample_id for stat in full.list()])  # makes room

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.get_ident()

    def send() -> None:
        wait_until(waiters(broker), "the put waits")
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=send)
    try:
        thread.start()
        ref = full.put(sample_id, {"x": HALF}, timeout_s=LONG_S)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert seen == [False] and full.exists(ref)
    full.abort(ref)


def test_other_threads_are_not_interrupted(
    broker: Broker, full: fb.Store, sample_id: str, interrupted: Any
) -> None:
    refs: list[fb.Ref] = []
    other = threading.Thread(
        target=lambda: refs.append(full.put(sample_id, {"x": HALF}, timeout_s=LONG_S))
    )
    other.start()
    wait_until(waiters(broker), "the other one waits")
    interrupted(
        lambda: full.put(sample_id + "-2", {"x": HALF}, timeout_s=LONG_S),
        lambda: '"put_waiters":2' in broker.ctl("stores", "--json"),
    )
    full.abort([stat.sample_id for stat in full.list()])
    other.join()
    assert full.exists(refs[0]) and not full.exists(sample_id + "-2")
    full.abort(refs)


def test_ctrl_c_ends_a_program_that_waits(broker: Broker, full: fb.Store, sample_id: str) -> None:
    code = (
        "import signal, sys, feature_broker as fb\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "store = fb.connect(sys.argv[1], timeout_s=120).store('small')\n"
        f"store.put(sys.argv[2], {{'x': bytes(600 << 10)}}, timeout_s={LONG_S})\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, broker.socket_path, sample_id],
        stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    wait_until(waiters(broker), "the put waits")
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=DEADLINE_S)
    assert error.rstrip().endswith("KeyboardInterrupt") and "Timeout" not in error
    assert child.returncode == -signal.SIGINT
    wait_until(lambda: not waiters(broker)(), "nobody waits any more")


@pytest.mark.parametrize("array", [HALF, SMALL], ids=["large", "small"])
def test_an_aput_that_is_cancelled(
    broker: Broker, full: fb.Store, sample_id: str, array: np.ndarray
) -> None:
    async def run() -> None:
        putting = asyncio.ensure_future(full.aput(sample_id, {"x": array}, timeout_s=LONG_S))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, wait_until, waiters(broker), "the put waits")
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting

    asyncio.run(run())  # which waits for its threads
    assert not waiters(broker)()
    full.abort([stat.sample_id for stat in full.list()])
    assert not full.list()
    gc.collect()


def test_the_drop_in(broker: Broker, sample_id: str, interrupted: Any) -> None:
    from mooncake_world import SMALL_STORE, Memory, connect

    for folder in temporary_folder():
        small = Broker(Path(folder), "drop", SMALL_STORE).start()
        store = connect(small.socket_path, put_wait_s=LONG_S)
        memory = Memory(600 << 10)
        assert store.put_from("a", memory.address, memory.size) == 0
        for call in (
            lambda: store.put_from("b", memory.address, memory.size),
            lambda: store.batch_put_from(["b", "c"], [memory.address] * 2, [memory.size] * 2),
            lambda: store.put_tensor("b", memory.bytes),
        ):
            interrupted(call, waiters(small))
            wait_until(lambda: not waiters(small)(), "nobody waits any more")
        # The frames of the calls are parts of circles: memoryviews and cffi's pointers to them may be
        # freed in any order.
        gc.collect()
        assert store.remove("a") == 0
        assert store.put_from("b", memory.address, memory.size) == 0
        assert store.close() == 0
        small.stop()
