# SPDX-License-Identifier: Apache-2.0
"""connect() and Client: a connection to the broker of this node."""

from __future__ import annotations

import atexit
import weakref
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable

from . import _sinks
from ._errors import Invalid, failure, text
from ._feature import ffi, lib
from ._handles import ClientHandle, OfThisProcess, StoreHandle, milliseconds
from ._interrupts import raise_interrupt
from ._ref import c_string
from ._store import Store

Log = Callable[[str, str], None]
"""Takes a level ("error", "warning", "info", "debug") and a sentence."""

_LEVELS = ("error", "warning", "info", "debug")
_POLICIES = {
    "on-release": int(lib.FEATURE_POLICY_ON_RELEASE),
    "on-ack": int(lib.FEATURE_POLICY_ON_ACK),
    "retain": int(lib.FEATURE_POLICY_RETAIN),
}
_CHECKSUMS = {
    "after-network": int(lib.FEATURE_CHECKSUM_AFTER_NETWORK),
    "always": int(lib.FEATURE_CHECKSUM_ALWAYS),
    "never": int(lib.FEATURE_CHECKSUM_NEVER),
}
_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


@ffi.def_extern()  # type: ignore[untyped-decorator, unused-ignore]
def python_log(context: Any, level: int, sentence: Any) -> None:
    """libfeature calls this with the GIL taken; an exception is printed and goes no further."""
    word = _LEVELS[level] if 0 <= level < len(_LEVELS) else "debug"
    ffi.from_handle(context)(word, text(sentence))


@dataclass(frozen=True)
class Health:
    """How the broker is."""

    node: str
    incarnation: int
    uptime_s: float
    resident_bytes: int
    max_resident_bytes: int
    sessions: int
    leases: int
    release_pending: int
    """Releases and acks that have not reached their home yet."""
    draining: bool
    """Whether it is being stopped and takes no more puts."""


def connect(
    socket_path: str | None = None,
    *,
    client_name: str | None = None,
    timeout_s: float = 5.0,
    log: Log | None = None,
) -> "Client":
    """Connects to the broker of this machine.

    socket_path: None: $FEATURED_SOCKET, else /run/featured/featured.sock.
    client_name: what `featurectl leases` shows; None: the program's name.
    timeout_s: how long to try. Blocks for as long.
    log: called with a level and a sentence about the connection (lost, back again), from whatever
        thread is inside a call. It must not call into feature_broker.

    Raises Unavailable when no broker answers, Denied when it refuses this user.
    """
    options = ffi.new("struct feature_options *")
    options.size = ffi.sizeof("struct feature_options")
    options.connect_timeout_ms = milliseconds(timeout_s, "timeout_s") or 1
    options.interrupted = ffi.addressof(lib, "binding_interrupted")
    keep: list[Any] = []
    for field, value in (("socket_path", socket_path), ("client_name", client_name)):
        if value is not None:
            keep.append(ffi.new("char[]", c_string(str(value), field)))
            setattr(options, field, keep[-1])
    handle = ffi.NULL
    if log is not None:
        handle = ffi.new_handle(log)
        options.log = lib.python_log
        options.log_context = handle
    out = ffi.new("struct feature **")
    status = lib.feature_connect(options, out)
    if status:
        raise failure(status)
    return Client(ClientHandle(out[0], (handle, log)), socket_path)


