# SPDX-License-Identifier: Apache-2.0
"""featurectl export, and ingest of what it wrote: everything comes back, whatever interrupts it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest

import feature_broker as fb
from brokers import FEATURECTL, Broker, wait_until
from feature_broker._dtypes import DTYPES

EXIT_LOCAL = 1
LACKING = {"C32", "C128"}  # the format has no name for them

# Ids that no file could have as its name, and two that a careless escape would make one.
ODD_IDS = [
    "plain",
    "a/b/../c",
    "..",
    ".hidden",
    "ümläut ☃",
    "50%",
    "50%25",
    "-o",
    "x" * 128,
    "%" * 128,
    "%" * 127 + "~",
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "export"


@pytest.fixture
def fresh(broker: Broker) -> Iterator[Callable[..., str]]:
    """Makes stores that go with the test."""
    names: list[str] = []
    with broker.connect() as client:

        def make(name: str, **settings: Any) -> str:
            client.create_store(name, **settings)
            names.append(name)
            return name

        yield make
        for name in names:
            client.drop_store(name)


def run(
    broker: Broker, *words: object, status: int = 0, json_row: bool = True, **options: Any
) -> Any:
    """What featurectl says: the row of its table, or what it wrote to standard error."""
    done = subprocess.run(
        [FEATURECTL, "--socket", broker.socket_path, "--json", *map(str, words)],
        capture_output=True, text=True, **options,
    )  # fmt: skip
    assert done.returncode == status, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout) if json_row and done.stdout else done.stderr


def files_of(out: Path) -> list[Path]:
    return sorted(out.glob("*.safetensors"))


def of_every_dtype() -> dict[str, fb.Tensor]:
    random.seed(7)
    tensors = {}
    for dtype in DTYPES:
        if dtype.name in LACKING:
            continue
        for shape in ((), (8,), (3, 8), (0, 4)):
            bits = int(np.prod(shape)) * dtype.bits
            if bits % 8:
                continue
            data = bytes(random.randrange(2 if dtype.name == "BOOL" else 256) for _ in range(bits // 8))
            name = f"{dtype.name}.{'x'.join(map(str, shape)) or 'scalar'}"
            tensors[name] = fb.Tensor(dtype.name, shape, data)
    return tensors


def raw(store: fb.Store, sample_id: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    got = store.get(sample_id, framework="raw")
    return {name: (t.dtype, tuple(t.shape), t.tobytes()) for name, t in got.items()}


def check_same(was: fb.Store, now: fb.Store, ids: list[str]) -> None:
    for sample_id in ids:
        assert list(raw(was, sample_id).items()) == list(raw(now, sample_id).items()), sample_id
        with was.get(sample_id, copy=False) as a, now.get(sample_id, copy=False) as b:
            before, after = a.ref, b.ref
        assert before.metadata == after.metadata, sample_id
        assert before.tensors == after.tensors, sample_id


def test_everything_comes_back_bit_by_bit(broker: Broker, out: Path, fresh: Any) -> None:
    name = fresh("origin", policy="on-ack", max_samples=300)
    tensors = sorted(of_every_dtype().items(), key=lambda item: item[0][::-1])
    with broker.connect() as client, client.store(name) as store:
        ids = list(ODD_IDS)
        for i, sample_id in enumerate(ids):
            metadata = [b"", b"\x00\xff opaque", b'{"a": "b"}', b'{"featured.metadata":"eA=="}'][i % 4]
            store.put(sample_id, {"x": np.arange(i + 1)}, metadata=metadata)
        for at in range(0, len(tensors), 16):
            ids.append(f"dtypes-{at}")
            store.put(ids[-1], dict(tensors[at : at + 16]), metadata=b"\x01\x02")
        row = run(broker, "export", name, out)
        assert (row["exported"], row["already_there"], row["gone"]) == (len(ids), 0, 0)
        assert row["failed_samples"] == [] and row["not_tried"] == 0
        assert len(files_of(out)) == len(ids)
        for path in out.iterdir():
            assert len(path.name) < 255 and "/" not in path.name and "\n" not in path.name

        # It consumes nothing and holds nothing.
        assert sorted(s.sample_id for s in store.list()) == sorted(ids)
        assert client.health().leases == 0

        row = run(broker, "ingest", out, "-s", "restored", "-m", out.parent / "refs.jsonl")
        assert row["samples"] == len(ids) and row["failed_files"] == []
        with client.store("restored") as restored:
            check_same(store, restored, ids)
        told = json.loads(row_of(broker, "restored"))
        assert told["policy"] == "on-ack" and told["max_samples"] == 300

        # The map from old refs to new ones.
        lines = [json.loads(line) for line in (out.parent / "refs.jsonl").read_text().splitlines()]
        assert len(lines) == len(ids)
        for line in lines:
            old, new = fb.Ref.from_uri(line["old_uri"]), fb.Ref.from_uri(line["uri"])
            assert old.sample_id == new.sample_id == line["sample_id"]
            assert (old.store, new.store) == (name, "restored")
            assert old == store.stat(old.sample_id).ref
        client.drop_store("restored")


def row_of(broker: Broker, store: str) -> str:
    return next(
        line for line in broker.ctl("stores", "--json").splitlines() if json.loads(line)["store"] == store
    )


def test_readers_of_the_store_come_back(broker: Broker, out: Path, fresh: Any) -> None:
    name = fresh("three", readers=3)
    with broker.connect() as client, client.store(name) as store:
        store.put("s", {"x": np.arange(3)})
        run(broker, "export", name, out)
        run(broker, "ingest", out, "-s", "three-again", "-m", out.parent / "m")
        assert json.loads(row_of(broker, "three-again"))["readers"] == 3
        client.drop_store("three-again")
        # A store that is there keeps its own, and that is said.
        said = run(broker, "ingest", out, "-s", "ack", "-m", out.parent / "m", json_row=False)
        assert "another policy" in said
        with client.store("ack") as ack:
            ack.abort("s")


def test_a_format_without_a_name_for_a_dtype_costs_that_sample_alone(
    broker: Broker, out: Path, fresh: Any
) -> None:
    name = fresh("complex")
    with broker.connect() as client, client.store(name) as store:
        store.put("a-complex", {"x": fb.Tensor("C128", (1,), bytes(16))})
        store.put("b-plain", {"x": np.arange(3)})
        done = subprocess.run(
            [FEATURECTL, "--socket", broker.socket_path, "--json", "export", name, out],
            capture_output=True, text=True,
        )  # fmt: skip
        row = json.loads(done.stdout)
        assert done.returncode == EXIT_LOCAL and "C128" in done.stderr
        assert row["failed_samples"] == ["a-complex"] and row["exported"] == 1


def fill(store: fb.Store, count: int, size: int = 4096) -> list[str]:
    ids = [f"s{i:05d}" for i in range(count)]
    for i, sample_id in enumerate(ids):
        store.put(sample_id, {"x": np.full(size, i % 251, np.uint8)})
    return ids


def start(broker: Broker, name: str, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [FEATURECTL, "--socket", broker.socket_path, "--json", "export", name, out],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stopped_midway(broker: Broker, name: str, out: Path, count: int) -> subprocess.Popen[str]:
    """An export that is stopped (SIGSTOP) with some files written and some not. It is started anew,
    in another directory, if it should be done before the signal comes."""
    for attempt in range(100):
        here = out.with_name(f"{out.name}-{attempt}")
        process = start(broker, name, here)
        wait_until(lambda: here.exists() and files_of(here) or process.poll() is not None, "a file")
        process.send_signal(signal.SIGSTOP)
        if process.poll() is None and len(files_of(here)) < count - 2:
            process.directory = here  # type: ignore[attr-defined]
            return process
        process.send_signal(signal.SIGCONT)
        process.communicate()
    raise AssertionError("every export was over at once")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_where_it_was_interrupted(
    broker: Broker, out: Path, fresh: Any, number: signal.Signals
) -> None:
    name = fresh("interrupted")
    with broker.connect() as client, client.store(name, framework="numpy") as store:
        ids = fill(store, 400)
        process = stopped_midway(broker, name, out, len(ids))
        here: Path = process.directory  # type: ignore[attr-defined]
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        process.communicate()
        assert process.returncode == -number
        lines = (here / "manifest.jsonl").read_text().count("\n")
        before = {path.name: path.stat().st_ino for path in files_of(here)}
        assert lines in (len(before), len(before) - 1), "a line for each file, but for the last"

        row = run(broker, "export", name, here)
        assert row["already_there"] == lines
        assert row["exported"] + row["already_there"] == len(ids)
        kept = [n for n, inode in before.items() if (here / n).stat().st_ino == inode]
        assert len(kept) >= lines, "a complete file was written again"
        assert not list(here.glob(".*.part")), "a temporary file is left"
        assert len(files_of(here)) == len(ids)

        # Once more: nothing is left to do. A new generation is.
        assert run(broker, "export", name, here)["already_there"] == len(ids)
        store.put(ids[3], {"x": np.full(4096, 255, np.uint8)})
        assert run(broker, "export", name, here)["exported"] == 1

        # A file that was cut is no file.
        os.truncate(files_of(here)[5], 10)
        assert run(broker, "export", name, here)["exported"] == 1
        run(broker, "ingest", here, "-s", "again", "-m", here.parent / "m")
        with client.store("again", framework="numpy") as again:
            check_same(store, again, ids)
        client.drop_store("again")


def test_a_sample_that_goes_away_meanwhile_is_no_failure(
    broker: Broker, out: Path, fresh: Any
) -> None:
    name = fresh("leaving")
    with broker.connect() as client, client.store(name) as store:
        ids = fill(store, 400)
        process = stopped_midway(broker, name, out, len(ids))
        here: Path = process.directory  # type: ignore[attr-defined]
        written = {path.name.removesuffix(".safetensors") for path in files_of(here)}
        leaving = [sample_id for sample_id in ids if sample_id not in written]
        store.abort(leaving)
        process.send_signal(signal.SIGCONT)
        said, errors = process.communicate()
        row = json.loads(said)
        assert process.returncode == 0, errors
        # One of them may have been leased already: a reader keeps its bytes.
        assert row["gone"] in (len(leaving), len(leaving) - 1) and errors == ""
        assert row["exported"] + row["gone"] == len(ids) and row["failed_samples"] == []


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))


def test_a_full_disk_stops_it_and_costs_nothing(broker: Broker, out: Path, fresh: Any) -> None:
    name = fresh("large")
    with broker.connect() as client, client.store(name) as store:
        for i, size in enumerate([1, 1000, 100_000, 1_000_000, 5]):
            store.put(f"s{i}", {"x": np.full(size, i, np.uint8)})
        said = subprocess.run(
            [FEATURECTL, "--socket", broker.socket_path, "--json", "export", name, out],
            capture_output=True, text=True, preexec_fn=limit_files,
        )  # fmt: skip
        row = json.loads(said.stdout)
        assert said.returncode == EXIT_LOCAL
        assert "s3.safetensors" in said.stderr and "goes on when it is started again" in said.stderr
        written = row["exported"]
        assert row["failed_samples"] == ["s3"] and written + row["not_tried"] == 4
        assert not list(out.glob(".*.part"))
        row = run(broker, "export", name, out)
        assert (row["already_there"], row["exported"]) == (written, 5 - written)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_file_system_without_room_stops_it(broker: Broker, out: Path, fresh: Any) -> None:
    out.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", out], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount")
    try:
        name = fresh("wide")
        with broker.connect() as client, client.store(name) as store:
            fill(store, 8, 300_000)
            said = run(broker, "export", name, out, status=EXIT_LOCAL, json_row=False) or ""
            files, lines = files_of(out), (out / "manifest.jsonl").read_text().splitlines()
            assert 0 < len(lines) <= len(files) < 8, said
            subprocess.run(["mount", "-o", "remount,size=16m", out], check=True)
            row = run(broker, "export", name, out)
            assert row["exported"] + row["already_there"] == 8 and row["already_there"] == len(lines)
    finally:
        subprocess.run(["umount", out], check=True)


def test_a_damaged_file_is_not_put(broker: Broker, out: Path, fresh: Any) -> None:
    name = fresh("damaged")
    with broker.connect() as client, client.store(name) as store:
        fill(store, 3)
        run(broker, "export", name, out)
        data = bytearray(files_of(out)[1].read_bytes())
        data[-7] ^= 1
        files_of(out)[1].write_bytes(data)
        said = subprocess.run(
            [FEATURECTL, "--socket", broker.socket_path, "--json", "ingest", out, "-s", "half", "-m",
             out.parent / "m"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert said.returncode == EXIT_LOCAL and "checksum" in said.stderr
        row = json.loads(said.stdout)
        assert row["samples"] == 2 and row["failed_files"] == [str(files_of(out)[1])]
        with client.store("half") as half:
            assert sorted(s.sample_id for s in half.list()) == ["s00000", "s00002"]
        client.drop_store("half")


def test_a_directory_is_of_one_store_and_of_one_export_at_a_time(
    broker: Broker, out: Path, fresh: Any
) -> None:
    one, other = fresh("one"), fresh("other")
    with broker.connect() as client, client.store(one) as store:
        fill(store, 2)
        run(broker, "export", one, out)
        assert "store one" in run(broker, "export", other, out, status=EXIT_LOCAL)
        holder = os.open(out, os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert "another featurectl export" in run(broker, "export", one, out, status=EXIT_LOCAL)
        os.close(holder)
        run(broker, "export", one, out)
    run(broker, "export", "nobody", out, status=13, json_row=False)


def test_the_whole_cluster_is_exported(pair: tuple[Broker, Broker], out: Path) -> None:
    a, b = pair
    with a.connect() as here, b.connect() as there:
        with here.store("keep") as at_a, there.store("keep") as at_b:
            at_a.put("of-a", {"x": np.arange(1000)})
            at_b.put("of-b", {"x": np.arange(2000)})
            assert run(a, "export", "keep", out)["exported"] == 2
            assert run(a, "export", "keep", out.with_name("local"), "--local")["exported"] == 1
            # What was read from b is a copy in a's landing room, and no sample of a's.
            assert run(a, "export", "keep", out)["already_there"] == 2
            at_a.abort("of-a")
            at_b.abort("of-b")


def test_a_terminal_sees_how_far_it_is(broker: Broker, out: Path, fresh: Any) -> None:
    name = fresh("seen")
    with broker.connect() as client, client.store(name) as store:
        ids = fill(store, 400, 40_000)
        master, slave = os.openpty()
        process = subprocess.Popen(
            [FEATURECTL, "--socket", broker.socket_path, "export", name, out],
            stdout=subprocess.DEVNULL, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        seen = bytearray()

        def read() -> None:
            while True:
                try:
                    data = os.read(master, 65536)
                except OSError:  # the terminal's other end is gone
                    return
                seen.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        assert process.wait() == 0
        reader.join()
        os.close(master)
        assert len(files_of(out)) == len(ids)
        # On a fast disk it may be over before the first bar is due.
        assert not seen or b"export [" in seen, seen[:200]
