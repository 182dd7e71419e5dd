# SPDX-License-Identifier: Apache-2.0
"""mooncake_master as launchers use it, and setup() on nodes with and without a broker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Iterator

import pytest

from brokers import DEADLINE_S, FEATURECTL, Broker, temporary_folder, wait_until
from mooncake_world import Master, environ, environment, run_child

import feature_broker as fb
from mooncake import _members, master as master_module
from mooncake.store import MooncakeDistributedStore

RETRY = -800


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets; and of this test alone, for agents."""
    yield from temporary_folder()


@pytest.fixture
def master(folder: Path) -> Iterator[Master]:
    master = Master(folder, FEATURED_NODE="first").wait_ready()
    yield master
    master.stop()


def ask(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Nodes:
    """Stores that were set up as if each were on a node of its own; ends their agents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stores: list[MooncakeDistributedStore] = []

    def setup(self, node: str, master_address: str, segment_bytes: int = 64 << 20, **more: Any) -> Any:
        store = MooncakeDistributedStore()
        with environ(FEATURED_NODE=node, TMPDIR=str(self._folder)):
            import tempfile

            tempfile.tempdir = None  # TMPDIR is looked at anew
            try:
                code = store.setup(
                    "127.0.0.1", more.get("metadata", "P2PHANDSHAKE"), segment_bytes, 1 << 20, "tcp", "",
                    master_address,
                )  # fmt: skip
            finally:
                tempfile.tempdir = None
        if code == 0:
            self.stores.append(store)
            return store
        return code

    def agents(self) -> list[int]:
        """Processes of agents whose files are in this test's folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"mooncake._agent" in words and any(
                word.startswith(os.fsencode(self._folder)) for word in words
            ):
                found.append(int(path.parent.name))
        return found

    def end(self) -> None:
        for store in self.stores:
            store.close()
        for pid in self.agents():
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self.agents(), "the agents have ended")


@pytest.fixture
def nodes(folder: Path) -> Iterator[Nodes]:
    nodes = Nodes(folder)
    yield nodes
    nodes.end()


# ---- the command line ----


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rpc_port=7", "--enable_http_metadata_server=true", "--http_metadata_server_host=127.0.0.1"],
        ["--rpc-port=7", "--enable-http-metadata-server", "--http-metadata-server-host=127.0.0.1"],
        ["-rpc_port", "7", "-enable_http_metadata_server=1", "--http_metadata_server_host", "127.0.0.1"],
        ["--port=7", "--enable_http_metadata_server", "--http_metadata_server_host=127.0.0.1"],
    ],
)
def test_forms_of_options(arguments: list[str]) -> None:
    options, unused = master_module.parse(arguments)
    assert options["rpc_port"] == "7"
    assert options["enable_http_metadata_server"] in ("true", "1")
    assert options["http_metadata_server_host"] == "127.0.0.1"
    assert unused == []


def test_options_that_mean_nothing_here_are_said() -> None:
    options, unused = master_module.parse(
        ["--default_kv_lease_ttl=5000", "--noenable_http_metadata_server", "--eviction_ratio", "0.1"]
    )
    assert unused == ["default_kv_lease_ttl", "eviction_ratio"]
    assert options["enable_http_metadata_server"] == "false"
    for wrong in (["word"], ["--rpc_port=x"], ["--rpc_port=65536"], ["--metrics_port=-1"]):
        with pytest.raises(master_module.Usage):
            master_module.parse(wrong)


