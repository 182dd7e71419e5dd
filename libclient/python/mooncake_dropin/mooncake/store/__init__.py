# SPDX-License-Identifier: Apache-2.0
"""mooncake.store, as programs import it. See mooncake/_store.py.

This is a package and no file store.py: where Mooncake's own wheel is installed too, Python would
prefer its store.so to a store.py, and prefers a package to both.
"""

from .._store import BufferHandle, MooncakeDistributedStore, ReplicateConfig

__all__ = ["BufferHandle", "MooncakeDistributedStore", "ReplicateConfig"]
