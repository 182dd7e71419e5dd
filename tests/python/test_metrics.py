# SPDX-License-Identifier: Apache-2.0
"""Metrics over HTTP: their form, their truth, who may ask, and that dashboards, rules and documents name
metrics that exist."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

import feature_broker as fb
from brokers import (
    FEATURECTL,
    FEATURED,
    ROOT,
    STORES,
    Broker,
    free_port,
    start_pair,
    temporary_folder,
    wait_until,
)

OPEN_METRICS = "application/openmetrics-text"
OPS = "[ops]\nhttp = 127.0.0.1:0\n"

Labels = tuple[tuple[str, str], ...]


def port_of(broker: Broker) -> int:
    """Where it says it listens; it takes a free port with each start."""
    found = re.findall(r"metrics at http://[^ ]*:(\d+)/metrics", broker.log())
    assert found, broker.log()
    return int(found[-1])


def ask(
    broker: Broker, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(broker), timeout=30)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"')


class Scrape:
    """An answer, read strictly: whatever is not of the form fails."""

    def __init__(self, text: str, open_metrics: bool) -> None:
        self.values: dict[tuple[str, Labels], float] = {}
        self.types: dict[str, str] = {}
        self.units: dict[str, str] = {}
        self.families: list[str] = []
        assert text.endswith("\n")
        lines = text[:-1].split("\n")
        if open_metrics:
            assert lines.pop() == "# EOF"
        family = ""
        for line in lines:
            if line.startswith("# "):
                _, word, name, rest = line.split(" ", 3)
                if word == "HELP":
                    assert name not in self.families, f"{name} comes in two pieces"
                    self.families.append(name)
                    family = name
                    assert rest.endswith(".")
                elif word == "TYPE":
                    assert rest in ("gauge", "counter", "histogram")
                    self.types[name] = rest
                else:
                    assert word == "UNIT" and open_metrics
                    assert name.endswith("_" + rest), line
                    self.units[name] = rest
                assert name == family, line
                continue
            self._take(line, family, open_metrics)
        self._check_histograms()

    def _take(self, line: str, family: str, open_metrics: bool) -> None:
        matched = SAMPLE.fullmatch(line)
        assert matched, f"not a line of this form: {line}"
        name, labels, value = matched.groups()
        kind = self.types[family]
        suffixes = {
            "gauge": [""],
            "counter": ["_total" if open_metrics else ""],
            "histogram": ["_bucket", "_sum", "_count"],
        }[kind]
        assert name in [family + suffix for suffix in suffixes], f"{line} among {family}"
        assert re.fullmatch(r"\d+(\.\d{1,9})?", value), line
        key = (name, tuple(LABEL.findall(labels or "")))
        names = [label for label, _ in key[1]]
        assert len(set(names)) == len(names), line
        assert key not in self.values, f"twice: {line}"
        self.values[key] = float(value)

    def _check_histograms(self) -> None:
        for family, kind in self.types.items():
            if kind != "histogram":
                continue
            buckets: dict[Labels, list[tuple[float, float]]] = {}
            for (name, labels), value in self.values.items():
                if name == family + "_bucket":
                    assert labels[-1][0] == "le"
                    bound = float(labels[-1][1].replace("+Inf", "inf"))
                    buckets.setdefault(labels[:-1], []).append((bound, value))
            for labels, found in buckets.items():
                assert found == sorted(found), f"{family}{labels}: {found}"
                assert [v for _, v in found] == sorted(v for _, v in found), f"{family}: {found}"
                assert found[-1][0] == float("inf")
                assert self.values[family + "_count", labels] == found[-1][1]
                assert (family + "_sum", labels) in self.values

    def of(self, name: str, **labels: str) -> float:
        return self.values[name, tuple(labels.items())]

    def names(self) -> set[str]:
        return {name for name, _ in self.values}


def scrape(broker: Broker) -> Scrape:
    status, headers, text = ask(broker, Accept=OPEN_METRICS)
    assert status == 200, text
    assert headers["Content-Type"].startswith(OPEN_METRICS + "; version=1.0.0")
    return Scrape(text, True)


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[Broker, Broker]]:
    """Two brokers with metrics, of which b has read a sample of a's."""
    for folder in temporary_folder():
        a, b = start_pair(folder, STORES + OPS)
        with a.connect() as producer, b.connect() as consumer:
            store = producer.store("run", framework="numpy")
            away = consumer.store("run", read_only=True, framework="numpy")
            ref = store.put("first", {"x": np.arange(40_000, dtype=np.float32)})
            away.get(ref, consume=True)
            consumer.drain()
        yield a, b
        a.stop()
        b.stop()


