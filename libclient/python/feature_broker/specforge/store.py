# SPDX-License-Identifier: Apache-2.0
"""BrokerFeatureStore: SpecForge's feature store, with the samples in the broker.

One broker's store per store_id; one sample per sample, all its tensors together. The ref's
`feature_store_uri` is the broker's ref, so that whoever has the ref can get the sample on every
node of the cluster; the generation is the broker's, unique in the cluster for ever.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

import torch

import feature_broker as fb

from . import _external, _removal
from .._attachment import Attachment, StoreSettings
from ._devices import RECEIVE_BUFFERS, copy_out, find_consumer_device, receive_health
from ._ledger import Ledger, Lease, Sample
from .._naming import broker_id_of, secret_of, store_name_of
from ._records import AuthPolicy, Policy, Records, register_as_feature_store
from ._tensors import count_bytes, pick, stage

logger = logging.getLogger(__name__)


class BrokerFeatureStore:
    """A feature store of SpecForge whose samples are held by featured.

    Many threads may use one. A forked DataLoader worker connects anew by itself, and a store can be
    pickled for a spawned one; neither takes leases along.

    Where SpecForge is installed, its records are used and the class counts as a FeatureStore.
    Exceptions are those of feature_broker, which are also the built-in ones that SpecForge expects:
    KeyError for a sample that was freed, MemoryError for a full store, PermissionError for a wrong
    token, ConnectionError while the broker is away.
    """

    def __init__(
        self,
        *,
        store_id: Optional[str] = None,
        auth: Optional[Policy] = None,
        credential: Optional[str] = None,
        max_resident_bytes: Optional[int] = None,
        max_hold_age_s: Optional[float] = None,
        retain_on_release: bool = False,
        max_release_attempts: int = 3,
        max_quarantined_bytes: int = 8 << 30,
        replica_num: int = 1,
        hard_pin: bool = True,
        clock: Callable[[], float] = time.monotonic,
        receive_buffers: str = "pageable",
        receive_pool_bytes: int = 8 << 30,
        setup_kwargs: Optional[Mapping[str, Any]] = None,
        socket_path: Optional[str] = None,
        client: Optional[fb.Client] = None,
        readers: int = 1,
        put_timeout_s: float = 30.0,
    ) -> None:
        """Connects, and opens the broker's store; creates it where there is none.

        store_id: names the run; all processes of a run give the same. None: a random one.
        auth, credential: the token to be presented, and the one that is. The credential becomes the
            store's secret, which the broker asks every client for by challenge and response.
        max_resident_bytes: of samples put through this object and not freed yet; a put above it
            raises MemoryError at once. A store that is created has room for as much.
        max_hold_age_s: gc() frees samples of this process that are older and that nobody reads;
            a store that is created frees them by itself too. None: never.
        retain_on_release: release() only ends the read: for many epochs, or where abort() frees.
        max_release_attempts: so often gc() tries again to free a sample when the broker was away;
            afterwards only the drain_... methods do.
        replica_num: only 1. hard_pin: always so; False changes nothing. A broker never evicts.
        receive_buffers: "pageable": gets give host tensors. "pinned" and "cuda": consumer_device()
            names this rank's GPU, and gets copy to it straight from the broker's memory. "cuda"
            refuses gets for the CPU.
        receive_pool_bytes, max_quarantined_bytes: checked, and without effect: there is no pool and
            nothing to be put in quarantine, see docs/migrating.md.
        setup_kwargs: Mooncake's addresses; ignored.
        socket_path: of the broker; None: $FEATURED_SOCKET, else /run/featured/featured.sock.
        client: a connection to use instead; it stays the caller's.
        readers: of a store that is created: so many reads must be released before a sample goes.
        put_timeout_s: how long a put waits for room in a full store before it raises MemoryError.

        Raises Unavailable when no broker answers, Denied for a wrong token or where this user may
        not create the store, ValueError for arguments that mean nothing here.
        """
        _check_arguments(replica_num, receive_buffers, receive_pool_bytes, max_quarantined_bytes)
        self._arguments: dict[str, Any] = dict(
            store_id=store_id or uuid.uuid4().hex[:8], auth=auth, credential=credential,
            max_resident_bytes=max_resident_bytes, max_hold_age_s=max_hold_age_s,
            retain_on_release=retain_on_release, max_release_attempts=max_release_attempts,
            max_quarantined_bytes=max_quarantined_bytes, replica_num=replica_num,
            hard_pin=hard_pin, clock=clock, receive_buffers=receive_buffers,
            receive_pool_bytes=receive_pool_bytes, readers=readers, put_timeout_s=put_timeout_s,
            socket_path=socket_path if client is None else client.socket_path,
        )  # fmt: skip
        self.store_id: str = self._arguments["store_id"]
        self.retain_on_release = retain_on_release
        self.max_resident_bytes = max_resident_bytes
        self.max_hold_age_s = max_hold_age_s
        self.max_release_attempts = max_release_attempts
        self.max_quarantined_bytes = max_quarantined_bytes
        self.receive_buffers = receive_buffers
        self.put_timeout_s = put_timeout_s
        self.auth: Policy = auth or AuthPolicy()
        self._credential = credential
        self.auth.check(credential)
        if setup_kwargs:
            logger.info("store %s: Mooncake's setup_kwargs mean nothing here", self.store_id)
        self._clock = clock
        self._records = Records()
        self._ledger = Ledger()
        self._attachment = Attachment(
            StoreSettings(
                name=store_name_of(self.store_id),
                socket_path=socket_path,
                secret=secret_of(credential),
                create={
                    "policy": "on-release",
                    "readers": readers,
                    "max_resident_bytes": max_resident_bytes,
                    "max_hold_s": max_hold_age_s,
                },
            ),
            client,
        )
        self._attachment.store  # a wrong token or a missing broker shows here
        register_as_feature_store(type(self))

    # ---- write ----

    def put(
        self, tensors: Mapping[str, torch.Tensor], *, sample_id: str, metadata: Mapping[str, Any]
    ) -> Any:
        """Puts a sample, and returns its SampleRef.

        tensors: names and torch tensors of any shape, dtype and device; they are copied.
        metadata: goes into the ref: run_id, source_task_id, strategy, num_tokens and so on.

        A second put of a sample_id supersedes the first: its refs raise KeyError from then on, on
        every node. Blocks up to put_timeout_s while the broker's store is full, then raises
        MemoryError; above max_resident_bytes at once. Raises ValueError for no tensors.
        """
        self.auth.check(self._credential)
        if not tensors:
            raise ValueError("put requires at least one tensor")
        staged = {name: stage(tensor) for name, tensor in tensors.items()}
        nbytes = sum(tensor.numel() * tensor.element_size() for tensor in staged.values())
        self._check_budget(nbytes)
        ref = self._attachment.store.put(
            broker_id_of(sample_id), staged, timeout_s=self.put_timeout_s
        )
        with self._ledger.lock:
            self._ledger.pending.pop(sample_id, None)
            self._ledger.samples[sample_id] = Sample(ref.generation, ref, nbytes, self._clock())
        return self._records.make_ref(sample_id, staged, nbytes, metadata, ref)

    def _check_budget(self, nbytes: int) -> None:
        if self.max_resident_bytes is None:
            return
        with self._ledger.lock:
            resident = self._ledger.resident_bytes()
        if resident + nbytes > self.max_resident_bytes:
            # Consumers free samples without telling this process: ask the broker which are left.
            self._forget_gone()
            with self._ledger.lock:
                resident = self._ledger.resident_bytes()
        if resident + nbytes > self.max_resident_bytes:
            raise MemoryError(
                f"feature store {self.store_id} over budget: {resident} bytes of this process are "
                f"resident, {nbytes} asked, max_resident_bytes is {self.max_resident_bytes}: the "
                "consumer is behind"
            )

    def _forget_gone(self) -> None:
        """Drops from the book what others have freed."""
        with self._ledger.lock:
            known = list(self._ledger.samples.items())
        for sample_id, sample in known:
            try:
                there = self._attachment.store.exists(sample.key)
            except fb.FeatureError:
                continue
            if not there:
                with self._ledger.lock:
                    self._ledger.forget(sample_id, sample.generation)

    # ---- samples that other processes put ----

    def adopt(self, sample_ref: Any) -> None:
        """Takes over a sample that another process put, so that abort() and gc() here free it.

        Raises ValueError for a ref without a generation.
        """
        generation = sample_ref.metadata.get("generation")
        if generation is None:
            raise ValueError(f"cannot adopt {sample_ref.sample_id}: the ref has no generation")
        sample = Sample(
            int(generation),
            self._key_of(sample_ref),
            int(sample_ref.estimated_bytes or 0),
            self._clock(),
        )
        with self._ledger.lock:
            self._ledger.samples[sample_ref.sample_id] = sample
            self._ledger.pending.pop(sample_ref.sample_id, None)
            self._ledger.provisional.pop((sample_ref.sample_id, sample.generation), None)

    def track_external_attempt(
        self, sample_id: str, *, generation: int, feature_names: Sequence[str]
    ) -> None:
        """Notes that another process is asked to put a sample, before it has said that it did."""
        names = list(dict.fromkeys(str(name) for name in feature_names))
        if not names:
            raise ValueError("external capture attempt must name at least one feature")
        with self._ledger.lock:
            self._ledger.provisional[(str(sample_id), int(generation))] = names

    def discard_external_attempts(self, *, reason: str = "unadopted-external-capture") -> int:
        """Aborts the samples of attempts that were tracked and never adopted. Returns how many.

        Raises RuntimeError when some could not be freed; they stay provisional, and the drain
        tries again.
        """
        return _external.discard(self._attachment, self._ledger, reason, self._clock())

    # ---- read ----

    def get(
        self,
        sample_ref: Any,
        *,
        device: "torch.device | str" = "cpu",
        names: Optional[Sequence[str]] = None,
    ) -> tuple[dict[str, torch.Tensor], Any]:
        """Reads a sample: its tensors, which are the caller's own, and a FeatureHandle.

        sample_ref: from put() of any process of the cluster.
        device: where the tensors shall be.
        names: which; None: all of the ref.

        The sample is leased until release(handle). When the process dies its leases end as
        returned, and the sample can be read again. Blocks for the transfer from another node and
        the copy. Raises KeyError for a sample that was freed, superseded or never put, and for one
        that does not have the features of the ref; Unavailable (a ConnectionError) when the broker
        or the sample's node is away.
        """
        self.auth.check(self._credential)
        sample_id = sample_ref.sample_id
        generation = sample_ref.metadata.get("generation")
        with self._ledger.lock:
            if self._ledger.was_freed(sample_id, None if generation is None else int(generation)):
                raise KeyError(f"sample {sample_id} generation {generation} was freed here")
        if self.receive_buffers == "cuda" and torch.device(device).type == "cpu":
            raise ValueError(
                "receive_buffers=cuda needs a device-side consumer: give get() a CUDA device, not "
                f"{device}"
            )
        wanted = list(names) if names else list(sample_ref.feature_keys)
        view = self._attachment.store.get(self._key_of(sample_ref), copy=False, framework="torch")
        try:
            tensors = {
                name: copy_out(pick(view, name, sample_ref), device) for name in wanted
            }
        except BaseException:
            view.release(False)
            raise
        return tensors, self._register_lease(sample_ref, generation, view)

    def _register_lease(self, sample_ref: Any, generation: Optional[Any], view: fb.View) -> Any:
        ref = view.ref
        sample_id = sample_ref.sample_id
        number = ref.generation if generation is None else int(generation)
        with self._ledger.lock:
            # One that was only read is tracked too, so that abort() here knows which is meant.
            self._ledger.samples.setdefault(
                sample_id, Sample(number, ref, ref.total_bytes, None)
            )
            handle = self._records.feature_handle(
                sample_id=sample_id,
                generation=number,
                lease_token=f"{sample_id}:{number}:{self._ledger.number_lease()}",
            )
            self._ledger.leases[handle.lease_token] = Lease(handle, view)
        return handle

    def _key_of(self, sample_ref: Any) -> fb.Key:
        """What to ask the broker for: the ref in the URI, or the sample's id where another kind of
        store made the ref, as SpecForge does for samples that a capture server put."""
        uri = str(sample_ref.feature_store_uri)
        if not uri.startswith("feature://"):
            return broker_id_of(sample_ref.sample_id)
        ref = fb.Ref.from_uri(uri)
        if ref.store != self._attachment.name:
            raise KeyError(
                f"sample {sample_ref.sample_id} is of store {ref.store}, not of "
                f"{self._attachment.name}"
            )
        return ref

    # ---- free ----

    def release(self, handle: Any, *, reason: str = "consumed") -> None:
        """Ends a read. The sample goes with its last one, unless retain_on_release.

        Harmless for a handle that was released, and for one of a generation that has been
        superseded. Blocks for a round trip to the broker of this node, so that afterwards no get
        succeeds here; other nodes learn of it within a moment. While the broker is away it is told
        later: nothing is raised.
        """
        del reason
        with self._ledger.lock:
            lease = self._ledger.leases.pop(handle.lease_token, None)
            if lease is None:
                return
            last = not self._ledger.is_leased(handle.sample_id, handle.generation)
            if last and not self.retain_on_release:
                self._ledger.note_released(handle.sample_id, handle.generation)
        lease.view.release(consumed=not self.retain_on_release)
        del lease  # with it goes the last reference to the broker's memory
        if last and not self.retain_on_release:
            try:
                self._attachment.client.health()  # releases travel ahead of any question
            except fb.FeatureError as error:
                logger.info("store %s: a release is told later: %s", self.store_id, error)

    def abort(self, sample_id: str, *, reason: str = "aborted") -> None:
        """Frees a sample, wherever it is: no get of it succeeds any more. Absent is fine.

        Tensors that were got stay as they are. When the broker or the sample's node cannot be
        reached, the sample counts as freed here, and gc() and the drain_... methods try again.
        """
        del reason
        with self._ledger.lock:
            sample = self._ledger.samples.get(sample_id)
            if sample is None:
                sample = Sample(0, broker_id_of(sample_id), 0, None)
                self._ledger.samples[sample_id] = sample
        _removal.free(self._attachment, self._ledger, sample_id, sample)

    def drain_pending_removals(
        self,
        *,
        max_attempts: int = 40,
        retry_interval_s: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, int]:
        """Frees what could not be freed when it was asked, at the end of a run, or fails loudly.

        Returns removed, removed_bytes, release_pending (0) and attempts. Raises RuntimeError, with
        the samples that are left, after max_attempts with retry_interval_s seconds between.
        """
        return _removal.drain(self, None, max_attempts, retry_interval_s, sleep)

    def drain_sample_removals(
        self,
        sample_ids: Iterable[str],
        *,
        max_attempts: int = 8,
        retry_interval_s: float = 0.25,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, int]:
        """As drain_pending_removals(), for these samples alone."""
        return _removal.drain(self, set(sample_ids), max_attempts, retry_interval_s, sleep)

    def retry_sample_removals(self, sample_ids: Iterable[str]) -> dict[str, Any]:
        """Tries once more to free these samples, without sleeping. `remaining_ids` are those that
        are still pending."""
        return _removal.retry_once(self._attachment, self._ledger, set(sample_ids))

    def gc(self, *, now: Optional[float] = None) -> dict[str, int]:
        """Frees samples of this process that are older than max_hold_age_s and that nobody reads,
        here or elsewhere, and tries pending frees again.

        now: by the store's clock; None: as it is. Returns force_freed, force_freed_bytes and
        release_pending.
        """
        moment = self._clock() if now is None else now
        return _removal.collect(
            self._attachment,
            self._ledger,
            moment,
            self.max_hold_age_s,
            self.max_release_attempts,
        )

    # ---- probes ----

    def estimate_bytes(self, specs: Mapping[str, Any]) -> int:
        """Bytes of tensors with these shapes and dtypes; four per element of an unknown dtype."""
        return count_bytes(specs)

    def health(self) -> dict[str, Any]:
        """Counters, with the keys of SpecForge's Mooncake store. Never raises for a broker that is
        away: `broker` is None then, and the counters are what this process knows.

        resident_samples and resident_bytes count what the broker of this node holds of the store,
        whoever put it, and what this process has of it on other nodes.
        """
        now = self._clock()
        resident = self._find_resident()
        with self._ledger.lock:
            ages = [
                now - sample.put_time
                for sample in self._ledger.samples.values()
                if sample.put_time is not None
            ]
            return {
                "store_id": self.store_id,
                "backend": "featured",
                "resident_samples": len(resident.nbytes),
                "provisional_external": len(self._ledger.provisional),
                "active_leases": len(self._ledger.leases),
                "resident_bytes": sum(resident.nbytes.values()),
                "max_resident_bytes": self.max_resident_bytes,
                "auth_required": self.auth.token is not None or self._credential is not None,
                "release_pending": len(self._ledger.pending),
                "oldest_age_s": max(ages, default=0.0),
                "avg_age_s": sum(ages) / len(ages) if ages else 0.0,
                "force_freed_total": self._ledger.force_freed,
                "hard_pin": True,
                "max_quarantined_bytes": self.max_quarantined_bytes,
                **receive_health(self.receive_buffers),
                "broker": resident.broker,
            }

    def _find_resident(self) -> "_removal.Resident":
        return _removal.find_resident(self._attachment, self._ledger)

    def consumer_device(self) -> Optional[torch.device]:
        """The GPU that gets should be asked for: that of this rank ($LOCAL_RANK) with
        receive_buffers "pinned" (where CUDA is there) or "cuda"; None: the CPU."""
        return find_consumer_device(self.receive_buffers)

    # ---- life ----

    def close(self) -> None:
        """Ends this process's leases, as returned, and the connection. Samples stay. A second call
        does nothing."""
        with self._ledger.lock:
            leases = list(self._ledger.leases.values())
            self._ledger.leases.clear()
        for lease in leases:
            lease.view.release(consumed=False)
        self._attachment.close()

    def __enter__(self) -> "BrokerFeatureStore":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """For a spawned worker: how to make the same again."""
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"BrokerFeatureStore(store_id={self.store_id!r})"


def _check_arguments(
    replica_num: int, receive_buffers: str, receive_pool_bytes: int, max_quarantined_bytes: int
) -> None:
    if replica_num != 1:
        raise ValueError(
            f"replica_num={replica_num}: featured keeps one copy of a sample, in the broker of the "
            "node that put it; give 1"
        )
    if receive_buffers not in RECEIVE_BUFFERS:
        raise ValueError(f"receive_buffers={receive_buffers!r} not in {RECEIVE_BUFFERS}")
    if receive_pool_bytes <= 0:
        raise ValueError("receive_pool_bytes must be positive")
    if max_quarantined_bytes < 0:
        raise ValueError("max_quarantined_bytes must be >= 0")
