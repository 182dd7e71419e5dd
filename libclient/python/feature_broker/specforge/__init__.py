# SPDX-License-Identifier: Apache-2.0
"""SpecForge on featured: a feature store with the interface of its Mooncake store.

    from feature_broker.specforge import BrokerFeatureStore

    store = BrokerFeatureStore(store_id="run0")
    ref = store.put({"hidden_state": hidden}, sample_id="s0", metadata={"run_id": "run0"})
    tensors, handle = store.get(ref)         # in any process, on any node of the cluster
    store.release(handle)

:func:`install` puts it in the place of SpecForge's Mooncake store, so that configurations with
``backend: mooncake`` use it. See docs/migrating.md.
"""

from ._install import install
from ._records import AuthPolicy
from .store import BrokerFeatureStore

__all__ = ["AuthPolicy", "BrokerFeatureStore", "install"]
