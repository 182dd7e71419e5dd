# SPDX-License-Identifier: Apache-2.0
"""speculators on featured: hidden states from vLLM to the trainer through the broker.

Importing this package registers the backend "featured" with hs_connectors. Both programs must have
imported it before they read their arguments; this does so and then runs them::

    python -m feature_broker.speculators launch_vllm.py MODEL --hidden-states-backend featured
    python -m feature_broker.speculators scripts/train.py --hidden-states-backend featured ...

In vLLM's process it is named by module path in the kv_transfer_config, and nothing needs to be
imported there. See docs/migrating.md. hs_connectors must be installed; vLLM only where vLLM runs.
"""

from ._config import FeaturedConfig
from .transfer import BrokerBackend, BrokerTransfer

__all__ = ["BrokerBackend", "BrokerTransfer", "FeaturedConfig"]
