# SPDX-License-Identifier: Apache-2.0
"""serve(): a broker of a process's own comes with it and goes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
from brokers import DEADLINE_S, wait_until

import feature_broker as fb

X = np.arange(12, dtype=np.float32).reshape(3, 4)
MIB = 1 << 20


def put_and_get(broker: fb.Broker) -> None:
    with broker.connect() as client:
        client.create_store("run0")
        with client.store("run0", framework="numpy") as store:
            assert np.array_equal(store.get(store.put("a", {"x": X}))["x"], X)


def gone(pid: int) -> bool:
    """No such process, or one that has ended and waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_comes_and_goes() -> None:
    with fb.serve() as broker:
        folder = Path(broker.socket_path).parent
        assert broker.running and not gone(broker.pid)
        put_and_get(broker)
        assert "serves clients at" in broker.log()
        assert broker.socket_path in repr(broker)
    assert gone(broker.pid) and not folder.exists() and not broker.running
    broker.close()  # twice is fine
    with pytest.raises(fb.Unavailable):
        broker.connect(timeout_s=0.1)


def test_two_at_once_know_nothing_of_each_other() -> None:
    with fb.serve(name="one") as one, fb.serve(name="two") as two:
        put_and_get(one)
        with one.connect() as first, two.connect() as second:
            assert (first.health().node, second.health().node) == ("one", "two")
            with pytest.raises(fb.NotFound):
                second.store("run0")


def test_arena_bytes_bound_all_stores_together() -> None:
    with fb.serve(arena_bytes=4 * MIB - 1) as broker, broker.connect() as client:
        assert client.health().max_resident_bytes == 4 * MIB  # whole pages
        client.create_store("a")
        client.create_store("b")
        a, b = client.store("a", framework="numpy"), client.store("b", framework="numpy")
        a.put("1", {"x": np.zeros(3 * MIB, np.uint8)})  # a store may have most of it
        with pytest.raises(fb.Full):
            b.put("1", {"x": np.zeros(2 * MIB, np.uint8)}, timeout_s=0)


@pytest.mark.parametrize("wrong", [0, -1, True, "64MiB", 1.5])
def test_arena_bytes_is_a_number_of_bytes(wrong: object) -> None:
    with pytest.raises(fb.Invalid, match="arena_bytes"):
        fb.serve(arena_bytes=wrong)  # type: ignore[arg-type]


def test_config() -> None:
    settings = {
        "stores": {"policy": "retain", "max_resident_bytes": "8MiB"},
        "store run0": {"readers": 3},
        "memory": {"prefault": False},
        "local": {"admin_uids": [os.getuid(), 12345]},
    }
    with fb.serve(config=settings) as broker, broker.connect() as client:
        store = client.store("run0", framework="numpy")
        for _ in range(3):
            store.get(store.put("a", {"x": X}), consume=True)
        assert store.exists("a")  # retain


def test_config_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.conf"
    file.write_text(
        "# mine\n[node]\nname = x ; not this\n[local]\nsocket = /nowhere/s\n[store run0]\n"
        "max_resident_bytes = 8MiB\n"
    )
    with fb.serve(config=file) as broker, broker.connect() as client:
        assert client.health().node == "x"
        client.store("run0")
    with fb.serve(config=str(file), name="y") as broker, broker.connect() as client:
        assert client.health().node == "y"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"stores": {"polcy": "retain"}}, "polcy = retain: no such key; allowed: policy"),
        ({"store a": {"max_resident_bytes": "much"}}, "not a size"),
        ({"store a\n": {}}, "line break"),
        ({"peers": {"listen": "127.0.0.1:0"}}, "cluster_secret_file"),
        ("/nonexistent/a.conf", "No such file"),
    ],
)
def test_config_that_is_wrong_is_explained(config: object, words: str) -> None:
    with pytest.raises(fb.Invalid) as caught:
        fb.serve(config=config)  # type: ignore[arg-type]
    assert words in str(caught.value) and "/proc/" not in str(caught.value)


