# SPDX-License-Identifier: Apache-2.0
"""SpecForge has no place to register a store: ours is put in the place of one of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .store import BrokerFeatureStore


def install() -> None:
    """Puts BrokerFeatureStore in the place of SpecForge's Mooncake store, in this process.

    Call it before SpecForge builds its stores. Then what asks for the backend "mooncake" gets the
    broker's store. Raises ImportError when SpecForge is not installed.
    """
    module: Any = import_module("specforge.runtime.data_plane.mooncake_store")
    module.MooncakeFeatureStore = BrokerFeatureStore