def test_usage(folder: Path) -> None:
    for arguments, status in ((["--help"], 0), (["word"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "mooncake.master", *arguments], env=environment(),
            capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == status
        assert "mooncake_master" in done.stdout + done.stderr


# ---- what launchers ask ----


def test_metadata(master: Master) -> None:
    url = f"http://127.0.0.1:{master.http_port}/metadata?key="
    assert ask(url + "specforge-health-check") == (404, b"metadata not found")
    assert ask(url + "a%2Fb", "PUT", b"value")[0] == 200
    assert ask(url + "a%2Fb") == (200, b"value")
    assert ask(url + "a%2Fb", "DELETE")[0] == 200
    assert ask(url + "a%2Fb")[0] == 404
    assert ask(url + "a%2Fb", "DELETE")[0] == 404
    assert ask(f"http://127.0.0.1:{master.http_port}/else")[0] == 404


def test_metrics(master: Master) -> None:
    status, said = ask(f"http://127.0.0.1:{master.metrics_port}/metrics")
    assert status == 200 and b"featured_up 1" in said
    assert ask(f"http://127.0.0.1:{master.metrics_port}/health") == (200, b"OK")


def test_it_honours_the_host_that_it_is_told(master: Master) -> None:
    """Every address of 127.0.0.0/8 is this machine: only the one that was told answers."""
    for port in (master.rpc_port, master.http_port, master.metrics_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_sigterm_of_its_group_ends_it_and_its_broker(
    master: Master, nodes: Nodes, folder: Path
) -> None:
    assert nodes.setup("first", master.address).put("k", b"x") == 0
    master.stop()
    assert master.process.returncode == 0, master.log()
    assert not list(folder.glob("mooncake-*")), "nothing is left"


def test_its_broker_does_not_outlive_it(master: Master) -> None:
    with_socket = master.socket_path
    fb.connect(with_socket, timeout_s=DEADLINE_S).close()
    master.process.kill()
    master.process.wait()

    def gone() -> bool:
        try:
            fb.connect(with_socket, timeout_s=0.1).close()
        except fb.Unavailable:
            return True
        return False

    wait_until(gone, "the broker has ended")


def test_it_says_why_it_cannot_start(folder: Path, master: Master) -> None:
    second = Master(folder, f"--rpc_port={master.rpc_port}")
    assert second.process.wait(DEADLINE_S) == 1
    assert f"--rpc_port={master.rpc_port}" in second.log()
    third = Master(folder, FEATURED_SOCKET=str(folder / "nobody.sock"))
    assert third.process.wait(DEADLINE_S) == 1
    assert "FEATURED_SOCKET" in third.log()


def test_it_ends_with_a_sentence_when_its_broker_has_ended(master: Master) -> None:
    pid = int(subprocess.check_output(["pgrep", "-P", str(master.process.pid)]))
    os.kill(pid, signal.SIGKILL)
    assert master.process.wait(DEADLINE_S) == 1
    assert "featured has ended" in master.log()


def test_it_uses_a_broker_that_runs(folder: Path, nodes: Nodes) -> None:
    broker = Broker(folder, "there").start()
    master = Master(folder, FEATURED_SOCKET=broker.socket_path).wait_ready()
    assert broker.socket_path in master.log()
    with environ(FEATURED_SOCKET=broker.socket_path):
        assert nodes.setup("there", master.address).put("k", b"x") == 0
    master.stop()
    with broker.connect() as client:
        assert client.store("mooncake").exists("k"), "it goes on without the master"
        stores = broker.ctl("stores", "--json")
    assert '"store":"mooncake","policy":"retain"' in stores
    broker.stop()


# ---- setup ----


def stores_of(store: Any) -> str:
    """What featurectl says of the stores of its broker."""
    return subprocess.run(
        [FEATURECTL, "--socket", store._connection.client.socket_path, "stores", "--json"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def test_the_first_setup_decides_the_arena_and_the_others_share_it(
    master: Master, nodes: Nodes
) -> None:
    first = nodes.setup("first", master.address, 16 << 20)
    second = nodes.setup("first", f"127.0.0.1:{master.rpc_port}", 1 << 30)
    assert first.put("k", b"x") == 0 and second.get("k") == b"x"
    assert second._connection.client.socket_path == first._connection.client.socket_path
    said = stores_of(first)
    assert f'"max_resident_bytes":{16 << 20}' in said


def test_more_than_the_node_has_is_cut(
    master: Master, nodes: Nodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 90 << 20
    monkeypatch.setattr(fb.Client, "health", lambda self: types.SimpleNamespace(max_resident_bytes=limit, node="n"))
    store = nodes.setup("first", master.address, 1 << 60)
    assert store.put("k", b"x") == 0
    assert f"more than the {limit} bytes" in caplog.text
    said = stores_of(store)
    assert f'"max_resident_bytes":{limit}' in said


def test_a_process_that_brings_nothing_takes_the_launchers_size(
    master: Master, nodes: Nodes
) -> None:
    with environ(MOONCAKE_GLOBAL_SEGMENT_SIZE=str(24 << 20)):
        store = nodes.setup("first", master.address, 0)
    said = stores_of(store)
    assert f'"max_resident_bytes":{24 << 20}' in said


def test_a_node_without_a_broker_gets_one_that_joins(master: Master, nodes: Nodes) -> None:
    first = nodes.setup("first", master.address)
    second = nodes.setup("second", master.address)
    third = nodes.setup("third", "127.0.0.1:1", metadata=f"http://127.0.0.1:{master.http_port}/metadata")
    stores = [first, second, third]
    assert [store.get_hostname() for store in stores] == ["first", "second", "third"]
    assert nodes.setup("second", master.address).get_hostname() == "second"
    assert len(nodes.agents()) == 2
    for number, store in enumerate(stores):
        assert store.put(f"k{number}", b"x" * 100_000) == 0
    for store in stores:
        for number in range(3):
            wait_until(lambda: store.is_exist(f"k{number}") == 1, "every node knows every other")
            assert store.get(f"k{number}") == b"x" * 100_000
    assert third.remove("k0") == 0
    assert [store.is_exist("k0") for store in stores] == [0, 0, 0]
    assert second.remove_all() == 2


def test_objects_outlive_the_process_whose_setup_has_started_the_broker(
    master: Master, nodes: Nodes, folder: Path
) -> None:
    code = (
        "import os, sys\nfrom mooncake.store import MooncakeDistributedStore\n"
        "s = MooncakeDistributedStore()\n"
        "assert s.setup('127.0.0.1', 'P2PHANDSHAKE', 1 << 24, 0, 'tcp', '', sys.argv[1]) == 0\n"
        "assert s.put('left', b'behind') == 0\nos.killpg(os.getpgrp(), 9)\n"
    )
    died = subprocess.Popen(
        [sys.executable, "-c", code, master.address],
        env=environment(FEATURED_NODE="other", TMPDIR=str(folder)), start_new_session=True,
    )  # fmt: skip
    assert died.wait(DEADLINE_S) == -signal.SIGKILL
    first = nodes.setup("first", master.address)
    wait_until(lambda: first.get("left") == b"behind", "it can be read elsewhere")


def test_a_node_that_comes_again_has_its_name_and_port(master: Master, nodes: Nodes) -> None:
    first = nodes.setup("first", master.address)
    assert nodes.setup("second", master.address).put("k", b"x") == 0
    wait_until(lambda: first.get("k") == b"x", "the first knows the second")
    nodes.stores.pop().close()
    for pid in nodes.agents():
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not nodes.agents(), "the agent has ended")
    again = nodes.setup("second", master.address)
    assert again.get_hostname() == "second"
    assert again.put("l", b"y") == 0
    wait_until(lambda: first.get("l") == b"y", "the first finds it again")
    assert first.get("k") == b""


def test_a_master_that_was_started_again_is_another_cluster(
    master: Master, nodes: Nodes, folder: Path
) -> None:
    assert nodes.setup("second", master.address).put("k", b"x") == 0
    master.stop()
    again = Master(folder, f"--rpc_port={master.rpc_port}", FEATURED_NODE="first").wait_ready()
    wait_until(lambda: not nodes.agents(), "the agent of the first cluster has ended")
    first = nodes.setup("first", master.address)
    second = nodes.setup("second", master.address)
    assert second.get("k") == b"" and second.put("k", b"y") == 0
    wait_until(lambda: first.get("k") == b"y", "the nodes see each other")
    again.stop()


def test_names_of_members(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    members = _members.Members("a", "m1", "0.0.0.0:1")
    assert members.join("b", "m2", "h2:1") == "b"
    assert members.join("b", "m2", "h2:1") == "b", "the same again"
    assert members.join("b", "m3", "h3:1") == "b-2", "another machine"
    assert members.join("b", "m2", "h2:2") == "b-3", "a second broker of a machine"
    assert members.join("a", "m1", "h1:9") == "a-2", "beside the master's own"
    assert members.peers_of("b", "h1:1") == (
        ("a", "h1:1"), ("a-2", "h1:9"), ("b-2", "h3:1"), ("b-3", "h2:2")
    )  # fmt: skip
    now[0] += _members.SILENT_S + 1
    assert members.join("b", "m2", "h2:3") == "b", "it has moved"
    now[0] += _members.GONE_S - 2
    members.join("b", "m2", "h2:3")
    assert members.peers_of("b", "h1:1") == (("a", "h1:1"),), "the others have gone"


def test_setup_says_what_to_start_when_there_is_nothing(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    assert nodes.setup("alone", "127.0.0.1:1") == RETRY
    assert "start mooncake_master at 127.0.0.1:1, or featured here" in caplog.text
    caplog.clear()
    assert nodes.setup("alone", "no address at all") == -600


def test_setup_says_why_no_node_can_join(
    nodes: Nodes, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(folder, "fixed").start()
    fixed = Master(folder, FEATURED_SOCKET=broker.socket_path, FEATURED_NODE="fixed").wait_ready()
    assert nodes.setup("stranger", fixed.address) == RETRY
    assert "configuration of its administrator's" in caplog.text
    fixed.stop()
    broker.stop()
