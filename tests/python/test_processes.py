# SPDX-License-Identifier: Apache-2.0
"""Threads, children and ends of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

import feature_broker as fb
from brokers import DEADLINE_S, Broker, wait_until

X = np.arange(1000, dtype=np.int64)


# ---- the GIL ----


def test_the_gil_is_free_while_a_get_waits(store: fb.Store, sample_id: str) -> None:
    """Only a second thread can put what the first one waits for, and only with the GIL. Were it
    held, the get would end with its deadline."""
    threading.Thread(target=lambda: store.put(sample_id, {"x": X})).start()
    assert np.array_equal(store.get(sample_id, wait_s=DEADLINE_S)["x"], X)


def test_the_gil_is_free_while_a_put_waits(client: fb.Client, sample_id: str) -> None:
    small = client.store("small")
    half = np.zeros(600 << 10, np.uint8)
    first = small.put(sample_id, {"x": half})
    threading.Thread(target=lambda: small.ack(first)).start()
    small.ack(small.put(sample_id + "-2", {"x": half}, timeout_s=DEADLINE_S))


def test_the_gil_is_free_while_bytes_are_copied(client: fb.Client, sample_id: str) -> None:
    """A thread counts while this one puts 48 MiB. The interpreter takes the GIL from nobody here
    (the switch interval is longer than the test), so the thread runs only while a put has given it
    back; and it gives it back itself after each step."""
    store = client.store("run", framework="numpy")
    big = np.zeros(48 << 20, np.uint8)
    counted = [0]
    stop = threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1
            time.sleep(0)

    def counted_during_a_put() -> int:
        before = counted[0]
        ref = store.put(sample_id, {"x": big})
        during = counted[0] - before
        store.ack(ref)
        return during

    counter = threading.Thread(target=count)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        counter.start()
        # A step takes about a microsecond, a copy some milliseconds, the two messages of a put some
        # ten microseconds; a machine that has other work may give the thread no time during a copy.
        wait_until(lambda: counted_during_a_put() > 300, "the thread runs during a copy")
    finally:
        stop.set()
        sys.setswitchinterval(interval_s)
        counter.join()


# ---- threads ----


def test_32_threads(client: fb.Client, store: fb.Store, sample_id: str) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(30):
                key = f"{sample_id}-{number}-{turn}"
                mine = X + 1000 * number + turn
                ref = store.put(key, {"x": mine, "y": mine[::2]})
                with store.get(ref, copy=False) as view:
                    assert np.array_equal(view["x"], mine)
                got = store.get(ref, consume=True)
                assert np.array_equal(got["y"], mine[::2])
                assert not store.exists(ref)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not store.list(sample_id)


def test_closing_while_others_are_inside(broker: Broker, sample_id: str) -> None:
    """close() in one thread ends no other thread's call, and nothing crashes."""
    for _ in range(20):
        client = broker.connect()
        store = client.store("run", framework="numpy")
        inside = threading.Barrier(5)

        def work() -> None:
            inside.wait()
            try:
                while True:
                    store.exists(sample_id)
            except fb.Invalid:
                pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        inside.wait()
        client.close()
        for thread in threads:
            thread.join()


# ---- children ----


