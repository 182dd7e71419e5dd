# SPDX-License-Identifier: Apache-2.0
"""The connection to the broker and the open store, made anew in a forked child.

Shared by the stores for SpecForge and for speculators. States: attached in process P, or closed. A child of a fork finds
another process id than P's and attaches for itself; what it inherited is left alone, for libfeature
does nothing for it there.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any, Mapping, Optional

import feature_broker as fb

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreSettings:
    """Where the store is, and how it is made where there is none yet."""

    name: str
    socket_path: Optional[str] = None
    secret: Optional[bytes] = None
    create: Optional[Mapping[str, Any]] = None
    """Arguments for Client.create_store(); None: the store must be there."""
    framework: str = "torch"
    connect_timeout_s: float = 5.0


class Attachment:
    """A client and a store of this process. Threads may share it."""

    def __init__(self, settings: StoreSettings, client: Optional[fb.Client] = None) -> None:
        """client: one to use, which stays the caller's; None: a connection of one's own."""
        self._settings = settings
        self._lock = threading.Lock()
        self._lent = client is not None
        self._pid = os.getpid()
        self._closed = False
        self._client: Optional[fb.Client] = client
        self._store: Optional[fb.Store] = None

    @property
    def name(self) -> str:
        """The store's name."""
        return self._settings.name

    @property
    def client(self) -> fb.Client:
        """The connection. Connects, and opens the store, if this process has not yet."""
        return self._attach()[0]

    @property
    def store(self) -> fb.Store:
        """The store, open for puts. Connects, and opens it, if this process has not yet."""
        return self._attach()[1]

    def _attach(self) -> tuple[fb.Client, fb.Store]:
        client, store = self._client, self._store
        if client is not None and store is not None and self._pid == os.getpid():
            return client, store
        with self._lock:
            if self._closed:
                raise fb.Invalid(f"store {self.name} was closed")
            if self._pid != os.getpid():
                self._pid, self._lent = os.getpid(), False
                self._client = self._store = None
            if self._client is None:
                self._client = fb.connect(
                    self._settings.socket_path, timeout_s=self._settings.connect_timeout_s
                )
            if self._store is None:
                self._store = self._open(self._client)
            return self._client, self._store

    def _open(self, client: fb.Client) -> fb.Store:
        settings = self._settings
        try:
            return client.store(
                settings.name, secret=settings.secret, framework=settings.framework
            )
        except fb.NotFound:
            if settings.create is None:
                raise
        try:
            client.create_store(settings.name, secret=settings.secret, **settings.create)
        except fb.Exists:
            # Another process was faster, with other settings; the first one's hold.
            logger.info("store %s was made meanwhile, with its maker's settings", settings.name)
        except fb.Denied as denied:
            raise fb.Denied(
                f"there is no store {settings.name} here, and this user may not create it: have "
                f"an administrator of the broker run `featurectl store create {settings.name}`, "
                f"or add [store {settings.name}] to featured.conf ({denied.sentence})"
            ) from None
        return client.store(settings.name, secret=settings.secret, framework=settings.framework)

    def close(self) -> None:
        """Ends the connection, unless it is the caller's. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            client, store = self._client, self._store
            self._client = self._store = None
            if self._pid != os.getpid():
                return
        if store is not None:
            store.close()
        if client is not None and not self._lent:
            client.close()


def retire(store: fb.Store, key: fb.Key) -> None:
    """Aborts a sample on whatever node it is. Absent is fine.

    An abort by id acts on this node alone where there is no directory for the cluster; a probe
    asks all. So a sample whose ref is not known is looked up first. Raises Unavailable or Timeout
    when its node cannot be reached: then it is not known whether it is retired.
    """
    try:
        if isinstance(key, str):
            found = store.stat(key)
            if found.ref is not None:
                key = found.ref
        store.abort(key)
    except fb.NotFound:
        pass
