# SPDX-License-Identifier: Apache-2.0
"""What one process knows of its samples: those it put, adopted or got, its leases, and its frees
that did not reach the broker.

The broker alone decides which sample can be read. This book is for what SpecForge asks of a store
in the process: the counters of health(), the ages that gc() looks at, and which generation an
abort(sample_id) means. It makes no calls to the broker. Whoever uses it holds `lock`.

A sample id is in one of these states here:
  unknown   not in `samples`
  tracked   in `samples`
  pending   in `samples` and in `pending`: freed for this process, but the broker was not reached
Beside that, `released` has the generations that a release() here freed last. The broker learns of a
release a moment later, and until then it would still grant a get; this process must not ask.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Optional

import feature_broker as fb


# The broker knows of a release after a millisecond; nobody releases as many in that time.
RELEASED_MAX = 4096


@dataclass
class Sample:
    """A sample of which this process knows."""

    generation: int
    """As in the ref's metadata; 0 where the ref had none."""
    key: fb.Key
    """What the broker is asked for: a ref where there is one, else the sample's id."""
    nbytes: int
    put_time: Optional[float]
    """When it was put or adopted, by the store's clock; None for one that was only read."""


@dataclass
class Lease:
    """A read that has not been released."""

    handle: Any
    view: fb.View


class Ledger:
    """The book. Not safe for threads by itself."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.samples: dict[str, Sample] = {}
        self.leases: dict[str, Lease] = {}
        self.pending: dict[str, int] = {}
        """Attempts made to free each sample that is pending."""
        self.provisional: dict[tuple[str, int], list[str]] = {}
        """Names of features of attempts that another process makes, by sample id and generation."""
        self.released: "OrderedDict[tuple[str, int], None]" = OrderedDict()
        self.force_freed = 0
        self.force_freed_bytes = 0
        self._lease_number = 0

    def number_lease(self) -> int:
        """A number that no other lease of this process has."""
        self._lease_number += 1
        return self._lease_number

    def is_leased(self, sample_id: str, generation: int) -> bool:
        """Whether a read of this generation is open here. Reads of older ones do not count."""
        return any(
            lease.handle.sample_id == sample_id and lease.handle.generation == generation
            for lease in self.leases.values()
        )

    def was_freed(self, sample_id: str, generation: Optional[int]) -> bool:
        """Whether this process has freed it, though the broker may not know yet."""
        if generation is not None and (sample_id, generation) in self.released:
            return True
        if sample_id not in self.pending:
            return False
        sample = self.samples[sample_id]
        return generation is None or sample.generation == generation

    def note_released(self, sample_id: str, generation: int) -> None:
        """The last read of it here was released: this process gets it no more."""
        self.forget(sample_id, generation)
        self.released[(sample_id, generation)] = None
        if len(self.released) > RELEASED_MAX:
            self.released.popitem(last=False)

    def resident_bytes(self) -> int:
        """Of all tracked samples."""
        return sum(sample.nbytes for sample in self.samples.values())

    def park(self, sample_id: str) -> None:
        """The broker could not be asked to free it: the next gc() or drain does."""
        if sample_id in self.samples:
            self.pending.setdefault(sample_id, 0)

    def forget(self, sample_id: str, generation: Optional[int] = None) -> int:
        """The sample is free. Returns its bytes. generation: only where it is still this one."""
        sample = self.samples.get(sample_id)
        if sample is None or (generation is not None and sample.generation != generation):
            return 0
        del self.samples[sample_id]
        self.pending.pop(sample_id, None)
        self.provisional.pop((sample_id, sample.generation), None)
        return sample.nbytes

    def count_freed(self, samples: int, nbytes: int) -> None:
        """Adds to the totals that health() shows."""
        self.force_freed += samples
        self.force_freed_bytes += nbytes

    def old_samples(self, now: float, max_hold_age_s: float) -> list[tuple[str, Sample]]:
        """Those put or adopted here longer ago than that, and not being read here."""
        return [
            (sample_id, sample)
            for sample_id, sample in self.samples.items()
            if sample.put_time is not None
            and now - sample.put_time > max_hold_age_s
            and not self.is_leased(sample_id, sample.generation)
        ]
