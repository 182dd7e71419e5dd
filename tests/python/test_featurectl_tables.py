# SPDX-License-Identifier: Apache-2.0
"""What featurectl shows people: every table fits 100 columns, every help a screen, and a number of 64
bits is written in one way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest

from brokers import FEATURECTL, ROOT, start_pair, temporary_folder, wait_until

COLUMNS = 100
HELP_LINES, HELP_COLUMNS = 24, 80
EXACT_AS_DOUBLE = 2**53

CONFIG = """
[memory]
max_resident_bytes = 512MiB
prefault = off
[stores]
max_resident_bytes = 64MiB
landing_bytes = 64MiB
[store qwen3-eagle3]
[store epochs]
policy = retain
[store small]
policy = on-ack
max_resident_bytes = 1MiB
"""


def featurectl(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FEATURECTL, *words], capture_output=True, text=True, **options)  # type: ignore


def commands() -> list[str]:
    """As the overview lists them."""
    listed = featurectl("--help").stdout.split("Commands:\n")[1].split("\n\n")[0]
    return [name.strip() for name in re.findall(r"^  (\S+(?: \S+)?)  ", listed, re.MULTILINE)]


class Scene:
    """Two brokers with samples that are read here and there, a put that waits, and its client."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = start_pair(folder, CONFIG)
        self.client, self.reader = self.a.connect(), self.b.connect()
        self.store = self.client.store("qwen3-eagle3", framework="numpy")
        self.away = self.reader.store("qwen3-eagle3", framework="numpy")
        rows = np.arange(64 * 1024, dtype=np.float32).reshape(-1, 64)
        self.refs = [
            self.store.put(f"sample-{i:06d}", {"hidden_states": rows}) for i in range(1, 9)
        ]
        self.views = [
            self.store.get(self.refs[0], copy=False),
            self.away.get(self.refs[1], copy=False),
        ]
        self.small = self.client.store("small", framework="numpy")
        self.small.put("filling", {"x": np.zeros(900 * 1024, np.uint8)})
        self.waiting = threading.Thread(target=self._put_and_wait)
        self.waiting.start()
        wait_until(
            lambda: json.loads(self.row("stores", "store", "small"))["put_waiters"] == 1,
            "the put waits",
        )

    def _put_and_wait(self) -> None:
        with self.a.connect() as client, client.store("small", framework="numpy") as store:
            store.put("late", {"x": np.zeros(512 * 1024, np.uint8)}, timeout_s=120)

    def row(self, command: str, key: str, value: str) -> str:
        for line in self.a.ctl(command, "--json").splitlines():
            if json.loads(line)[key] == value:
                return line
        raise AssertionError(f"{command}: no {key} is {value}")

    def close(self) -> None:
        self.small.ack(["filling"])
        self.waiting.join()
        self.small.abort("late")
        self.views.clear()
        for broker in (self.a, self.b):
            broker.kill()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    for folder in temporary_folder():
        scene = Scene(folder)
        yield scene
        scene.close()


# Each with rows in it. What is a sentence at the end of a row or a field is folded where somebody
# looks at it, and left whole where a program does.
ROWS = [
    ["nodes"],
    ["stores"],
    ["samples"],
    ["samples", "--all"],
    ["samples", "--local", "--store", "small"],
    ["leases"],
    ["sessions"],
    ["sessions", "--by-user"],
]
FOLDED = [
    *ROWS,
    ["samples", "--holders"],
    ["status"],
    ["status", "--ready"],
    ["explain", "qwen3-eagle3/sample-000001"],
    ["explain", "qwen3-eagle3/nobody"],
    ["doctor"],
    ["version"],
]


def check_width(words: list[str], said: str, least: int = 2) -> None:
    lines = said.splitlines()
    assert len(lines) >= least, said
    for line in lines:
        assert len(line) <= COLUMNS, f"{words}: {len(line)} columns: {line}\n{said}"


@pytest.mark.parametrize("words", ROWS, ids=" ".join)
def test_rows_fit_100_columns_unfolded(scene: Scene, words: list[str]) -> None:
    table = scene.a.ctl(*words).split("\n\n")[0]  # the notes below are sentences
    check_width(words, table)


@pytest.mark.parametrize("words", FOLDED, ids=" ".join)
def test_everything_fits_100_columns_of_a_terminal(scene: Scene, words: list[str]) -> None:
    said = featurectl(
        "--socket", scene.a.socket_path, *words, env={**os.environ, "COLUMNS": str(COLUMNS)}
    )
    check_width(words, said.stdout, least=1)


