# SPDX-License-Identifier: Apache-2.0
"""Where gets put their tensors, and what is said of receive buffers, which featured has not."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Optional

import torch

RECEIVE_BUFFERS = ("pageable", "pinned", "cuda")


def copy_out(tensor: torch.Tensor, device: "torch.device | str") -> torch.Tensor:
    """A copy of a view's tensor on the device. It is complete when this returns, so that the lease
    may end at any time afterwards."""
    if torch.device(device).type == "cpu":
        return tensor.clone()
    return tensor.to(device, non_blocking=False, copy=True)


def find_consumer_device(receive_buffers: str) -> Optional[torch.device]:
    """See BrokerFeatureStore.consumer_device()."""
    if receive_buffers == "pageable":
        return None
    if receive_buffers == "pinned" and not _trains_on_cuda():
        return None
    # The launcher's LOCAL_RANK names the device, also before the process group has chosen it.
    rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", torch.cuda.current_device() if rank is None else int(rank))


def _trains_on_cuda() -> bool:
    """A machine may have CUDA devices though SpecForge was told to train on something else."""
    if not torch.cuda.is_available():
        return False
    try:
        get_device_type: Any = import_module("specforge.utils").get_device_type
    except (ImportError, AttributeError):
        return True
    return bool(get_device_type() == "cuda")


def receive_health(kind: str) -> dict[str, Any]:
    """The keys of a receive pool, which are all zero.

    A broker reads from other nodes into its own memory, which is registered once and which clients
    only map. So a client has no buffers that a late transfer could still write to, none to register
    and none to be put in quarantine.
    """
    return {
        "quarantined_buffers": 0,
        "quarantined_bytes": 0,
        "receive_buffers": kind,
        "receive_pool_bytes": 0,
        "receive_pool_free_slots": 0,
        "receive_pool_quarantined_bytes": 0,
        "receive_pool_hits": 0,
        "receive_pool_grown": 0,
        "receive_pool_overflow": 0,
        "receive_pool_quarantined": 0,
    }
