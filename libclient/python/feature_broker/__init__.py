# SPDX-License-Identifier: Apache-2.0
"""feature_broker: put and get samples of tensors through the featured broker of this machine::

    import feature_broker as fb

    client = fb.connect()
    store = client.store("run0")
    ref = store.put("sample-1", {"hidden": hidden, "ids": ids})     # numpy, torch, DLPack, buffers
    tensors = store.get(ref)                                        # on any node; tensors of your own
    with store.get(ref, copy=False, consume=True) as view:          # in shared memory, not copied
        train(view["hidden"])

numpy and torch are used when they are installed and never imported without need. See docs/python.md
for a tour.
"""

from ._client import Client, Health, Log, connect
from ._errors import (
    BatchError,
    Corrupt,
    Denied,
    Exists,
    FeatureError,
    Full,
    Internal,
    Invalid,
    Lost,
    NotFound,
    Timeout,
    Unavailable,
    Unsupported,
    text as _text,
)
from ._feature import lib as _lib
from ._pool import set_receive_pool
from ._ref import Key, Ref, TensorSpec
from ._reservation import Reservation
from ._serve import Broker, serve
from ._stat import Stat
from ._store import Store
from ._tensor import Tensor
from ._view import View

__version__ = _text(_lib.feature_version())

__all__ = [
    "BatchError",
    "Broker",
    "Client",
    "Corrupt",
    "Denied",
    "Exists",
    "FeatureError",
    "Full",
    "Health",
    "Internal",
    "Invalid",
    "Key",
    "Log",
    "Lost",
    "NotFound",
    "Ref",
    "Reservation",
    "Stat",
    "Store",
    "Tensor",
    "TensorSpec",
    "Timeout",
    "Unavailable",
    "Unsupported",
    "View",
    "connect",
    "set_receive_pool",
    "serve",
]