def test_ref_fits_100_columns(scene: Scene) -> None:
    said = featurectl("ref", scene.refs[0].uri, env={**os.environ, "COLUMNS": str(COLUMNS)})
    for line in said.stdout.splitlines():
        assert len(line) <= COLUMNS or "feature://" in line, line


def test_wide_shows_every_column_and_usual_only_what_is_there(scene: Scene) -> None:
    usual, wide = (scene.a.ctl("stores", *more).splitlines()[0] for more in ([], ["-w"]))
    assert "POLICY" in usual and "CHECKSUM" not in usual
    assert "CHECKSUM" in wide and "READERS" in wide and "RESERVED BY" in wide
    # A put waits, so its column is there; nothing was retired, so that one is not.
    text = scene.a.ctl("stores")
    assert "PUTS WAITING" in usual and "RETIRED" not in usual
    assert "small: session" in text and "is first in line" in text
    for command in ("nodes", "samples", "leases", "sessions"):
        usual_row, wide_row = (scene.a.ctl(command, *more).splitlines()[0] for more in ([], ["-w"]))
        assert len(wide_row) > len(usual_row), command
        assert set(usual_row.split()) <= set(wide_row.split()), command


def test_what_is_wrong_with_a_node_stands_below_the_table(scene: Scene) -> None:
    assert "\n\n" not in scene.a.ctl("nodes"), "nothing is wrong"


def check_numbers(value: object, key: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            check_numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            check_numbers(inner, key)
    elif isinstance(value, int):
        assert 0 <= value < EXACT_AS_DOUBLE, f"{key}: {value} is not exact in jq"
    if key in ("generation", "incarnation") and value is not None:
        assert isinstance(value, str) and re.fullmatch("[0-9]+", value), f"{key}: {value!r}"


@pytest.mark.parametrize("words", FOLDED, ids=" ".join)
def test_numbers_in_json_are_exact_for_every_reader(scene: Scene, words: list[str]) -> None:
    said = featurectl("--socket", scene.a.socket_path, "--json", *words)
    lines = said.stdout.splitlines()
    assert lines, said.stderr
    for line in lines:
        check_numbers(json.loads(line), "")


def test_an_incarnation_is_the_same_digits_everywhere(scene: Scene) -> None:
    told = json.loads(scene.a.ctl("status", "--json"))["incarnation"]
    assert re.search(rf"^incarnation +{told}$", scene.a.ctl("status"), re.MULTILINE)
    assert told in scene.a.ctl("nodes", "--wide")
    assert f"incarnation={told}" in scene.refs[0].uri
    assert str(scene.refs[0].generation) in scene.a.ctl("samples", "--wide")
    assert f"incarnation {told}" in scene.b.log(), "the log of the node that it links to"


@pytest.mark.parametrize("name", commands())
def test_help_fits_a_screen(name: str) -> None:
    said = featurectl(*name.split(), "--help")
    assert said.returncode == 0
    lines = said.stdout.splitlines()
    assert len(lines) <= HELP_LINES, f"{len(lines)} lines:\n{said.stdout}"
    for line in lines:
        assert len(line) <= HELP_COLUMNS, line


def test_the_overview_is_no_wider_than_a_screen() -> None:
    for line in featurectl("--help").stdout.splitlines():
        assert len(line) <= HELP_COLUMNS, line


@pytest.mark.parametrize("name", commands())
def test_every_command_and_its_options_are_in_the_manual(name: str) -> None:
    manual = (ROOT / "docs" / "man" / "featurectl.1.md").read_text()
    heads = [line for line in re.findall(r"^(\*\*.*)\n:", manual, re.MULTILINE)]
    head = next((h for h in heads if re.search(rf"(^|, )\*\*{re.escape(name)}\*\*", h)), None)
    assert head, f"{name} has no entry"
    help_text = featurectl(*name.split(), "--help").stdout
    for letter, option in re.findall(r"^  (?:-(\w), |    )--([a-z-]+)", help_text, re.MULTILINE):
        wanted = (f"**\\--{option}**", f"**-{letter}**" if letter else "\n")
        # The secret of a store is described once, for all commands.
        assert any(w in (manual if option == "secret-file" else head) for w in wanted), wanted
