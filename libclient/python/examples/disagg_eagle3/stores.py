# SPDX-License-Identifier: Apache-2.0
"""Where samples go between the producer and the trainer: three stores behind one small interface.

DISAGG_BACKEND says which: shared_dir (default), featured or mooncake. Everything else of the example
is the same for all of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, Iterator, Protocol

import torch

Tensors = dict[str, torch.Tensor]
RUN = "disagg"


class SampleStore(Protocol):
    """A key is a short text that the producer hands to the trainer in a manifest."""

    def put(self, sample_id: str, tensors: Tensors) -> str:
        """Gives the key."""

    def read(self, keys: Iterable[str]) -> Iterator[Tensors]:
        """The samples in the order of their keys."""

    def ack(self, keys: list[str]) -> None:
        """They were used and may go."""


class SharedDirectory:
    """A directory that all nodes mount, of files by torch.save: what one reaches for first."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["DISAGG_DIR"])
        self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, sample_id: str, tensors: Tensors) -> str:
        path = self._folder / f"{sample_id}.pt"
        partial = path.with_suffix(".partial")
        torch.save(tensors, partial)
        partial.rename(path)  # so that nobody finds half a sample
        return str(path)

    def read(self, keys: Iterable[str]) -> Iterator[Tensors]:
        for key in keys:
            yield torch.load(key)

    def ack(self, keys: list[str]) -> None:
        for key in keys:
            Path(key).unlink()


class Featured:
    """A store of this node's broker. The key is a ref: it says on which node the sample lies."""

    def __init__(self) -> None:
        import feature_broker

        self._client = feature_broker.connect()  # to $FEATURED_SOCKET
        self._client.create_store(RUN, policy="on-ack")  # the same again is fine
        self._store = self._client.store(RUN, framework="torch")

    def put(self, sample_id: str, tensors: Tensors) -> str:
        return self._store.put(sample_id, tensors).uri

    def read(self, keys: Iterable[str]) -> Iterator[Tensors]:
        for _, tensors in self._store.get_many(keys, window=8):
            yield tensors

    def ack(self, keys: list[str]) -> None:
        self._store.ack(keys)


class Mooncake:
    """Mooncake's Python interface. With the stock package the objects end with the producer's
    process; with the drop-in of this project they stay with the broker."""

    NAMES = ("aux_hidden_state", "hidden_state", "input_ids", "loss_mask")

    def __init__(self) -> None:
        from mooncake.store import MooncakeDistributedStore

        self._store = MooncakeDistributedStore()
        code = self._store.setup(
            os.environ.get("DISAGG_HOST", "127.0.0.1"),
            os.environ.get("DISAGG_METADATA_SERVER", "P2PHANDSHAKE"),
            256 << 20,
            16 << 20,
            os.environ.get("DISAGG_PROTOCOL", "tcp"),
            "",
            os.environ.get("DISAGG_MASTER", "127.0.0.1:50051"),
        )
        if code:
            raise RuntimeError(f"mooncake setup gave {code}")

    def put(self, sample_id: str, tensors: Tensors) -> str:
        key = f"{RUN}/{sample_id}"
        for name in self.NAMES:
            code = self._store.put_tensor(f"{key}/{name}", tensors[name])
            if code:
                raise RuntimeError(f"put of {key}/{name} gave {code}")
        return key

    def read(self, keys: Iterable[str]) -> Iterator[Tensors]:
        for key in keys:
            sample: Tensors = {}
            for name in self.NAMES:
                tensor = self._store.get_tensor(f"{key}/{name}")
                if tensor is None:
                    raise RuntimeError(f"{key}/{name} is not there any more")
                sample[name] = tensor
            yield sample

    def ack(self, keys: list[str]) -> None:
        for key in keys:
            for name in self.NAMES:
                self._store.remove(f"{key}/{name}")


BACKENDS = {"shared_dir": SharedDirectory, "featured": Featured, "mooncake": Mooncake}


def backend() -> str:
    """Which store the environment names."""
    name = os.environ.get("DISAGG_BACKEND", "shared_dir")
    if name not in BACKENDS:
        raise SystemExit(f"DISAGG_BACKEND={name}: it is one of {', '.join(BACKENDS)}")
    return name


def open_store() -> SampleStore:
    """The store that DISAGG_BACKEND names."""
    return BACKENDS[backend()]()