def test_both_forms_are_read_by_a_strict_reader(watched: tuple[Broker, Broker]) -> None:
    for broker in watched:
        scrape(broker)
        status, headers, text = ask(broker)
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
        Scrape(text, False)


def test_numbers_are_those_of_featurectl(watched: tuple[Broker, Broker]) -> None:
    a, _ = watched
    with a.connect() as client:
        store = client.store("keep", framework="numpy")
        rows = np.zeros(5000, dtype=np.float32)
        for i in range(5):
            store.put(f"sample-{i}", {"x": rows})
        with store.get("sample-0", copy=False):
            told = scrape(a)
            stores = [json.loads(line) for line in a.ctl("stores", "--json").splitlines()]
            keep = next(s for s in stores if s["store"] == "keep")
            assert told.of("featured_store_samples", store="keep", state="resident") == 5
            assert told.of("featured_store_puts_total", store="keep") == 5
            assert told.of("featured_store_leases", store="keep") == 1
            assert told.of("featured_store_resident_bytes", store="keep") == int(
                keep["resident_bytes"]
            )
            assert told.of("featured_store_first_get_seconds_count", store="keep") == 1
        store.abort([f"sample-{i}" for i in range(5)])
        wait_until(
            lambda: scrape(a).of("featured_store_ended_total", store="keep", reason="aborted") == 5,
            "five were aborted",
        )
    status = json.loads(a.ctl("status", "--json"))
    assert {"log_dropped", "loop_lag_ms", "odd_answers", "slow_ops", "fences"} <= set(status)


def test_a_remote_get_is_seen_on_both_nodes(watched: tuple[Broker, Broker]) -> None:
    a, b = watched
    there = scrape(b)
    for phase in ("ask_home", "wait_room", "wire"):
        assert there.of("featured_remote_get_phase_seconds_count", phase=phase) >= 1
    assert there.of("featured_operation_seconds_count", operation="get_remote") >= 1
    assert there.of("featured_peer_up", peer="a") == 1
    assert there.of("featured_peer_read_bytes_total", peer="a") >= 160_000
    home = scrape(a)
    assert home.of("featured_store_ended_total", store="run", reason="consumed") == 1
    assert home.of("featured_store_consumed_seconds_count", store="run") == 1