def test_a_forked_child_gets_a_clear_error(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    ref = store.put(sample_id, {"x": X})
    view = store.get(ref, copy=False)
    x = view["x"]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(fb.Invalid, match="fork"):
                store.get(ref)
            with pytest.raises(fb.Invalid):
                client.health()
            assert np.array_equal(x, X)  # readable, protected by the parent's lease
            view.release(consumed=True)  # changes nothing for the parent
            del x
            store.close()
            client.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.drain()
    assert client.health().leases == 1 and store.exists(ref)
    del x
    view.release(consumed=True)
    client.drain()
    assert not store.exists(ref)


def consume(socket_path: str, uri: str, expected: int) -> bool:
    """What a worker does: connects for itself."""
    with fb.connect(socket_path, timeout_s=DEADLINE_S) as client, client.store("run", framework="numpy") as store:
        got = store.get(uri, consume=True)
        return bool(got["x"][0] == expected)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(
    broker: Broker, client: fb.Client, store: fb.Store, sample_id: str, method: str
) -> None:
    refs = store.put_many([(f"{sample_id}-{i}", {"x": X + i}) for i in range(8)])
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        jobs = [(broker.socket_path, ref.uri, i) for i, ref in enumerate(refs)]
        assert all(pool.starmap(consume, jobs))
    client.drain()
    assert not store.list(sample_id)


# ---- ends ----


def run(code: str, *arguments: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys, feature_broker as fb\n" + code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how,
    )  # fmt: skip


OPEN = (
    "client = fb.connect(sys.argv[1], timeout_s=120)\n"
    "store = client.store('run', framework='numpy')\n"
    "view = store.get(sys.argv[2], copy=False)\n"
    "x = view['x']\n"
)


def test_leases_end_with_the_interpreter(
    broker: Broker, client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    """A script that closes nothing: its leases are given back, and what it consumed last counts."""
    ref = store.put(sample_id, {"x": X})
    other = store.put(sample_id + "-2", {"x": X})
    child = run(
        OPEN + "store.get(sys.argv[3], consume=True)\n", broker.socket_path, ref.uri, other.uri
    )
    out, error = child.communicate()
    assert (child.returncode, out, error) == (0, "", "")
    wait_until(lambda: client.health().leases == 0, "its leases ended")
    wait_until(lambda: not store.exists(other), "what it has consumed counts")
    assert store.exists(ref)
    store.abort(ref)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_leases_end_with_the_process(
    broker: Broker, client: fb.Client, store: fb.Store, sample_id: str, how: signal.Signals
) -> None:
    ref = store.put(sample_id, {"x": X})
    child = run(
        OPEN + "print('ready', flush=True)\nsys.stdin.read()\n", broker.socket_path, ref.uri
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    assert client.health().leases == 1
    child.send_signal(how)
    child.communicate()
    wait_until(lambda: client.health().leases == 0, "its lease ended")
    assert store.exists(ref)
    store.abort(ref)


def test_an_end_with_threads_inside_calls(broker: Broker) -> None:
    """The interpreter ends while daemon threads wait in C. Nothing crashes, nothing is printed."""
    code = (
        "import threading, time\n"
        "client = fb.connect(sys.argv[1], timeout_s=120)\n"
        "store = client.store('run')\n"
        "for i in range(4):\n"
        "    threading.Thread(target=store.get, args=(f'never {i}',), kwargs={'wait_s': 60},\n"
        "                     daemon=True).start()\n"
        "while client.health().sessions < 1: pass\n"
    )
    child = run(code, broker.socket_path)
    out, error = child.communicate(timeout=DEADLINE_S)
    assert (child.returncode, out, error) == (0, "", "")


def test_numpy_and_torch_are_not_imported_without_need(broker: Broker, sample_id: str) -> None:
    code = (
        "store = fb.connect(sys.argv[1], timeout_s=120).store('run')\n"
        "store.put(sys.argv[2], {'x': b'hello'})\n"
        "got = store.get(sys.argv[2], framework='raw', consume=True)\n"
        "assert got['x'].tobytes() == b'hello'\n"
        "assert 'numpy' not in sys.modules and 'torch' not in sys.modules, 'imported'\n"
    )
    child = run(code, broker.socket_path, sample_id)
    out, error = child.communicate()
    assert (child.returncode, out, error) == (0, "", "")


def test_without_numpy_and_torch_gets_are_raw(broker: Broker, sample_id: str) -> None:
    code = (
        "sys.modules['numpy'] = sys.modules['torch'] = None\n"
        "store = fb.connect(sys.argv[1], timeout_s=120).store('run')\n"
        "store.put(sys.argv[2], {'x': b'hello'})\n"
        "assert store.get(sys.argv[2])['x'].tobytes() == b'hello'\n"
        "for framework in ('numpy', 'torch'):\n"
        "    try:\n"
        "        store.get(sys.argv[2], framework=framework)\n"
        "    except fb.Unsupported as error:\n"
        "        assert framework in str(error), error\n"
        "    else:\n"
        "        raise AssertionError(framework)\n"
        "store.ack(sys.argv[2])\n"
    )
    child = run(code, broker.socket_path, sample_id)
    out, error = child.communicate()
    assert (child.returncode, out, error) == (0, "", "")


# ---- no growth ----


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """Of this process's own memory. Pages of the arena, of which it sees more and more, are not."""
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


CYCLES = 100_000
GROWTH_BYTES = 4 << 20  # over all cycles: less than 42 bytes each
if "libasan" in os.environ.get("LD_PRELOAD", ""):
    CYCLES = 10_000
    GROWTH_BYTES = 1 << 30  # AddressSanitizer keeps what is freed for a while


def test_no_growth(client: fb.Client, store: fb.Store, sample_id: str) -> None:
    """Puts, gets of both kinds, errors and probes, over and over: neither memory nor descriptors
    grow with the number of cycles."""
    given = {"x": np.arange(16, dtype=np.float32), "y": np.arange(16).reshape(4, 4).T}

    def cycle(number: int) -> None:
        ref = store.put(sample_id, given)
        if number % 2:
            store.get(ref, consume=True)
        else:
            store.get(ref, copy=False, consume=True)["x"]
            store.ack(ref)
        if number % 10 == 0:
            try:
                store.get(ref)
            except fb.NotFound:
                pass
            with store.reserve(sample_id, {"x": ("F32", (4,))}) as room:
                room["x"][:] = 0
            fb.Ref.from_bytes(room.ref.to_bytes()).tensors
            store.get(room.ref, framework="raw")["x"].__dlpack__()
            store.stat(sample_id)

    for number in range(CYCLES // 10):  # what is allocated once is there now
        cycle(number)
    before_bytes, before_descriptors = resident_bytes(), descriptors()
    for number in range(CYCLES):
        cycle(number)
    assert descriptors() == before_descriptors
    assert resident_bytes() - before_bytes < GROWTH_BYTES
    store.ack(sample_id)


def test_no_growth_of_connections(broker: Broker, sample_id: str) -> None:
    def cycle() -> None:
        with broker.connect(log=lambda level, sentence: None) as client, client.store(
            "run"
        ) as store:
            store.ack(store.put(sample_id, {"x": X}))

    for _ in range(20):
        cycle()
    before_bytes, before_descriptors = resident_bytes(), descriptors()
    for _ in range(500):
        cycle()
    assert descriptors() == before_descriptors
    assert resident_bytes() - before_bytes < GROWTH_BYTES
