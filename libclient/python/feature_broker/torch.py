# SPDX-License-Identifier: Apache-2.0
"""Samples for torch's DataLoader: shuffled, sharded, prefetched, acked after the optimizer step.

    from torch.utils.data import DataLoader
    from feature_broker.torch import FeatureDataset, collate

    data = FeatureDataset("run0", "refs.txt", shuffle=True, block=8)
    loader = DataLoader(data, batch_size=8, num_workers=2, collate_fn=collate)
    for epoch in range(3):
        data.set_epoch(epoch)
        for batch in loader:
            loss = model(batch["hidden"].to("cuda"))
            loss.backward()
            optimizer.step()
            data.ack(batch)

Each worker, spawned or forked, has a connection of its own. No tensor is copied between processes
but by DataLoader's own shared memory.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence, Union

import torch
from torch.utils.data import IterableDataset
from torch.utils.data import get_worker_info as _get_worker_info

from ._client import Client, connect
from ._errors import Invalid, NotFound
from ._ref import Key, Ref
from ._store import Store

get_worker_info: Any = _get_worker_info  # torch gives it no types

__all__ = ["Batch", "FeatureDataset", "Item", "collate", "read_manifest"]


class Item(NamedTuple):
    """One sample as FeatureDataset yields it."""

    ref: Ref
    tensors: dict[str, Any]
    """By name; CPU tensors of one's own, in the shapes and dtypes that were put."""
    position: int
    """Which one of this rank's samples of this epoch it is; the first is 0."""


class Batch:
    """What :func:`collate` makes: ``batch["hidden"]`` is a tensor with one more dimension in front,
    or a list of tensors where the shapes differ between samples."""

    def __init__(self, refs: list[Ref], tensors: dict[str, Any], positions: list[int]) -> None:
        self.refs = refs
        self.tensors = tensors
        self.positions = positions

    def __getitem__(self, name: str) -> Any:
        return self.tensors[name]

    def __len__(self) -> int:
        """How many samples it has."""
        return len(self.refs)

    def pin_memory(self) -> "Batch":
        """DataLoader(pin_memory=True) calls it: the same with its tensors in pinned memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """The same with its tensors on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _map(self, change: Callable[[Any], Any]) -> "Batch":
        tensors = {
            name: [change(one) for one in value] if isinstance(value, list) else change(value)
            for name, value in self.tensors.items()
        }
        return Batch(self.refs, tensors, self.positions)


def collate(items: Sequence[Item]) -> Batch:
    """The collate_fn for DataLoader. Tensors of one name and one shape are stacked; where the shapes
    differ they stay a list, for the training loop to pad or pack. Raises Invalid when the samples
    do not have the same names."""
    names = list(items[0].tensors)
    tensors: dict[str, Any] = {}
    for item in items:
        if set(item.tensors) != set(names):
            raise Invalid(
                f"sample {item.ref.sample_id} has the tensors {sorted(item.tensors)}, the first of "
                f"its batch has {sorted(names)}: name those that all have in names="
            )
    for name in names:
        values = [item.tensors[name] for item in items]
        same = all(value.shape == values[0].shape for value in values)
        tensors[name] = torch.stack(values) if same else values
    return Batch([item.ref for item in items], tensors, [item.position for item in items])


def read_manifest(path: str | os.PathLike[str]) -> list[Key]:
    """The keys in a file: on each line a ref's URI, or a line that `featurectl ingest` wrote (a JSON
    object with *ref* in base64, or *uri*). Empty lines and lines that begin with # do not count.
    Raises Invalid, with the number of the line, for anything else."""
    keys: list[Key] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            keys.append(_read_line(line))
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise Invalid(f"manifest {os.fspath(path)}, line {number}: {error}") from None
    return keys


def _read_line(line: str) -> Key:
    if not line.startswith("{"):
        return Ref.from_uri(line)
    fields = json.loads(line)
    if "ref" in fields:
        return Ref.from_bytes(base64.b64decode(fields["ref"], validate=True))
    return Ref.from_uri(fields["uri"])


