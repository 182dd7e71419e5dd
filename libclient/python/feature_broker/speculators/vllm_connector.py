# SPDX-License-Identifier: Apache-2.0
"""The producer's half in vLLM: a KV connector that puts extracted hidden states into the broker.

vLLM loads it by module path, as the kv_transfer_config of BrokerBackend says, and it needs the
speculative method `extract_hidden_states`, which lets vLLM write the hidden states of chosen layers
into a KV cache of their own.

Life of a request, in the scheduler's process (S) and in the worker's of tensor rank 0 (W):
  S request_finished      makes the manifest, which vLLM sends to the trainer, and keeps the blocks
  S build_connector_meta  hands what is to be saved to the workers
  W get_finished          starts a copy in a thread, after the forward pass, on a stream of its own
  W get_finished          later: says that the copy has ended; vLLM then reuses the blocks
Every rank of a tensor-parallel worker tells when a request of its metadata has ended, and vLLM counts
the ranks; rank 0 alone copies.

Where the hidden states of a token lie in the cache is vLLM's own affair, and differs between its
versions: its example connector says it, and is asked. The copy goes from the device into the broker's
memory. A trainer that asks earlier waits there. A
copy that fails puts an error under the same name, so that the trainer asks vLLM again at once.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Mapping, Optional

import torch

from .._naming import broker_id_of
from ._config import FeaturedConfig
from .samples import HiddenStatesSamples, make_manifest

if TYPE_CHECKING:
    logger: Any
    _Metadata = object

    class _Connector:
        """What is used here of vLLM's base class."""

        def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None: ...

        def has_connector_metadata(self) -> bool: ...

        def _get_connector_metadata(self) -> Any: ...

    class _HybridMemory:
        """vLLM's mark of connectors that know several groups of KV caches."""

else:
    from vllm.distributed.kv_transfer.kv_connector.v1 import base as _base
    from vllm.logger import init_logger

    logger = init_logger(__name__)
    _Connector = _base.KVConnectorBase_V1
    _Metadata = _base.KVConnectorMetadata

    # vLLM has it since it knows several groups.
    _HybridMemory = getattr(_base, "SupportsHMA", type("_HybridMemory", (), {}))


@dataclass
class PendingSave:
    """A request that has finished and whose hidden states are still in vLLM's cache."""

    req_id: str
    manifest: dict[str, Any]
    token_ids: torch.Tensor
    block_ids: list[int]


@dataclass
class BrokerConnectorMetadata(_Metadata):
    """From the scheduler to the workers."""

    pending_saves: list[PendingSave] = field(default_factory=list)


