# SPDX-License-Identifier: Apache-2.0
"""Frees that must not be lost: abort, its retries, gc, and what is resident.

The broker answers an abort after the logical free: from then on no get succeeds, on any node. What
can fail is reaching the broker (it restarts) or the sample's home. Then the sample is parked in the
book as pending, and tried again: by gc() a few times, by the drains until they give up loudly.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

import feature_broker as fb

from .._attachment import Attachment, retire
from ._ledger import Ledger, Sample

if TYPE_CHECKING:
    from .store import BrokerFeatureStore

logger = logging.getLogger(__name__)

# How long the broker may take, at the end of a drain, to bring frees to other nodes.
HOME_TIMEOUT_S = 5.0


def free(
    attachment: Attachment, ledger: Ledger, sample_id: str, sample: Sample
) -> Optional[str]:
    """Frees a tracked sample. Returns None, or what failed; it is pending then."""
    try:
        retire(attachment.store, sample.key)
    except (fb.Unavailable, fb.Timeout) as error:
        with ledger.lock:
            if ledger.samples.get(sample_id) is sample:
                ledger.park(sample_id)
        return f"{type(error).__name__}: {error}"
    with ledger.lock:
        if ledger.samples.get(sample_id) is sample:
            ledger.forget(sample_id)
    return None


def retry_once(
    attachment: Attachment,
    ledger: Ledger,
    wanted: Optional[set[str]],
    max_attempts: Optional[int] = None,
) -> dict[str, Any]:
    """Tries each pending free of `wanted` (None: all) once; with max_attempts, only those that were
    tried less often."""
    with ledger.lock:
        tries = [
            (sample_id, ledger.samples[sample_id])
            for sample_id, attempts in ledger.pending.items()
            if (wanted is None or sample_id in wanted)
            and (max_attempts is None or attempts < max_attempts)
        ]
    removed = removed_bytes = 0
    errors: dict[str, str] = {}
    for sample_id, sample in tries:
        failed = free(attachment, ledger, sample_id, sample)
        with ledger.lock:
            if failed is None:
                removed += 1
                removed_bytes += sample.nbytes
                ledger.count_freed(1, sample.nbytes)
            elif sample_id in ledger.pending:
                ledger.pending[sample_id] += 1
                errors[sample_id] = failed
    with ledger.lock:
        remaining = [
            sample_id for sample_id in ledger.pending if wanted is None or sample_id in wanted
        ]
    return {
        "removed": removed,
        "removed_bytes": removed_bytes,
        "release_pending": len(remaining),
        "remaining_ids": remaining,
        "attempts": 1 if tries else 0,
        "errors": errors,
    }


def drain(
    store: "BrokerFeatureStore",
    wanted: Optional[set[str]],
    max_attempts: int,
    retry_interval_s: float,
    sleep: Callable[[float], None],
) -> dict[str, int]:
    """Retries until nothing is pending. See BrokerFeatureStore.drain_pending_removals()."""
    if max_attempts < 1:
        raise ValueError("max_attempts must be >= 1")
    if retry_interval_s < 0:
        raise ValueError("retry_interval_s must be >= 0")
    total = {"removed": 0, "removed_bytes": 0, "release_pending": 0, "attempts": 0}
    last: dict[str, Any] = {"remaining_ids": [], "errors": {}}
    for attempt in range(max_attempts):
        last = retry_once(store._attachment, store._ledger, wanted)
        for word in ("removed", "removed_bytes", "attempts"):
            total[word] += last[word]
        if not last["remaining_ids"]:
            if wanted is None:
                settle(store._attachment, store.store_id)
            return total
        if attempt + 1 < max_attempts and retry_interval_s:
            sleep(retry_interval_s)
    left = last["remaining_ids"]
    raise RuntimeError(
        f"feature store {store.store_id} could not drain {len(left)} pending removal(s) after "
        f"{max_attempts} attempts: {left[:16]}; last errors={last['errors']}"
    )


def settle(attachment: Attachment, store_id: str) -> None:
    """Waits a moment for frees that the broker is bringing to other nodes. They are never lost, so
    what takes longer is told and not an error."""
    try:
        attachment.client.drain(HOME_TIMEOUT_S)
    except fb.FeatureError as error:
        logger.warning(
            "store %s: some frees are still on their way to their node, and the broker keeps "
            "trying: %s",
            store_id,
            error,
        )


def collect(
    attachment: Attachment,
    ledger: Ledger,
    now: float,
    max_hold_age_s: Optional[float],
    max_release_attempts: int,
) -> dict[str, int]:
    """See BrokerFeatureStore.gc()."""
    freed = freed_bytes = 0
    report = retry_once(attachment, ledger, None, max_release_attempts)
    if max_hold_age_s is not None:
        with ledger.lock:
            old = ledger.old_samples(now, max_hold_age_s)
        for sample_id, sample in old:
            if _is_free_to_go(attachment, ledger, sample_id, sample) and (
                free(attachment, ledger, sample_id, sample) is None
            ):
                freed += 1
                freed_bytes += sample.nbytes
    with ledger.lock:
        ledger.count_freed(freed, freed_bytes)
        return {
            "force_freed": freed + report["removed"],
            "force_freed_bytes": freed_bytes + report["removed_bytes"],
            "release_pending": len(ledger.pending),
        }


def _is_free_to_go(
    attachment: Attachment, ledger: Ledger, sample_id: str, sample: Sample
) -> bool:
    """Whether nobody reads it, in any process. Drops it from the book when it is gone."""
    with ledger.lock:
        if sample_id in ledger.pending:
            return False  # freed already; gc() has just tried again
    try:
        stat = attachment.store.stat(sample.key)
    except fb.NotFound:
        stat = None
    except fb.FeatureError:
        return False
    if stat is None or stat.state != "resident":
        with ledger.lock:
            ledger.forget(sample_id, sample.generation)
        return False
    return stat.leases == 0


@dataclass
class Resident:
    """What of the store is resident, as far as it can be told from here."""

    nbytes: dict[str, int] = field(default_factory=dict)
    """By the sample's id, at the broker."""
    broker: Optional[dict[str, Any]] = None