Keys = Union[str, "os.PathLike[str]", Iterable[Key]]


class FeatureDataset(IterableDataset[Any]):
    """The samples of a manifest, or of an iterable of refs and sample ids, as :class:`Item` objects.

    store: its name. Each process that iterates connects and opens it for itself.
    keys: the path of a manifest (see :func:`read_manifest`), or refs, URIs and sample ids.
    socket_path, secret: as for :func:`feature_broker.connect` and ``client.store``.
    names: which tensors; None: all.
    shuffle: every epoch another order, which follows from `seed` and the epoch alone.
    rank, world_size: this process reads every world_size-th sample. None: torch.distributed's
        when it is initialised here, else 0 and 1. A rest that would give some ranks one sample
        more is left out of the epoch.
    block: as many samples in a row go to one worker. Give DataLoader's batch_size, and the batches
        are the same, in the same order, for any number of workers.
    window: how many gets are under way or waiting at a time, for each worker: see `get_many`.
    consume: whether a read counts as consumed (policy on-release).
    missing: "raise", or "skip" samples that are gone: those acked before a restart, for instance.
    pin: receive into pinned memory. None: where there is a CUDA device and no worker process;
        with workers, give DataLoader pin_memory=True instead.
    transform: called with each Item in the worker; what it gives is yielded.
    wait_s, timeout_s: as in ``store.get``.

    Iterating blocks for the next sample only, and raises what ``store.get`` raises.
    """

    def __init__(
        self,
        store: str,
        keys: Keys,
        *,
        socket_path: str | None = None,
        secret: bytes | None = None,
        names: Sequence[str] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        block: int = 1,
        window: int = 8,
        consume: bool = False,
        missing: str = "raise",
        pin: bool | None = None,
        transform: Callable[[Item], Any] | None = None,
        wait_s: float | None = 0.0,
        timeout_s: float | None = 30.0,
    ) -> None:
        super().__init__()
        if missing not in ("raise", "skip"):
            raise Invalid(f'missing is {missing!r}: give "raise" or "skip"')
        if block < 1:
            raise Invalid(f"block is {block}: at least one sample goes to a worker")
        is_path = isinstance(keys, (str, os.PathLike))
        self.keys: list[Key] = read_manifest(keys) if is_path else list(keys)  # type: ignore[arg-type]
        self.rank, self.world_size = _find_rank(rank, world_size)
        self.seed = seed
        self._shuffle = shuffle
        self._store_name = store
        self._socket_path = socket_path
        self._secret = secret
        self._names = names
        self._block = block
        self._window = window
        self._consume = consume
        self._skip_missing = missing == "skip"
        self._pin = pin
        self._transform = transform
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._connection: tuple[int, Client, Store] | None = None
        # The epoch, and how many samples of it are done: in memory that worker processes share, as
        # persistent workers are told of an epoch by nothing else.
        self._progress = torch.zeros(2, dtype=torch.int64)
        _share(self._progress)
        self._done = 0  # so many samples of this epoch, from its first on, are acked
        self._acked: set[int] = set()  # and these behind the first that is not

    # ---- what is read, in which order ----

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return int(self._progress[0])

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch. An epoch that was resumed by load_state_dict() goes on
        where it was; any other begins with its first sample."""
        if epoch != self.epoch:
            self._set_progress(epoch, 0)

    def _set_progress(self, epoch: int, done: int) -> None:
        self._progress[0], self._progress[1] = epoch, done
        self._done = done
        self._acked.clear()

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch."""
        return len(self.keys) // self.world_size

    def order(self, epoch: int | None = None) -> list[int]:
        """The indices in `keys` that this rank reads in an epoch (None: the present one)."""
        count = len(self.keys)
        if self._shuffle:
            generator: Any = torch.Generator()
            generator.manual_seed(self.seed * 1_000_003 + (self.epoch if epoch is None else epoch))
            indices = torch.randperm(count, generator=generator).tolist()
        else:
            indices = list(range(count))
        return list(indices[self.rank : len(self) * self.world_size : self.world_size])

    def _positions(self) -> list[int]:
        """Those that are not done, and are this worker's."""
        done = int(self._progress[1])
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        return [
            position
            for position in range(done, len(self))
            if (position - done) // self._block % count == number
        ]

    def __iter__(self) -> Iterator[Any]:
        order = self.order()
        positions = self._positions()
        at = 0
        while at < len(positions):
            keys = (self.keys[order[position]] for position in positions[at:])
            try:
                for ref, tensors in self._get_many(keys):
                    item = Item(ref, tensors, positions[at])
                    at += 1
                    yield item if self._transform is None else self._transform(item)
            except NotFound:
                if not self._skip_missing:
                    raise
                at += 1

    def _get_many(self, keys: Iterable[Key]) -> Iterator[tuple[Ref, dict[str, Any]]]:
        pin = self._pin
        if pin is None:
            pin = get_worker_info() is None and torch.cuda.is_available()
        return self._open().get_many(
            keys,
            self._names,
            window=self._window,
            consume=self._consume,
            wait_s=self._wait_s,
            timeout_s=self._timeout_s,
            framework="torch:pinned" if pin else "torch",
        )

    # ---- progress ----

    def ack(self, batch: Batch | Item) -> None:
        """Says that these samples were used: in a store of policy on-ack (or any other) they retire.
        Call it after the optimizer step. Blocks for one message; raises what ``store.ack`` raises."""
        if isinstance(batch, Item):
            batch = Batch([batch.ref], batch.tensors, [batch.position])
        self._open().ack(batch.refs)
        self.note_done(batch.positions)

    def note_done(self, positions: Iterable[int]) -> None:
        """The part of ack() that counts for state_dict(), where samples are not to retire."""
        self._acked.update(positions)
        while self._done in self._acked:
            self._acked.remove(self._done)
            self._done += 1

    def state_dict(self) -> dict[str, Any]:
        """Where to go on after a restart: the epoch, and the last ref of which all before are acked.
        Put it into the checkpoint."""
        done = self._done
        after = self.keys[self.order()[done - 1]] if done else None
        return {
            "epoch": self.epoch,
            "seed": self.seed,
            "done": done,
            "after": after.uri if isinstance(after, Ref) else after,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on behind the last acked ref of a checkpoint. The keys, the seed, the rank and the
        world size must be those of then: raises Invalid when that ref stands elsewhere in the
        order."""
        epoch, done = int(state["epoch"]), int(state["done"])
        order = self.order(epoch)
        after = self.keys[order[done - 1]] if 0 < done <= len(order) else None
        if isinstance(after, Ref):
            after = after.uri
        if int(state["seed"]) != self.seed or after != state["after"]:
            raise Invalid(
                f"the checkpoint was made with other samples, another seed or another sharding: after "
                f"{done} samples of epoch {epoch} comes {after}, not {state['after']}"
            )
        self._set_progress(epoch, done)

    # ---- the connection ----

    def _open(self) -> Store:
        """This process's own store; what a parent had open is nothing to its child."""
        if self._connection is None or self._connection[0] != os.getpid():
            client = connect(self._socket_path)
            store = client.store(self._store_name, secret=self._secret, framework="torch", read_only=True)
            self._connection = (os.getpid(), client, store)
        return self._connection[2]

    def close(self) -> None:
        """Ends this process's connection. The next use connects again."""
        if self._connection is not None and self._connection[0] == os.getpid():
            self._connection[1].close()
        self._connection = None

    def __getstate__(self) -> dict[str, Any]:
        """For spawned workers: everything but the connection."""
        return {**self.__dict__, "_connection": None}


def _share(tensor: Any) -> None:
    """Moves it into memory that this process's workers share, forked and spawned ones."""
    tensor.share_memory_()


def _find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    distributed = torch.distributed
    if rank is None and world_size is None:
        if distributed.is_available() and distributed.is_initialized():
            group: Any = distributed
            return int(group.get_rank()), int(group.get_world_size())
        return 0, 1
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise Invalid(f"rank {rank} of world_size {world_size}: give both, and rank below world_size")
    return rank, world_size