def test_a_put_that_waits_and_is_refused_is_counted(watched: tuple[Broker, Broker]) -> None:
    a, _ = watched
    rows = np.zeros(600_000 // 4, dtype=np.float32)
    with a.connect() as client, client.store("small", framework="numpy") as store:
        store.put("fits", {"x": rows})
        before = scrape(a).of("featured_store_refused_total", store="small", cause="store_bytes")
        with pytest.raises(MemoryError):
            store.put("does-not", {"x": rows}, timeout_s=0)
        told = scrape(a)
        assert told.of("featured_store_refused_total", store="small", cause="store_bytes") == before + 1


def test_a_corrupt_read_is_counted_where_it_was_read(watched: tuple[Broker, Broker]) -> None:
    a, b = watched
    with a.connect() as producer, b.connect() as consumer:
        store = producer.store("keep", framework="numpy")
        away = consumer.store("keep", read_only=True, framework="numpy")
        with store.reserve("spoiled", {"x": ("F64", (20_000,))}) as room:
            late = memoryview(room.buffer("x"))
            room["x"][:] = 1.0
        late[:8] = b"spoiled!"  # after the commit: its checksum is made
        with pytest.raises(fb.Corrupt):
            away.get(room.ref)
        del late
        store.abort(room.ref)
        wait_until(
            lambda: scrape(b).of("featured_store_corrupt_reads_total", store="keep") >= 1,
            "the reader's node counts it",
        )
        assert scrape(a).of("featured_store_corrupt_reads_total", store="keep") == 0


def test_probes(watched: tuple[Broker, Broker]) -> None:
    a, _ = watched
    assert ask(a, "/healthz")[0] == 200
    status, _, text = ask(a, "/readyz")
    assert status == 200 and text == "node a: takes puts and serves gets\n"
    assert ask(a, "/nowhere")[0] == 404
    assert ask(a, "/metrics", "POST")[0] == 405
    status, headers, text = ask(a, "/metrics", "HEAD")
    assert status == 200 and text == "" and int(headers["Content-Length"]) > 1000


def test_draining_is_not_ready(folder: Path) -> None:
    broker = Broker(folder, "drains", STORES + OPS).start()
    try:
        with broker.connect() as client, client.store("run", framework="numpy") as store:
            store.put("held", {"x": np.zeros(10, dtype=np.float32)})
            with store.get("held", copy=False):
                assert broker.process is not None
                broker.process.send_signal(signal.SIGTERM)
                wait_until(lambda: ask(broker, "/readyz")[0] == 503, "not ready while it drains")
                assert ask(broker, "/healthz")[0] == 200
                assert scrape(broker).of("featured_draining") == 1
        broker.process.wait(30)
    finally:
        broker.stop()


def test_the_token_is_wanted(folder: Path) -> None:
    token = secrets.token_hex(16)
    file = folder / "metrics.token"
    file.write_text(token + "\n")
    file.chmod(0o600)
    broker = Broker(folder, "guarded", STORES + OPS + f"http_token_file = {file}\n").start()
    try:
        for shown in ({}, {"Authorization": "Bearer " + token[:-1]}, {"Authorization": token},
                      {"Authorization": "Bearer " + "x" * len(token)}):  # fmt: skip
            for path in ("/metrics", "/healthz", "/nowhere"):
                status, headers, text = ask(broker, path, **shown)
                assert status == 401 and "featured_" not in text
                assert headers["WWW-Authenticate"].startswith("Bearer")
        assert ask(broker, Authorization="Bearer " + token)[0] == 200
        assert ask(broker, Authorization="bearer " + token)[0] == 200
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("address", "taken"),
    [
        ("0.0.0.0:9464", False),
        ("[::]:9464", False),
        ("10.0.0.1:9464", False),
        ("127.example.org:9464", False),
        ("127.0.0.1:9464", True),
        ("127.1.2.3:9464", True),
        ("[::1]:9464", True),
        ("localhost:9464", True),
    ],
)
def test_no_token_no_other_machine(folder: Path, address: str, taken: bool) -> None:
    config = folder / "open.conf"
    config.write_text(
        f"[node]\nname = open\n[local]\nsocket = {folder}/open.sock\n{STORES}[ops]\nhttp = {address}\n"
    )
    ended = subprocess.run(
        [FEATURED, "--config", config, "--check-config"], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode == 0) == taken, ended.stderr
    assert taken or "http_token_file" in ended.stderr