def find_resident(attachment: Attachment, ledger: Ledger) -> Resident:
    """Asks the broker, and drops from the book what others have freed. Where the broker is away:
    what the book says."""
    with ledger.lock:
        known = list(ledger.samples.items())
    resident = Resident()
    try:
        health = attachment.client.health()
        for stat in attachment.store.list():
            resident.nbytes[stat.sample_id] = stat.extent_bytes
    except fb.FeatureError:
        resident.nbytes = {_id_of(sample, sample_id): sample.nbytes for sample_id, sample in known}
        return resident
    resident.broker = {
        "node": health.node,
        "resident_bytes": health.resident_bytes,
        "max_resident_bytes": health.max_resident_bytes,
        "sessions": health.sessions,
        "leases": health.leases,
        "release_pending": health.release_pending,
        "draining": health.draining,
    }
    for sample_id, sample in known:
        name = _id_of(sample, sample_id)
        if name not in resident.nbytes and not _is_elsewhere(attachment, sample, health.node):
            with ledger.lock:
                if sample_id not in ledger.pending:
                    ledger.forget(sample_id, sample.generation)
                    continue
        resident.nbytes[name] = sample.nbytes or resident.nbytes.get(name, 0)
    return resident


def _id_of(sample: Sample, sample_id: str) -> str:
    return sample.key.sample_id if isinstance(sample.key, fb.Ref) else sample.key


def _is_elsewhere(attachment: Attachment, sample: Sample, node: str) -> bool:
    """Whether the sample is at home on another node, and still there as far as that can be told."""
    if isinstance(sample.key, fb.Ref) and sample.key.home == node:
        return False
    try:
        return attachment.store.exists(sample.key)
    except fb.FeatureError:
        return True