class BrokerHiddenStatesConnector(_Connector, _HybridMemory):
    """Puts hidden states, [tokens, layers, hidden size], and token ids, [tokens], per request."""

    def __init__(
        self, vllm_config: Any, role: Any, kv_cache_config: Optional[Any] = None
    ) -> None:
        super().__init__(
            vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config
        )
        self._config_of_vllm = vllm_config
        self._layer_count, self._hidden_size, self._dtype = _find_layout(vllm_config)
        self._group = _find_group(kv_cache_config)
        self._config = FeaturedConfig.from_mapping(
            vllm_config.kv_transfer_config.get_from_extra_config("featured", {})
        )
        # Of the scheduler.
        self._pending: dict[str, PendingSave] = {}
        # Of the worker.
        self._samples: Optional[HiddenStatesSamples] = None
        self._kv_cache: Optional[torch.Tensor] = None
        self._is_writer = True
        self._stream: Optional[Any] = None
        self._threads: Optional[ThreadPoolExecutor] = None
        self._copies: dict[str, Future[None]] = {}
        self._unfinished: set[str] = set()
        """Requests of the metadata, of which vLLM has not said yet that they may end."""
        self._ending: set[str] = set()
        """Those of which it has, and whose copies may be under way."""

    @property
    def prefer_cross_layer_blocks(self) -> bool:
        """The hidden states must not share blocks with the verifier's KV cache."""
        return False

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: Any) -> Optional[str]:
        """That of vLLM's example connector: what belongs to one token lies together."""
        example = _find_example()
        if example is None:
            return "NHD"
        layout: Optional[str] = example.ExampleHiddenStatesConnector.get_required_kvcache_layout(
            vllm_config
        )
        return layout

    # ---- the scheduler's half ----

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[Optional[int], bool]:
        """Nothing is ever loaded."""
        del request, num_computed_tokens
        return 0, False

    def update_state_after_alloc(
        self, request: Any, blocks: Any, num_external_tokens: int
    ) -> None:
        """Nothing is ever loaded."""
        del request, blocks, num_external_tokens

    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, Optional[dict[str, Any]]]:
        """Makes the manifest. True: the blocks stay until get_finished() says that they may go.
        False for a request that was given up before it had any."""
        if not block_ids:
            return False, None
        params = request.kv_transfer_params or {}
        if params.get("include_output_tokens", False):
            # The last token was only put out: no forward pass has seen it.
            token_ids, mode = list(request.all_token_ids)[:-1], "all"
        else:
            token_ids, mode = list(request.prompt_token_ids or []), "prompt_only"
        tokens = torch.tensor(token_ids, dtype=torch.long)
        manifest = make_manifest(
            broker_id_of(request.request_id),
            {
                "hidden_states": (
                    (len(token_ids), self._layer_count, self._hidden_size),
                    self._dtype,
                ),
                "token_ids": ((len(token_ids),), torch.long),
            },
            {"store": self._config.store, "num_tokens": len(token_ids), "extract_mode": mode},
        )
        self._pending[request.request_id] = PendingSave(
            request.request_id, manifest, tokens, list(block_ids)
        )
        return True, manifest

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, Optional[dict[str, Any]]]:
        """As request_finished(), where vLLM has several groups of KV caches."""
        if self._group >= len(block_ids):
            return False, None
        return self.request_finished(request, block_ids[self._group])

    def build_connector_meta(self, scheduler_output: Any) -> BrokerConnectorMetadata:
        """What has finished since the last step."""
        del scheduler_output
        pending = list(self._pending.values())
        self._pending.clear()
        return BrokerConnectorMetadata(pending)

    # ---- the worker's half ----

    def register_kv_caches(self, kv_caches: Mapping[str, torch.Tensor]) -> None:
        """Finds the cache that holds the hidden states."""
        from vllm.config import get_layers_from_vllm_config
        from vllm.distributed.parallel_state import (
            get_tensor_model_parallel_rank,
        )
        from vllm.model_executor.models.extract_hidden_states import (
            CacheOnlyAttentionLayer,
        )

        self._is_writer = get_tensor_model_parallel_rank() == 0
        layers = list(
            get_layers_from_vllm_config(
                self._config_of_vllm, CacheOnlyAttentionLayer, list(kv_caches)
            )
        )
        if len(layers) != 1:
            raise ValueError(
                f"one layer is to hold the extracted hidden states, and vLLM has {len(layers)}: "
                "use the speculative method extract_hidden_states"
            )
        self._kv_cache = kv_caches[layers[0]]
        streams = _streams_of(self._kv_cache.device)
        self._stream = None if streams is None else streams.Stream()

    def start_load_kv(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is ever loaded."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is ever loaded."""

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is saved per layer: get_finished() saves whole requests."""

    def wait_for_save(self) -> None:
        """Copies need no waiting: vLLM keeps the blocks until get_finished() frees them."""

    def get_finished(
        self, finished_req_ids: set[str]
    ) -> tuple[Optional[set[str]], Optional[set[str]]]:
        """Starts the copies of this step, and tells which earlier ones have ended."""
        metadata = self._get_connector_metadata() if self.has_connector_metadata() else None
        if isinstance(metadata, BrokerConnectorMetadata):
            for pending in metadata.pending_saves:
                self._unfinished.add(pending.req_id)
                if self._is_writer and pending.req_id not in self._copies:
                    self._start_copy(pending)
        # Requests that are none of ours are not to be reported: vLLM has freed them.
        self._ending |= self._unfinished & finished_req_ids
        self._unfinished -= finished_req_ids
        ended = {req_id for req_id in self._ending if self._has_ended(req_id)}
        self._ending -= ended
        return ended or None, None

    def _has_ended(self, req_id: str) -> bool:
        copy = self._copies.get(req_id)
        if copy is None:
            return True  # another rank writes
        if not copy.done():
            return False
        del self._copies[req_id]
        error = copy.exception()
        if error is not None:
            logger.error("hidden states of request %s did not reach the broker: %r", req_id, error)
        return True

    def _start_copy(self, pending: PendingSave) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._config.writer_threads, "featured-hs")
        assert self._kv_cache is not None
        streams = _streams_of(self._kv_cache.device)
        written = None
        if streams is not None:
            written = streams.Event()  # when the forward pass has written the cache
            written.record()
        self._copies[pending.req_id] = self._threads.submit(self._copy, pending, written)

    def _copy(self, pending: PendingSave, written: Optional[Any]) -> None:
        """In a thread: from the cache into the broker."""
        samples = self._connect()
        try:
            samples.put(pending.manifest, lambda room: self._write(pending, written, room))
        except Exception as error:
            try:
                samples.put_error(pending.manifest, f"{type(error).__name__}: {error}")
            except Exception as second:
                logger.error("nor did the error of request %s: %r", pending.req_id, second)
            raise

    def _connect(self) -> HiddenStatesSamples:
        samples = self._samples
        if samples is None:
            samples = self._samples = HiddenStatesSamples(self._config)
        samples.setup()
        return samples

    def _write(
        self, pending: PendingSave, written: Optional[Any], room: Mapping[str, torch.Tensor]
    ) -> None:
        assert self._kv_cache is not None
        room["token_ids"].copy_(pending.token_ids)
        count = len(pending.token_ids)
        if self._stream is None:
            room["hidden_states"].copy_(self._gather(pending.block_ids, count))
            return
        streams = _streams_of(self._kv_cache.device)
        assert streams is not None and written is not None
        self._stream.wait_event(written)
        with streams.stream(self._stream):
            states = self._gather(pending.block_ids, count)
            room["hidden_states"].copy_(states, non_blocking=True)
        self._stream.synchronize()

    def _gather(self, block_ids: list[int], count: int) -> torch.Tensor:
        """The hidden states of a request: [tokens, layers, hidden size].

        Raises ValueError when they are not finite: a trainer must not learn from those.
        """
        cache = self._kv_cache
        assert cache is not None
        # [blocks, tokens, layers, hidden size], or layers before tokens in newer versions.
        block_tokens = cache.shape[1] * cache.shape[2] // self._layer_count
        starts = torch.tensor(block_ids, dtype=torch.long).unsqueeze(1) * block_tokens
        slots = (starts + torch.arange(block_tokens)).flatten()[:count].to(cache.device)
        example = _find_example()
        if example is None:
            rows = cache[slots // block_tokens, slots % block_tokens]
        else:
            rows = example.extract_from_kv_cache(cache, slots, count)
        if len(rows) != count:
            raise ValueError(
                f"{len(block_ids)} blocks hold {len(rows)} tokens, and {count} are asked"
            )
        if rows.is_floating_point() and not bool(torch.isfinite(rows).all()):
            raise ValueError("the hidden states have NaN or infinite elements")
        return rows

    def shutdown(self) -> None:
        """Waits for the copies under way, and closes the connection."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)
            self._threads = None
        if self._samples is not None:
            self._samples.close()
            self._samples = None


def _find_example() -> Optional[Any]:
    """vLLM's module with its example connector; None where it has none."""
    try:
        return import_module(
            "vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector"
        )
    except ImportError:
        return None


def _streams_of(device: torch.device) -> Optional[Any]:
    """torch's module with the streams of such a device; None for the CPU."""
    if device.type == "cpu":
        return None
    get_module = getattr(torch, "get_device_module", None)
    return getattr(torch, device.type) if get_module is None else get_module(device)


def _find_layout(vllm_config: Any) -> tuple[int, int, torch.dtype]:
    """Layers, hidden size and dtype of what vLLM extracts."""
    speculative = vllm_config.speculative_config
    if speculative is None or speculative.method != "extract_hidden_states":
        raise ValueError(
            "BrokerHiddenStatesConnector needs the speculative method extract_hidden_states"
        )
    draft = speculative.draft_model_config
    layers = draft and getattr(draft.hf_config, "eagle_aux_hidden_state_layer_ids", None)
    if not layers:
        raise ValueError("eagle_aux_hidden_state_layer_ids must name the layers to be extracted")
    model = vllm_config.model_config
    return len(layers), int(model.get_hidden_size()), model.dtype


def _find_group(kv_cache_config: Optional[Any]) -> int:
    """Which group of KV caches holds the hidden states."""
    groups = [] if kv_cache_config is None else list(kv_cache_config.kv_cache_groups)
    if len(groups) <= 1:
        return 0
    from vllm.v1.kv_cache_interface import HiddenStateCacheSpec

    found = [
        index
        for index, group in enumerate(groups)
        if isinstance(group.kv_cache_spec, HiddenStateCacheSpec)
    ]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} of {len(groups)} groups of KV caches hold extracted hidden states, and "
            "it must be one of its own"
        )
    return found[0]
