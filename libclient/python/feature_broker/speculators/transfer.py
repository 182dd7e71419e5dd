# SPDX-License-Identifier: Apache-2.0
"""The backend "featured" for hs_connectors: the trainer's half, and the arguments of both."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Mapping, Optional

import torch
from hs_connectors import HiddenStatesBackend, HiddenStatesTransfer

from ._config import FeaturedConfig, add_arguments
from .samples import HiddenStatesSamples

if TYPE_CHECKING:
    _Transfer = object
    _Backend = object
else:
    _Transfer = HiddenStatesTransfer
    _Backend = HiddenStatesBackend


class BrokerTransfer(_Transfer):
    """Reads hidden states that vLLM put into the broker. DataLoader workers may share one, after
    fork and after spawn."""

    def __init__(self, samples: HiddenStatesSamples) -> None:
        self.samples = samples

    def setup(self) -> None:
        """Connects to the broker of this node. A second call does nothing."""
        self.samples.setup()

    def get_cached(self, file_idx: int) -> Optional[dict[str, torch.Tensor]]:
        """The sample `hs_<file_idx>` of the store, where somebody put one beforehand; else None."""
        self.samples.setup()
        return self.samples.find(f"hs_{file_idx}")

    def get_generated(
        self, hs_transfer_params: Mapping[str, Any]
    ) -> Optional[dict[str, torch.Tensor]]:
        """The sample that vLLM's answer speaks of. Waits for it; see HiddenStatesSamples.get()."""
        self.samples.setup()
        return self.samples.get(hs_transfer_params)

    def delete(self, handle: str) -> None:
        """Frees the sample. Absent is fine."""
        self.samples.setup()
        self.samples.delete(handle)


class BrokerBackend(_Backend):
    """How programs of speculators choose and configure the transfer."""

    @staticmethod
    def add_train_args(parser: argparse.ArgumentParser) -> None:
        """Adds the trainer's arguments."""
        add_arguments(parser, launch=False)

    @staticmethod
    def add_launch_args(parser: argparse.ArgumentParser) -> None:
        """Adds the arguments of vLLM's launcher."""
        add_arguments(parser, launch=True)

    @staticmethod
    def from_train_args(args: argparse.Namespace, data_path: str) -> BrokerTransfer:
        """The trainer's half. Does not connect yet. data_path is for backends with files."""
        del data_path
        return BrokerTransfer(HiddenStatesSamples(FeaturedConfig.from_arguments(args)))

    @staticmethod
    def build_kv_transfer_config(args: argparse.Namespace) -> dict[str, Any]:
        """vLLM's --kv_transfer_config: it loads our connector by module path."""
        return {
            "kv_connector": "BrokerHiddenStatesConnector",
            "kv_role": "kv_producer",
            "kv_connector_module_path": "feature_broker.speculators.vllm_connector",
            "kv_connector_extra_config": {
                "featured": FeaturedConfig.from_arguments(args).to_mapping()
            },
        }


if "featured" not in HiddenStatesBackend.registry:
    HiddenStatesBackend.register("featured")(BrokerBackend)
