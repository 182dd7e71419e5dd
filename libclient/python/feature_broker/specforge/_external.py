# SPDX-License-Identifier: Apache-2.0
"""Attempts of other processes to put a sample: a capture server was asked, and never answered."""

from __future__ import annotations

from typing import Optional

from .._attachment import Attachment
from .._naming import broker_id_of
from ._ledger import Ledger, Sample
from ._removal import free


def discard(attachment: Attachment, ledger: Ledger, reason: str, now: float) -> int:
    """See BrokerFeatureStore.discard_external_attempts()."""
    with ledger.lock:
        attempts = list(ledger.provisional)
    errors: dict[str, str] = {}
    discarded = 0
    for sample_id, generation in attempts:
        error = _discard_one(attachment, ledger, sample_id, generation, now)
        if error is None:
            discarded += 1
        elif error:
            errors[sample_id] = error
    if errors:
        raise RuntimeError(
            f"could not discard all provisional external captures ({reason}): {errors}"
        )
    return discarded


def _discard_one(
    attachment: Attachment, ledger: Ledger, sample_id: str, generation: int, now: float
) -> Optional[str]:
    """None when it is freed, "" when it has been adopted meanwhile, else what failed.

    The lock is held during the abort: an adopt() must come before, or find the sample gone.
    """
    with ledger.lock:
        if (sample_id, generation) not in ledger.provisional:
            return ""
        known = ledger.samples.get(sample_id)
        if known is None:
            known = Sample(generation, broker_id_of(sample_id), 0, now)
            ledger.samples[sample_id] = known
        elif known.generation != generation:
            return (
                f"cannot discard provisional sample {sample_id!r} generation {generation}: "
                f"adopted generation is {known.generation}"
            )
        failed = free(attachment, ledger, sample_id, known)
        if failed is None:
            ledger.provisional.pop((sample_id, generation), None)
        return failed