def test_what_does_not_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(fb.Invalid):
        fb.serve(config={"x": {}})
    assert not list(tmp_path.iterdir())
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    never_ready = tmp_path / "featured"  # the real one may be ready before anybody looks
    never_ready.write_text("#!/bin/sh\nexec sleep 3600\n")
    never_ready.chmod(0o755)
    monkeypatch.setattr("feature_broker._serve.find_program", lambda name: str(never_ready))
    with pytest.raises(fb.Unavailable, match="within 0 s"):
        fb.serve(timeout_s=0)
    assert not list(folder.iterdir())


def test_without_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("feature_broker._programs._own", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fb.Unavailable, match="install the wheel"):
        fb.serve()


def test_a_long_temporary_path_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with fb.serve() as broker:
        assert len(broker.socket_path) < 108
        put_and_get(broker)


# ---- how it ends ----

# A program that serves, prints what of, does something, and waits for its standard input to end.
PROGRAM = """
import json, os, subprocess, sys, threading
import feature_broker as fb
broker = fb.serve()
print(json.dumps([broker.pid, broker.socket_path]), flush=True)
{then}
sys.stdin.read()
"""


class Served:
    """A process with a broker of its own."""

    def __init__(self, then: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(then=then)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.pid, self.socket_path = json.loads(self.process.stdout.readline())

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(DEADLINE_S) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def broker_is_gone(self) -> bool:
        return gone(self.pid) and not Path(self.socket_path).parent.exists()

    def serves(self) -> bool:
        with fb.connect(self.socket_path, timeout_s=DEADLINE_S) as client:
            return client.health().uptime_s >= 0


@pytest.fixture
def cleanup() -> Iterator[list[Served]]:
    started: list[Served] = []
    yield started
    for served in started:
        served.kill()


def test_ends_at_the_end_of_the_interpreter(cleanup: list[Served]) -> None:
    served = Served(then="client = broker.connect(); client.create_store('a')")
    cleanup.append(served)
    assert served.serves()
    served.end()
    assert served.broker_is_gone()  # when it has exited, not some time later


def test_ends_with_sigkill_of_the_process(cleanup: list[Served]) -> None:
    served = Served()
    cleanup.append(served)
    assert served.serves()
    served.kill()
    wait_until(served.broker_is_gone, "the broker is gone")


def test_a_forked_child_does_not_end_it(cleanup: list[Served]) -> None:
    then = """
for _ in range(2):
    child = os.fork()
    if child == 0:
        broker.close()
        sys.exit(0)  # runs the functions of atexit
    os.waitpid(child, 0)
print("forked", flush=True)
"""
    served = Served(then)
    cleanup.append(served)
    assert served.said() == "forked\n"
    assert served.serves() and not gone(served.pid)
    served.end()
    assert served.broker_is_gone()


def test_a_forked_child_that_lives_on_does_not_keep_it(cleanup: list[Served]) -> None:
    """A child has copies of all that its parent had open."""
    then = """
child = os.fork()
if child == 0:
    import signal
    signal.pause()
print(child, flush=True)
"""
    served = Served(then)
    cleanup.append(served)
    child = int(served.said())
    try:
        served.kill()
        wait_until(served.broker_is_gone, "the broker is gone")
        assert not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_end_of_the_thread_that_started_it_does_not_matter() -> None:
    brokers: list[fb.Broker] = []
    thread = threading.Thread(target=lambda: brokers.append(fb.serve()))
    thread.start()
    thread.join()
    with brokers[0] as broker:
        put_and_get(broker)
        assert not gone(broker.pid)


def test_interrupt_from_the_terminal_is_not_for_the_broker() -> None:
    with fb.serve() as broker:
        assert os.getpgid(broker.pid) != os.getpgid(0)
        assert os.getsid(broker.pid) != os.getsid(0)


def test_a_broker_that_was_killed_is_told_of() -> None:
    with fb.serve() as broker:
        os.kill(broker.pid, signal.SIGKILL)
        wait_until(lambda: not broker.running, "its end is seen")
        with pytest.raises(fb.Unavailable):
            broker.connect(timeout_s=0.1)
    assert not Path(broker.socket_path).parent.exists()


def test_many_leave_no_descriptors() -> None:
    fb.serve().close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with fb.serve() as broker:
            put_and_get(broker)
    assert len(os.listdir("/proc/self/fd")) == before
