# SPDX-License-Identifier: Apache-2.0
"""serve(): a broker of this process's own.

It is `featured --quick`, with a socket in a temporary folder. --end-with makes it watch this
process through a pidfd: it goes with the process, however that ends, and neither threads nor forked
children matter to it.
"""

from __future__ import annotations

import atexit
import configparser
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from types import TracebackType
from typing import IO, Any, Mapping, Union

from ._client import Client, connect
from ._errors import Invalid, Unavailable
from ._programs import find_program

Config = Union[Mapping[str, Mapping[str, object]], str, "os.PathLike[str]"]

_SOCKET_BYTES_MAX = 107  # of the path of a Unix socket
_PAGE_BYTES = 4096  # sizes in featured.conf are multiples of it
_LOG_BYTES = 1 << 20  # that Broker.log() reads at most
_STOP_S = 10.0  # before SIGKILL


def serve(
    *,
    arena_bytes: int | None = None,
    config: Config | None = None,
    name: str | None = None,
    timeout_s: float = 20.0,
) -> "Broker":
    """Starts a private broker, for a notebook, a test or one machine. No daemon, no configuration.

        with fb.serve() as broker, broker.connect() as client:
            client.create_store("run0")
            ...

    Its samples are gone when it ends: at close(), at the end of the with-block, and with this
    process, however that ends. Other processes of this user may connect to broker.socket_path;
    children forked from this process neither end it nor keep it.

    arena_bytes: memory for samples, all stores together; each store may use all of it. Taken as
        samples come. None: a quarter of the memory that is free for a store, a half for all.
    config: more settings, as in featured.conf(5): ``{"stores": {"policy": "retain"}, "store run0":
        {}}``, or the path of such a file. Sizes and durations may be texts ("64MiB", "10s"). The
        socket in it does not count.
    name: the node's name; None: the host's.
    timeout_s: how long the start may take. Blocks until the broker takes connections.

    Raises Invalid when the settings are refused, Unavailable when the broker is not installed or
    does not start; both with the sentence of the broker.
    """
    sections = _read_config(config)
    if arena_bytes is not None:
        size = str(_whole_pages(arena_bytes))
        sections.setdefault("memory", {})["max_resident_bytes"] = size
        stores = sections.setdefault("stores", {})
        stores["max_resident_bytes"] = size
        stores.setdefault("landing_bytes", "0")
    if name is not None:
        sections.setdefault("node", {})["name"] = name
    # It ends at once when it is told to: who reads in this process ends with it anyway.
    sections.setdefault("daemon", {}).setdefault("drain_timeout", "0")
    return Broker(_as_text(sections), timeout_s)


class Broker:
    """A broker that serve() has started.

    Attributes:
        socket_path: where programs connect to it; for FEATURED_SOCKET in other processes.
        pid: of its process.
    """

    def __init__(self, config_text: str, timeout_s: float) -> None:
        self._owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._folder = _make_folder()
        self.socket_path = os.path.join(self._folder, "s")
        # Without a name, so that nothing is left of it. The broker has them by their descriptors.
        self._log: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._process = self._start(config_text)
            self.pid = self._process.pid
            self._await_ready(timeout_s)
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def _start(self, config_text: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ}
        environment.pop("NOTIFY_SOCKET", None)  # what it says to a manager is not about us
        with tempfile.TemporaryFile() as file:
            file.write(config_text.encode())
            file.flush()
            file.seek(0)
            return subprocess.Popen(
                [
                    find_program("featured"),
                    f"--quick={self.socket_path}",
                    f"--end-with={os.getpid()}",
                    f"--config=/proc/self/fd/{file.fileno()}",
                ],
                pass_fds=(file.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd="/",
                env=environment,
                start_new_session=True,  # Ctrl-C in our terminal is for us alone
            )

    def _await_ready(self, timeout_s: float) -> None:
        """The broker says how to connect when it takes connections, and nothing else. The end of
        its output before that is its own end."""
        output = self._process.stdout
        assert output is not None
        poll = select.poll()
        poll.register(output, select.POLLIN)
        ready = poll.poll(max(timeout_s, 0) * 1000) and os.read(output.fileno(), 65536)
        output.close()
        if ready:
            return
        if ready == b"":
            status = self._process.wait()
            kind = Invalid if status == 2 else Unavailable
            raise kind(f"the broker does not start: {self._last_words()}")
        raise Unavailable(f"the broker has not started within {timeout_s} s: {self._last_words()}")

    def _last_words(self) -> str:
        """The last line of its log without what stands before the sentence."""
        lines = self.log().strip().splitlines()
        if not lines:
            return "it said nothing"
        line = re.sub(r"^(\S+Z \w+ +|<\d>)?(main: |featured: )?", "", lines[-1])
        return re.sub(r"^/proc/self/fd/\d+:", "config, line ", line)

    def connect(self, **options: Any) -> Client:
        """A connection to this broker; options as of feature_broker.connect()."""
        return connect(self.socket_path, **options)

    def log(self) -> str:
        """What the broker has logged: its last MiB."""
        end = os.fstat(self._log.fileno()).st_size
        begin = max(0, end - _LOG_BYTES)
        return os.pread(self._log.fileno(), end - begin, begin).decode("utf-8", "replace")

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return not self._closed and self._process.poll() is None

    def close(self) -> None:
        """Ends the broker; its samples are gone. Views that are held stay readable, other calls of
        its clients fail with Unavailable. Twice is fine; in a forked child it does nothing."""
        if os.getpid() != self._owner_pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
            if process is not None:
                _stop(process)
            self._log.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            atexit.unregister(self.close)

    def __enter__(self) -> "Broker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else "ended"
        return f"<feature_broker.Broker at {self.socket_path}, {state}>"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, and once more: the second one ends a drain. SIGKILL for one that hangs."""
    end = time.monotonic() + _STOP_S
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(max(end - time.monotonic(), 0.1) if number == signal.SIGTERM else None)
            return
        except subprocess.TimeoutExpired:
            continue


def _make_folder() -> str:
    """A new folder for the socket, in the one for temporary files unless its path is too long."""
    folder = tempfile.mkdtemp(prefix="featured-")
    if len(os.fsencode(folder)) + len("/s.lock") > _SOCKET_BYTES_MAX:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="featured-", dir="/tmp")
    return folder


def _whole_pages(size_bytes: int) -> int:
    if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes <= 0:
        raise Invalid(f"serve: arena_bytes = {size_bytes!r} is no size; give a number of bytes")
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _read_config(config: Config | None) -> dict[str, dict[str, str]]:
    """The settings as sections of texts."""
    if config is None:
        return {}
    if isinstance(config, (str, os.PathLike)):
        return _read_file(os.fspath(config))
    return {
        str(section): {str(key): _value_text(value) for key, value in keys.items()}
        for section, keys in config.items()
    }


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return str(value)


def _read_file(path: str) -> dict[str, dict[str, str]]:
    """featured.conf, which is an ini file; what the words in it mean is left to the broker."""
    parser = configparser.ConfigParser(
        default_section="\n",  # that no file can have
        delimiters=("=", ":"),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=("#", ";"),
        interpolation=None,
        empty_lines_in_values=False,
    )
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise Invalid(f"serve: config = {path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise Invalid(f"serve: config = {path}: {str(error).splitlines()[0]}") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def _as_text(sections: Mapping[str, Mapping[str, str]]) -> str:
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    for line in lines:
        if "\n" in line or "\r" in line:
            raise Invalid(f"serve: {line!r}: a setting with a line break")
    return "".join(f"{line}\n" for line in lines)