class Client(OfThisProcess):
    """A connection to the broker of this machine, from :func:`connect`.

    Many threads may use it at once. After a restart of the broker it connects again by itself. A
    forked child must connect anew: there every call raises Invalid.
    """

    def __init__(self, handle: ClientHandle, socket_path: str | None) -> None:
        """Users get clients from ``connect()``."""
        self._handle: ClientHandle | None = handle
        self._socket_path = socket_path
        self._stores: "weakref.WeakSet[Store]" = weakref.WeakSet()
        _clients.add(self)

    @property
    def socket_path(self) -> str | None:
        """As connect() was given it."""
        return self._socket_path

    def _open(self) -> ClientHandle:
        handle = self._handle
        if handle is None:
            raise Invalid("the client was closed")
        return handle

    def create_store(
        self,
        name: str,
        *,
        policy: str = "on-release",
        readers: int = 1,
        max_resident_bytes: int | None = None,
        landing_bytes: int | None = None,
        max_hold_s: float | None = None,
        checksum: str = "after-network",
        max_samples: int | None = None,
        secret: bytes | None = None,
    ) -> None:
        """Creates a store on this node. It takes an administrator of the broker.

        name: 1 to 64 of A-Z a-z 0-9 . _ -
        policy: when a sample goes: "on-release" (after `readers` reads that said consumed),
            "on-ack" (by ack()), "retain" (only by abort, supersede, gc or drop).
        max_resident_bytes: bytes of samples on this node; None: the broker's default.
        landing_bytes: bytes kept for reading other nodes' samples; None: the broker's share.
        max_hold_s: age after which samples that nobody reads are freed; None: never.
        checksum: when readers check: "after-network", "always", "never".
        max_samples: None: the broker's default.
        secret: 16 to 4096 bytes that who opens it must know; None: none.

        The same name with the same settings is fine, also by another process. Raises Exists with
        other settings, Denied without the right, Full when the node has no room.
        """
        handle = self._open()
        options = ffi.new("struct feature_store_options *")
        options.size = ffi.sizeof("struct feature_store_options")
        options.policy = _choose(_POLICIES, policy, "policy")
        options.checksum = _choose(_CHECKSUMS, checksum, "checksum")
        try:
            options.readers = readers
            options.max_resident_bytes = max_resident_bytes or 0
            options.landing_bytes = landing_bytes or 0
            options.max_samples = max_samples or 0
        except (OverflowError, TypeError) as error:
            raise Invalid(f"create_store {name}: {error}") from None
        options.max_hold_ms = milliseconds(max_hold_s, "max_hold_s") if max_hold_s else 0
        keep = _give_secret(options, secret)
        status = lib.feature_store_create(handle.raw, c_string(name, "store name"), options)
        del keep
        if status:
            raise failure(status)

    def drop_store(self, name: str) -> None:
        """Drops a store of this node with all its samples. It takes an administrator.

        Harmless when there is none. Views of its samples stay good."""
        status = lib.feature_store_drop(self._open().raw, c_string(name, "store name"))
        if status:
            raise failure(status)

    def store(
        self,
        name: str,
        *,
        read_only: bool = False,
        secret: bytes | None = None,
        framework: str = "auto",
    ) -> Store:
        """Opens a store: maps its memory. Blocks for a round trip.

        read_only: gets, acks and probes only.
        framework: what gets give: "numpy", "torch", "raw" (:class:`Tensor`), or "auto": torch when
            this process has imported torch by the time of the get, else numpy, else raw.

        Raises NotFound when there is no such store, Denied for a wrong secret or no right.
        """
        handle = self._open()
        if framework not in ("auto", "numpy", "torch", "raw"):
            _sinks.find(framework)
        options = ffi.new("struct feature_open_options *")
        options.size = ffi.sizeof("struct feature_open_options")
        options.read_only = read_only
        keep = _give_secret(options, secret)
        out = ffi.new("struct feature_store **")
        status = lib.feature_store_open(handle.raw, c_string(name, "store name"), options, out)
        del keep
        if status:
            raise failure(status)
        store = Store(StoreHandle(out[0], handle), name, read_only, framework)
        self._stores.add(store)
        return store

    def drain(self, timeout_s: float = 30.0) -> None:
        """Waits until every release, ack and abort of this node has reached its home.

        Raises Timeout, with what is left, after timeout_s seconds."""
        status = lib.binding_drain(self._open().raw, milliseconds(timeout_s, "timeout_s"))
        if status:
            raise failure(status)
        raise_interrupt()

    def health(self) -> Health:
        """How the broker is. Takes no lease."""
        health = ffi.new("struct feature_health *")
        health.size = ffi.sizeof("struct feature_health")
        status = lib.feature_health(self._open().raw, health)
        if status:
            raise failure(status)
        return Health(
            node=text(health.node),
            incarnation=int(health.incarnation),
            uptime_s=int(health.uptime_ms) / 1000,
            resident_bytes=int(health.resident_bytes),
            max_resident_bytes=int(health.max_resident_bytes),
            sessions=int(health.sessions),
            leases=int(health.leases),
            release_pending=int(health.release_pending),
            draining=bool(health.draining),
        )

    def close(self) -> None:
        """Ends the session, after waiting up to a second for its releases to arrive. Its leases
        end as returned, and its stores are closed; views stay readable until they are collected.
        Calls that other threads are in end first; gets that an event loop awaits raise Invalid. A
        second call does nothing."""
        for store in list(self._stores):
            store.close()
        if self._handle is not None:
            self._handle.close_loops()
        self._handle = None

    def __enter__(self) -> "Client":
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._socket_path!r}{', closed' if self._handle is None else ''})"


def _choose(words: dict[str, int], word: str, what: str) -> int:
    if word not in words:
        raise Invalid(f"{what} {word!r}: give one of {', '.join(words)}")
    return words[word]


def _give_secret(options: Any, secret: bytes | None) -> Any:
    """Points options to the secret. What is returned keeps it alive."""
    if secret is None:
        return None
    try:
        pointer = ffi.from_buffer(secret)
    except TypeError:
        raise Invalid(f"a secret is bytes, not {type(secret).__name__}") from None
    options.secret = pointer
    options.secret_bytes = len(secret)
    return pointer


@atexit.register
def _close_all() -> None:
    """At the end of the interpreter: releases that are on their way arrive, and leases end."""
    for client in list(_clients):
        client.close()
