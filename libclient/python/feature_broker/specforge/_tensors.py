# SPDX-License-Identifier: Apache-2.0
"""Tensors and what SpecForge's specs say of them."""

from __future__ import annotations

import math
from typing import Any, Mapping

import torch

import feature_broker as fb


def stage(tensor: torch.Tensor) -> torch.Tensor:
    """As a broker takes it: on the CPU or a CUDA device, and without a graph."""
    tensor = tensor.detach()
    return tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()


def pick(view: fb.View, name: str, sample_ref: Any) -> torch.Tensor:
    """A tensor of the sample. Raises KeyError where it is not what the ref says."""
    if name not in view:
        raise KeyError(
            f"sample {sample_ref.sample_id} has no feature {name!r}, it has {', '.join(view)}"
        )
    tensor: torch.Tensor = view[name]
    spec = sample_ref.feature_specs.get(name)
    if spec is not None and (tuple(spec.shape), spec.dtype) != (
        tuple(tensor.shape),
        dtype_name(tensor),
    ):
        raise KeyError(
            f"feature {name!r} of sample {sample_ref.sample_id} is {dtype_name(tensor)} "
            f"{tuple(tensor.shape)}, and the ref says {spec.dtype} {tuple(spec.shape)}"
        )
    return tensor


def dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def count_bytes(specs: Mapping[str, Any]) -> int:
    """See BrokerFeatureStore.estimate_bytes()."""
    total = 0
    for spec in specs.values():
        dtype = getattr(torch, str(spec.dtype), None)
        known = isinstance(dtype, torch.dtype)
        size = torch.empty((), dtype=dtype).element_size() if known else 4
        total += math.prod(int(length) for length in spec.shape) * size
    return total
