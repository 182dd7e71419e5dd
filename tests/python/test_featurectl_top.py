# SPDX-License-Identifier: Apache-2.0
"""featurectl top in a terminal (tmux): it shows what featurectl --json says, obeys its keys, and leaves
the terminal as it was."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

import numpy as np
import pytest

from brokers import FEATURECTL, Broker, temporary_folder, wait_until
from test_featurectl_tables import Scene

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")

NAMES = {"qwen3-eagle3", "epochs", "small"}


def human(size: int) -> str:
    """As featurectl shows bytes."""
    for name, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {name}"
    return f"{size} B"


class Terminal:
    """A shell in a terminal of its own server."""

    def __init__(self, folder: Path, columns: int = 80, rows: int = 24) -> None:
        self._socket = folder / f"tmux-{os.urandom(4).hex()}"
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "PS1": "$ ",
            "ENV": "", "TERM": "screen",
        }  # fmt: skip
        self.tmux(
            "new-session", "-d", "-x", str(columns), "-y", str(rows), "sh", "-i", env=environment
        )
        wait_until(lambda: "$" in self.text(), "a prompt")

    def tmux(self, *words: str, **options: Any) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *words],
            check=True, capture_output=True, text=True, **options,
        ).stdout  # fmt: skip

    def text(self) -> str:
        return self.tmux("capture-pane", "-p")

    def lines(self) -> list[str]:
        return self.text().splitlines()

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, line: str) -> None:
        self.tmux("send-keys", "-l", line)
        self.keys("Enter")

    def told(self, what: str) -> str:
        return self.tmux("display-message", "-p", f"#{{{what}}}").strip()

    def start(self, broker: Broker, *words: str) -> None:
        command = [str(FEATURECTL), "--socket", broker.socket_path, "top", "-i", "100ms", *words]
        self.type(shlex.join(command))
        self.until(lambda: self.told("alternate_on") == "1" and "Q quit" in self.text(), "top")

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return wait_until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.text()}") from None

    def expect_end(self, code: int = 0) -> None:
        """It gives the terminal back, and ends with that code (130: by SIGINT)."""
        self.until(lambda: self.told("alternate_on") == "0", "the other screen is gone")
        self.type("echo rc=$?")
        self.until(lambda: f"rc={code}" in self.lines(), f"exit code {code}")

    def close(self) -> None:
        self.tmux("kill-server")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    for folder in temporary_folder():
        scene = Scene(folder)
        yield scene
        scene.close()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    for folder in temporary_folder():
        terminal = Terminal(folder)
        yield terminal
        terminal.close()


def stores_of(terminal: Terminal) -> list[str]:
    """Names, in the order in which they stand there."""
    return [line.split()[0] for line in terminal.lines() if line and line.split()[0] in NAMES][
        : len(NAMES)
    ]


def rows(broker: Broker, command: str, key: str) -> dict[str, Any]:
    said = broker.ctl("--json", command).splitlines()
    return {json.loads(line)[key]: json.loads(line) for line in said}


def squeeze(line: str) -> str:
    return " ".join(line.split())


def test_it_shows_what_json_says(scene: Scene, terminal: Terminal) -> None:
    terminal.start(scene.a)
    stores, nodes = rows(scene.a, "stores", "store"), rows(scene.a, "nodes", "node")
    leases = rows(scene.a, "leases", "sample_id")
    status = json.loads(scene.a.ctl("--json", "status"))
    missing: set[str] = set()

    def agrees() -> bool:
        nonlocal missing
        lines = [squeeze(line) for line in terminal.lines()]
        text = "\n".join(lines)
        wanted = {
            f"{name} {human(store['resident_bytes'])} {human(store['max_resident_bytes'])} "
            f"{store['resident_bytes'] / store['max_resident_bytes'] * 100:.0f}%"
            for name, store in stores.items()
        }
        wanted |= {sample for sample, lease in leases.items() if lease["kind"] == "lease"}
        wanted |= {
            f"b {nodes['b']['state']} {nodes['b']['transport']} ",
            f"{human(status['resident_bytes'])} of {human(status['max_resident_bytes'])} resident",
            # But for the session of the featurectl that told the number.
            f"{status['sessions'] - 1} sessions {status['leases']} leases",
        }
        missing = {what for what in wanted if what not in text}
        for name, store in stores.items():
            row = next((line for line in lines if line.startswith(name + " ")), "")
            if not row.endswith(f" {store['leases']} {store['put_waiters']}"):
                missing.add(f"leases and waiting puts of {name}")
        return not missing and lines[0].startswith("a ready up ")

    try:
        terminal.until(agrees, "the screen agrees")
    except AssertionError as error:
        raise AssertionError(f"{error}\nmissing: {missing}") from None
    text = squeeze(terminal.text())
    assert "1 put waits, first session" in text
    assert "8 samples to be consumed" in text
    terminal.keys("q")


def test_keys_sort_and_scroll(scene: Scene, terminal: Terminal) -> None:
    terminal.start(scene.a)
    terminal.until(lambda: stores_of(terminal)[:1] == ["small"], "the fullest first")
    terminal.keys("n")
    terminal.until(lambda: stores_of(terminal) == sorted(NAMES), "by name")
    terminal.keys("R")
    terminal.until(lambda: stores_of(terminal) == sorted(NAMES)[::-1], "by name, reversed")
    assert "Reversed" in terminal.lines()[-1]
    terminal.keys("r", "u")
    terminal.until(lambda: stores_of(terminal) == ["qwen3-eagle3", "small", "epochs"], "by bytes used")
    terminal.keys("l")
    terminal.until(lambda: stores_of(terminal)[:1] == ["qwen3-eagle3"], "by leases")
    terminal.keys("w")
    terminal.until(lambda: stores_of(terminal)[:1] == ["small"], "by waiting puts")
    terminal.keys("Down")
    terminal.until(lambda: "small" not in stores_of(terminal), "the second store on top")
    terminal.keys("Up")
    terminal.until(lambda: stores_of(terminal)[:1] == ["small"], "the first again")
    terminal.keys("+")
    terminal.until(lambda: "200 ms" in terminal.lines()[-1], "a longer interval")
    terminal.keys("-")
    terminal.until(lambda: "100 ms" in terminal.lines()[-1], "the shorter one")
    terminal.keys("Q")
    terminal.expect_end()


def test_it_follows_the_size_of_the_terminal(scene: Scene, terminal: Terminal) -> None:
    terminal.start(scene.a)
    for columns, lines in ((132, 40), (60, 12), (20, 4), (80, 24)):
        terminal.tmux("resize-window", "-x", str(columns), "-y", str(lines))
        wanted = "Q quit" if columns >= 80 else "sort:"
        terminal.until(
            lambda: len(terminal.lines()) == lines and wanted in terminal.lines()[-1], "the new size"
        )
        assert all(len(line) <= columns for line in terminal.lines())
    terminal.keys("q")
    terminal.expect_end()


def settings(terminal: Terminal, path: Path) -> str:
    terminal.type(f"stty -g > {path}; echo told-$((20 + 3))")
    terminal.until(lambda: "told-23" in terminal.text(), "stty")
    terminal.type("clear")
    terminal.until(lambda: "told-23" not in terminal.text(), "a clear screen")
    return path.read_text()


@pytest.mark.parametrize("frozen", [False, True], ids=["it answers", "it is frozen"])
@pytest.mark.parametrize("key, code", [("q", 0), ("C-c", 130)])
def test_it_leaves_the_terminal_as_it_was(
    terminal: Terminal, tmp_path: Path, key: str, code: int, frozen: bool
) -> None:
    for folder in temporary_folder():
        broker = Broker(folder, "solo").start()
        try:
            check_restored(broker, terminal, tmp_path, key, code, frozen)
        finally:
            broker.kill()


def check_restored(
    broker: Broker, terminal: Terminal, tmp_path: Path, key: str, code: int, frozen: bool
) -> None:
    before = settings(terminal, tmp_path / "before")
    terminal.type("echo still-$((40 + 2))")
    terminal.until(lambda: "still-42" in terminal.text(), "what stands on the screen")
    terminal.start(broker)
    assert "still-42" not in terminal.text() and terminal.told("cursor_flag") == "0"
    if frozen:
        assert broker.process is not None
        broker.process.send_signal(signal.SIGSTOP)
        terminal.until(lambda: "no answer" in terminal.text(), "it says that nobody answers")
    terminal.keys(key)
    terminal.expect_end(code)
    assert "still-42" in terminal.text() and terminal.told("alternate_on") == "0"
    assert terminal.told("cursor_flag") == "1"
    assert settings(terminal, tmp_path / "after") == before


def test_rates_and_history_move(scene: Scene, terminal: Terminal) -> None:
    terminal.start(scene.a)
    put = 0

    def moves() -> bool:
        nonlocal put
        for _ in range(5):
            scene.client.store("epochs").put(f"more-{put % 40}", {"x": np.zeros(300_000, np.uint8)})
            put += 1
        row = next((line for line in terminal.lines() if line.startswith("epochs ")), "")
        return any(block in row for block in "▁▂▃▄▅▆▇█") and " 0 " not in row.split("%")[1][:22]

    terminal.until(moves, "puts per second and a line of blocks")
    terminal.keys("q")
    with scene.client.store("epochs") as store:
        store.abort([f"more-{i}" for i in range(40)])


def test_it_survives_its_broker(terminal: Terminal) -> None:
    for folder in temporary_folder():
        broker = Broker(folder, "solo").start()
        terminal.start(broker)
        broker.kill()
        terminal.until(lambda: "no answer" in terminal.lines()[0], "the broker is missed")
        assert "keep" in terminal.text(), "what was seen last stays"
        broker.start()
        terminal.until(lambda: " ready " in terminal.lines()[0], "it is back")
        terminal.keys("q")
        terminal.expect_end()
        broker.stop()


def test_it_is_for_terminals(scene: Scene) -> None:
    for words in (["top"], ["--json", "top"]):
        done = subprocess.run(
            [FEATURECTL, "--socket", scene.a.socket_path, *words], capture_output=True, text=True
        )
        assert done.returncode == 2 and "draws on a terminal" in done.stderr and not done.stdout