def test_hostile_connections_do_not_stop_the_answers(watched: tuple[Broker, Broker]) -> None:
    a, _ = watched
    idle = [socket.create_connection(("127.0.0.1", port_of(a))) for _ in range(8)]
    try:
        for number, connection in enumerate(idle):
            connection.sendall([b"", b"GET /metrics HTTP/1.1\r\nX: ", b"\xff" * 64, b"\r\n\r\n"][number % 4])
        with socket.create_connection(("127.0.0.1", port_of(a))) as long:
            try:
                long.sendall(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n")
                long.recv(1)
            except ConnectionError:
                pass
        scrape(a)
    finally:
        for connection in idle:
            connection.close()


def test_slow_operations_are_logged_with_their_phases(folder: Path) -> None:
    broker = Broker(folder, "slow", STORES + OPS + "slow_op = 50ms\n").start()
    try:
        with broker.connect() as client, client.store("run", framework="numpy") as store:
            with pytest.raises((KeyError, TimeoutError)):
                store.get("never-put", wait_s=0.2)
        assert scrape(broker).of("featured_slow_operations_total") == 1
        assert re.search(
            r"slow get of sample never-put, store run: \d+ ms: all of it until the sample was found; it failed: ",
            broker.log(),
        )
    finally:
        broker.stop()


# ---- what is said of metrics elsewhere ----


@pytest.fixture(scope="module")
def existing(watched: tuple[Broker, Broker]) -> set[str]:
    """Every name that can stand in a query."""
    table = (ROOT / "daemon/exchange/metrics_table.c").read_text()
    names = scrape(watched[1]).names()
    for family in re.findall(r'"(featured_rail_[a-z_]+)"', table):
        names |= {family, family + "_total"}  # there are no rails here
    return names


def metric_names(text: str) -> set[str]:
    return set(re.findall(r"\b((?:featured|process)_[a-z_]+)\b", text))


def test_the_document_lists_what_there_is(watched: tuple[Broker, Broker]) -> None:
    text = (ROOT / "docs/METRICS.md").read_text()
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE))
    told = scrape(watched[1])
    there = set()
    for family, kind in told.types.items():
        there.add(family + "_total" if kind == "counter" else family)
    assert there - listed == set(), "these are not in docs/METRICS.md"
    assert {name for name in listed - there if not name.startswith("featured_rail_")} == set()


RULES = ROOT / "conf/prometheus/rules.yml"
OF_PROMETHEUS = {"up"}


def expressions(node: object) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition", "query") and isinstance(value, str):
                yield value
            yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def test_the_dashboard_asks_for_what_exists(existing: set[str]) -> None:
    dashboard = json.loads((ROOT / "conf/grafana/featured.json").read_text())
    queries = [query for query in expressions(dashboard) if query != "prometheus"]
    assert len(queries) > 20
    for query in queries:
        names = metric_names(query)
        assert names, f"no metric in {query}"
        assert names <= existing, f"{names - existing} do not exist: {query}"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_labels_of_queries_exist(watched: tuple[Broker, Broker]) -> None:
    """A value of a label that is spelt wrong would make an alert that never comes."""
    values: dict[str, set[str]] = {}
    for broker in watched:
        for _, labels in scrape(broker).values:
            for label, value in labels:
                values.setdefault(label, set()).add(value)
    for label, value in re.findall(r'(\w+)!?=~?"([^"]*)"', RULES.read_text()):
        if label != "job":
            assert set(value.split("|")) <= values[label], f"{label}={value}"


def test_alerts_ask_for_what_exists_and_name_commands_that_do(existing: set[str]) -> None:
    text = RULES.read_text()
    alerts = re.split(r"^ +- alert: ", text, flags=re.MULTILINE)[1:]
    assert len(alerts) >= 15
    for alert in alerts:
        name = alert.split("\n")[0]
        query = alert[alert.index("expr:") : alert.index("annotations:")]
        names = metric_names(query) - {"featured"}
        assert names <= existing, f"{name}: {names - existing} do not exist"
        assert names or OF_PROMETHEUS & set(re.findall(r"\w+", query)), name
        command = re.search(r'command: "(.*)"', alert)
        assert command and "featurectl " in command[1], f"{name} names no command"
        for words in re.findall(r"featurectl ([^;\"|]+)", command[1]):
            verb, *options = words.split()
            helped = subprocess.run([FEATURECTL, verb, "--help"], capture_output=True, text=True)
            assert helped.returncode == 0, f"{name}: featurectl {verb}"
            for option in options:
                assert not option.startswith("--") or option in helped.stdout, f"{name}: {option}"


