# SPDX-License-Identifier: Apache-2.0
"""The records of SpecForge's feature stores: its own where it is installed, else ours.

Ours have the same fields, in the same order. So code that reads the fields works with both, and
nothing here asks a record for its type.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Callable, Mapping, Optional, Protocol

import feature_broker as fb

from ._tensors import dtype_name

SCHEMA_VERSION = 1
"""As in SpecForge: of the features that a ref speaks of."""


@dataclass(frozen=True)
class FeatureSpec:
    """One tensor of a sample."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as torch calls it: "bfloat16"
    device_hint: Optional[str] = None
    required: bool = True
    target_repr: Optional[str] = None
    target_meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleRef:
    """A pointer to one sample. It carries no tensors."""

    sample_id: str
    run_id: str
    source_task_id: Optional[str]
    feature_store_uri: str
    feature_keys: dict[str, str]
    feature_specs: dict[str, Any]
    strategy: str
    schema_version: int = SCHEMA_VERSION
    target_model_version: str = "unknown"
    draft_weight_version: Optional[str] = None
    tokenizer_version: str = "unknown"
    num_tokens: int = 0
    estimated_bytes: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureHandle:
    """What a get gives beside the tensors, for the release."""

    sample_id: str
    generation: int
    lease_token: str


class AuthPolicy:
    """A token that whoever uses the store must present; None: no token is asked for."""

    def __init__(self, token: Optional[str] = None) -> None:
        self.token = token

    @property
    def required(self) -> bool:
        """Whether there is a token."""
        return self.token is not None

    def check(self, presented: Optional[str]) -> None:
        """Raises PermissionError for another token, or none. Takes as long for every wrong one."""
        if self.token is None:
            return
        if not hmac.compare_digest((presented or "").encode(), self.token.encode()):
            raise PermissionError("feature store: a token is needed, and this is not the one")


class Policy(Protocol):
    """AuthPolicy, ours or SpecForge's."""

    token: Optional[str]

    def check(self, presented: Optional[str]) -> None:
        """Raises PermissionError when the token is wrong."""


class Records:
    """The classes in use."""

    def __init__(self) -> None:
        self.sample_ref: Callable[..., Any] = SampleRef
        self.feature_spec: Callable[..., Any] = FeatureSpec
        self.feature_handle: Callable[..., Any] = FeatureHandle
        self.schema_version = SCHEMA_VERSION
        try:
            contracts = import_module("specforge.runtime.contracts")
        except ImportError:
            return
        self.sample_ref = contracts.SampleRef
        self.feature_spec = contracts.FeatureSpec
        self.feature_handle = contracts.FeatureHandle
        self.schema_version = contracts.SCHEMA_VERSION

    def make_ref(
        self,
        sample_id: str,
        tensors: Mapping[str, Any],
        nbytes: int,
        metadata: Mapping[str, Any],
        ref: fb.Ref,
    ) -> Any:
        """The SampleRef of a put, with the fields that SpecForge's stores take from metadata."""
        specs = {
            name: self.feature_spec(
                name=name, shape=tuple(tensor.shape), dtype=dtype_name(tensor)
            )
            for name, tensor in tensors.items()
        }
        rest = {name: value for name, value in metadata.items() if name != "num_tokens"}
        return self.sample_ref(
            sample_id=sample_id,
            run_id=str(metadata.get("run_id", "unknown")),
            source_task_id=metadata.get("source_task_id"),
            feature_store_uri=ref.uri,
            feature_keys={name: f"{sample_id}/{name}" for name in tensors},
            feature_specs=specs,
            strategy=metadata.get("strategy", "eagle3"),
            schema_version=int(metadata.get("schema_version", self.schema_version)),
            target_model_version=str(metadata.get("target_model_version", "unknown")),
            draft_weight_version=metadata.get("draft_weight_version"),
            tokenizer_version=str(metadata.get("tokenizer_version", "unknown")),
            num_tokens=int(metadata.get("num_tokens", 0)),
            estimated_bytes=nbytes,
            metadata={**rest, "generation": ref.generation},
        )


def register_as_feature_store(store_class: type) -> None:
    """Makes isinstance(store, specforge's FeatureStore) true, where SpecForge is installed."""
    try:
        module = import_module("specforge.runtime.data_plane.feature_store")
    except ImportError:
        return
    module.FeatureStore.register(store_class)
