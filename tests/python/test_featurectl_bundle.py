# SPDX-License-Identifier: Apache-2.0
"""featurectl bundle: what is needed to look into a fault, and no secret, wherever it stood."""

from __future__ import annotations

import json
import os
import resource
import secrets
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest

from brokers import FEATURECTL, STORES, Broker, free_port, temporary_folder

JSON_PARTS = {
    "version.json", "doctor.json", "status.json", "nodes.json", "stores.json", "sessions.json",
    "sessions-by-user.json",
}  # fmt: skip


class Guarded:
    """A broker that has secrets of every kind, and whose log has been told all of them."""

    def __init__(self, folder: Path) -> None:
        self.secrets = {name: secrets.token_hex(24) for name in ("cluster", "store", "token", "old")}
        for name in ("cluster", "store", "token"):
            path = folder / f"{name}.secret"
            path.write_text(self.secrets[name] + "\n")
            path.chmod(0o600)
        config = (
            f"{STORES}[store guarded]\nsecret_file = {folder}/store.secret\n"
            f"# secret = {self.secrets['old']}\n"
            f"[peers]\nlisten = 127.0.0.1:{free_port()} ; once {self.secrets['old']}\n"
            f"cluster_secret_file = {folder}/cluster.secret\n"
            f"[ops]\nhttp = 127.0.0.1:{free_port()}\nhttp_token_file = {folder}/token.secret\n"
        )
        self.folder = folder
        self.broker = Broker(folder, "guarded", config).start()
        with (folder / "guarded.log").open("a") as log:
            for name in ("cluster", "store", "token"):
                log.write(f"planted: the {name} secret is {self.secrets[name]}, alas\n")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    for folder in temporary_folder():
        guarded = Guarded(folder)
        yield guarded
        guarded.broker.stop()


def bundle(socket: str, out: Path, *words: object, status: int = 0, **options: Any) -> str:
    done = subprocess.run(
        [FEATURECTL, "--socket", socket, "bundle", out, *map(str, words)],
        capture_output=True, text=True, **options,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def parts_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            assert member.isreg() and member.name.startswith("featured-bundle/")
        return {
            member.name.removeprefix("featured-bundle/"): tar.extractfile(member).read()  # type: ignore
            for member in tar
        }


def test_it_holds_what_is_needed_and_no_secret(guarded: Guarded, tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar"
    with guarded.broker.connect() as client, client.store("run") as store:
        store.put("s", {"x": np.arange(10)})
        said = bundle(guarded.broker.socket_path, out)
        store.abort("s")
    assert str(out) in said
    assert out.stat().st_mode & 0o777 == 0o600
    parts = parts_of(out)
    assert JSON_PARTS | {"README.txt", "featured.conf", "log.txt", "broker-limits.txt"} <= set(parts)
    for name in JSON_PARTS:
        rows = [json.loads(line) for line in parts[name].decode().splitlines()]
        assert rows, name
    stores = {json.loads(line)["store"] for line in parts["stores.json"].decode().splitlines()}
    assert "guarded" in stores
    assert json.loads(parts["status.json"])["node"] == "guarded"

    assert b"featured_" in parts["metrics.txt"], parts["README.txt"]

    # The log is there, and what was planted in it is not.
    log = parts["log.txt"].decode()
    assert "planted: the cluster secret is (removed), alas" in log
    config = parts["featured.conf"].decode()
    assert f"cluster_secret_file = {guarded.folder}/cluster.secret" in config
    assert "[store guarded]" in config and "#" not in config and ";" not in config
    whole = out.read_bytes()
    for name, secret in guarded.secrets.items():
        assert secret.encode() not in whole, name


def test_a_configuration_that_should_not_be_is_no_leak(guarded: Guarded, tmp_path: Path) -> None:
    secret, url, token = (secrets.token_hex(16) for _ in range(3))
    config = tmp_path / "odd.conf"
    config.write_text(
        f"[directory]\nendpoints = https://me:{url}@etcd-1:2379, https://me:{url}@etcd-2:2379/x@y\n"
        f"password = {secret}\nPassword: {secret}\napi_token={token}\n"
        f"a line that is none {secret}\n;{secret}\nname = plain # {secret}\n"
        "password_file = /nowhere/password\n"
    )
    log = tmp_path / "log"
    log.write_text(f"somebody logged {secret} and {token}\n")
    out = tmp_path / "bundle.tar"
    bundle(guarded.broker.socket_path, out, "--config", config, "--log", log)
    whole = out.read_bytes()
    for kept in (secret, url, token):
        assert kept.encode() not in whole
    shown = parts_of(out)["featured.conf"].decode()
    assert "endpoints = https://(removed)@etcd-1:2379, https://(removed)@etcd-2:2379/x@y" in shown
    assert "name = plain\n" in shown and "password_file = /nowhere/password" in shown
    assert parts_of(out)["log.txt"] == b"somebody logged (removed) and (removed)\n"


def test_of_a_long_log_the_end_is_there(guarded: Guarded, tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "bundle.tar"
    log.write_text("the first line\n" + "x" * 99 + "\n" + "another line\n" * 500_000 + "the last line\n")
    bundle(guarded.broker.socket_path, out, "--log", log)
    part = parts_of(out)["log.txt"]
    assert len(part) == 4 << 20 and part.endswith(b"the last line\n") and b"the first" not in part


def test_it_works_without_a_broker(tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar"
    bundle(str(tmp_path / "nobody.sock"), out, "--config", tmp_path / "no.conf")
    parts = parts_of(out)
    assert {"README.txt", "doctor.json", "version.json", "meminfo.txt"} <= set(parts)
    assert "status.json" not in parts
    readme = parts["README.txt"].decode()
    assert "What is missing" in readme and "status.json: " in readme and "featured.conf: " in readme


def test_a_disk_that_is_full_leaves_no_half_of_one(guarded: Guarded, tmp_path: Path) -> None:
    out = tmp_path / "bundle.tar"
    said = bundle(
        guarded.broker.socket_path, out, status=1,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert "bundle.tar" in said and not os.listdir(tmp_path)


def test_events_end_after_a_while(guarded: Guarded) -> None:
    done = subprocess.run(
        [FEATURECTL, "--socket", guarded.broker.socket_path, "events", "--for", "100ms"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