def promtool(*words: str | Path, text: str | None = None) -> None:
    """Fails with what promtool has found. Skips, saying so, where there is none."""
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool: `scripts/setup all` installs it (Debian: prometheus)")
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True)
    assert done.returncode == 0 and "error" not in done.stderr, done.stdout + done.stderr


def test_promtool_finds_nothing_in_the_metrics(watched: tuple[Broker, Broker]) -> None:
    for broker in watched:
        promtool("check", "metrics", text=ask(broker)[2])


def test_promtool_finds_nothing_in_the_rules() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", ROOT / "conf/prometheus/prometheus.yml")


def test_alerts_are_raised_and_not_raised() -> None:
    promtool("test", "rules", ROOT / "tests/prometheus/rules_test.yml")


def test_every_alert_has_a_test() -> None:
    tested = (ROOT / "tests/prometheus/rules_test.yml").read_text()
    for alert in re.findall(r"- alert: (\w+)", RULES.read_text()):
        assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", tested), alert


# ---- over a restart ----


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_restart_under_the_supervisor_is_told_of(folder: Path) -> None:
    config, log = folder / "kept.conf", folder / "kept.log"
    config.write_text(
        f"[node]\nname = kept\n[local]\nsocket = {folder}/kept.sock\n{STORES}{OPS}"
    )
    broker = Broker(folder, "kept", STORES + OPS)  # for its log, address and socket
    with log.open("ab") as out:
        supervisor = subprocess.Popen(
            [FEATURED, "--supervise", "--config", config],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: broker.log().count("serves clients at") == 1, "it serves")
        told = scrape(broker)
        assert told.of("featured_kept") == 1 and told.of("featured_restarts_total") == 0
        (child,) = children(supervisor.pid)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: broker.log().count("serves clients at") == 2, "it serves again")
        assert scrape(broker).of("featured_restarts_total") == 1
    finally:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait(60)


# ---- with etcd ----


def test_etcd_is_measured(folder: Path) -> None:
    if shutil.which("etcd") is None:
        pytest.skip("there is no etcd: `scripts/setup test` installs it (Debian: etcd-server)")
    client_port, peer_port = free_port(), free_port()
    urls = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    etcd = subprocess.Popen(
        ["etcd", "--data-dir", folder / "etcd", "--listen-client-urls", urls[0],
         "--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1],
         "--initial-advertise-peer-urls", urls[1], "--initial-cluster", f"default={urls[1]}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    broker = Broker(
        folder, "indexed", STORES + OPS + f"[directory]\nkind = etcd\nendpoints = {urls[0]}\n"
    )
    try:
        broker.start()
        wait_until(lambda: ask(broker, "/readyz")[0] == 200, "ready")
        with broker.connect() as client, client.store("run", framework="numpy") as store:

            def is_put() -> bool:
                try:  # the first generation numbers may not be here yet
                    store.put("indexed", {"x": np.zeros(10, dtype=np.float32)})
                except fb.Unavailable:
                    return False
                return True

            wait_until(is_put, "a sample is put")
        told = scrape(broker)
        assert told.of("featured_index_requests_total", kind="txn") >= 2  # our record, the sample's
        assert told.of("featured_index_txn_seconds_count") >= 2
        assert 0 < told.of("featured_index_txn_seconds_sum") < 1000
        assert told.of("featured_index_lease_seconds_count") >= 1
        etcd.kill()
        etcd.wait()
        wait_until(lambda: scrape(broker).of("featured_fenced") == 1, "it is fenced")
        assert scrape(broker).of("featured_index_request_failures_total") >= 1
        status, _, text = ask(broker, "/readyz")
        assert status == 503 and text.startswith("node indexed: ")
    finally:
        etcd.kill()
        etcd.wait()
        broker.stop()
