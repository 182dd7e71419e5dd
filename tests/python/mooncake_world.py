# SPDX-License-Identifier: Apache-2.0
"""What the tests of the mooncake drop-in share: where it lies, and how to come by stores and masters."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

from brokers import DEADLINE_S, ROOT, free_port, wait_until

DROPIN = ROOT / "libclient/python/mooncake_dropin"
sys.path.insert(0, str(DROPIN))

import feature_broker as fb  # noqa: E402
from mooncake.store import MooncakeDistributedStore  # noqa: E402

MASTER_NOWHERE = "127.0.0.1:1"
SEGMENT_BYTES = 64 << 20

# Two nodes on which the store is there from the start, small enough to fill.
SMALL_STORE = """
[memory]
max_resident_bytes = 512MiB
prefault = off
[store mooncake]
policy = retain
max_resident_bytes = 1MiB
landing_bytes = 1MiB
"""


def environment(**more: str) -> dict[str, str]:
    """For child processes: they find feature_broker and mooncake where this one does."""
    packages = str(Path(fb.__file__).absolute().parents[1])
    cleaned = {name: value for name, value in os.environ.items() if not name.startswith("FEATURED_")}
    return {**cleaned, "PYTHONPATH": os.pathsep.join((packages, str(DROPIN))), **more}


@contextlib.contextmanager
def environ(**values: str) -> Iterator[None]:
    """os.environ with these, for as long as it takes."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def connect(socket_path: str, put_wait_s: float = DEADLINE_S) -> MooncakeDistributedStore:
    """A store that was set up on the broker there."""
    store = MooncakeDistributedStore()
    with environ(FEATURED_SOCKET=socket_path, FEATURED_PUT_WAIT_S=str(put_wait_s)):
        code = store.setup(
            "127.0.0.1", "P2PHANDSHAKE", SEGMENT_BYTES, 64 << 20, "tcp", "", MASTER_NOWHERE
        )
    assert code == 0, code
    return store


class Memory:
    """Bytes with an address."""

    def __init__(self, content: bytes | int) -> None:
        size = content if isinstance(content, int) else len(content)
        self.size = size
        self._array = ctypes.create_string_buffer(size or 1)
        self.address = ctypes.addressof(self._array)
        if not isinstance(content, int):
            ctypes.memmove(self.address, content, size)

    @property
    def bytes(self) -> bytes:
        return ctypes.string_at(self.address, self.size)


class Master:
    """A mooncake_master process, in a process group of its own."""

    def __init__(self, folder: Path, *options: str, **more: str) -> None:
        self.rpc_port, self.http_port, self.metrics_port = free_port(), free_port(), free_port()
        self.log_path = folder / f"master-{self.rpc_port}.log"
        arguments = [
            "--enable_http_metadata_server=true",
            "--http_metadata_server_host=127.0.0.1",
            f"--rpc_port={self.rpc_port}",
            f"--http_metadata_server_port={self.http_port}",
            f"--metrics_port={self.metrics_port}",
            "--default_kv_lease_ttl=5000",
            *options,
        ]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mooncake.master", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=environment(TMPDIR=str(folder), **more), cwd=folder,
            )  # fmt: skip

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.rpc_port}"

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_ready(self) -> "Master":
        def ready() -> bool:
            assert self.process.poll() is None, self.log()
            return "featured at " in self.log()

        wait_until(ready, "mooncake_master takes connections")
        return self

    @property
    def socket_path(self) -> str:
        """Of the broker that it uses."""
        return self.log().split("featured at ")[1].split(";")[0]

    def stop(self) -> None:
        """As launchers do: SIGTERM to its group."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(DEADLINE_S)


def run_child(code: str, *arguments: str, **more: str) -> Any:
    """A Python process that runs to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True,
        env=environment(**more), timeout=DEADLINE_S, check=False,
    )  # fmt: skip
