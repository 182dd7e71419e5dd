# SPDX-License-Identifier: Apache-2.0
"""Memory of large tensors, used again by later gets (receive_pool.c)."""

from __future__ import annotations

from typing import Any

from ._errors import Invalid
from ._feature import ffi, lib

# From here on fresh memory costs more than the way through the pool.
POOLED_BYTES_MIN = 512 << 10
_IDLE_BYTES_MAX = 256 << 20

_pool = lib.receive_pool_new(_IDLE_BYTES_MAX)


def take(size: int) -> Any:
    """A cffi pointer to memory of its own, which goes back when the pointer is collected."""
    data = lib.receive_pool_take(_pool, size)
    if not data:
        raise MemoryError(f"no memory for a tensor of {size} bytes")
    return ffi.gc(ffi.cast("char *", data), lib.receive_pool_give)


def idle_bytes() -> int:
    """Bytes that are kept for later gets."""
    return int(lib.receive_pool_idle_bytes(_pool))


def set_receive_pool(limit_bytes: int) -> None:
    """How much memory of tensors that were let go of this process keeps for its next gets.

    limit_bytes: at most so much, 256 MiB unless set; 0: nothing. Memory fresh from the kernel is
        slow, as it has to be zeroed: a get of a large sample takes two to three times as long then.
        Give as much as the tensors of the samples that are in use at a time. Raises Invalid for a
        negative number.
    """
    if not isinstance(limit_bytes, int) or not 0 <= limit_bytes < 1 << 63:
        raise Invalid(f"set_receive_pool: {limit_bytes} is no number of bytes")
    lib.receive_pool_set_limit(_pool, limit_bytes)
