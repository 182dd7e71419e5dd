# SPDX-License-Identifier: Apache-2.0
"""What the broker tells of a sample without a lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._errors import text
from ._ref import Ref

_STATES = (
    "never seen", "planned", "sealed", "resident", "retired", "gone", "home lost"
)  # fmt: skip


@dataclass(frozen=True)
class Stat:
    """What the broker knows of a generation."""

    sample_id: str
    generation: int
    state: str
    """"resident" (readable), "retired", "gone", "planned", "sealed", "never seen", "home lost"."""
    reason: str
    """Why it is retired or gone, for example "superseded"; else ""."""
    extent_bytes: int
    """Memory that it takes."""
    age_s: float
    leases: int
    """Reads under way on its home."""
    consumed: int
    """Reads that said consumed."""
    readers: int
    """As many of those as retire it, in a store of policy on-release."""
    landing: bool
    """Whether this is a copy whose home is another node."""
    ref: Ref | None
    """None in lists, and where there is none."""


def stat_of(info: Any, ref: Ref | None) -> Stat:
    state = int(info.state)
    return Stat(
        sample_id=text(info.sample_id),
        generation=int(info.generation),
        state=_STATES[state] if 0 <= state < len(_STATES) else f"state {state}",
        reason=text(info.reason) if info.reason else "",
        extent_bytes=int(info.extent_bytes),
        age_s=int(info.age_ms) / 1000,
        leases=int(info.leases),
        consumed=int(info.consumed),
        readers=int(info.readers),
        landing=bool(info.landing),
        ref=ref,
    )
