# SPDX-License-Identifier: Apache-2.0
"""Hidden states as samples of a broker's store, and the manifest that speaks of one.

The manifest travels from vLLM to the trainer in the answer to the request, before the bytes are in
the broker. So it has no ref: it names the sample, and the trainer waits for it at the broker. A
producer that failed puts a sample of that name too, with the one tensor ERROR, so that nobody waits
for what never comes.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Mapping, Optional

import torch

import feature_broker as fb

from .._attachment import Attachment, retire
from ._config import FeaturedConfig

VERSION = 1
ERROR = "featured.error"
ERROR_MAX_BYTES = 4096

# Refs of samples that were got and not deleted yet; a trainer deletes each after it has got it.
REFS_MAX = 4096


class ProducerError(RuntimeError):
    """vLLM could not produce the sample: ask it again."""


class BadSampleError(RuntimeError):
    """A sample is there, and is not what its manifest says."""


def make_manifest(
    handle: str,
    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """What the trainer is told of a sample: JSON that names it and its tensors."""
    return {
        "handle": handle,
        "version": VERSION,
        "backend": "featured",
        "tensors": {
            name: {"shape": [int(length) for length in shape], "dtype": str(dtype)}
            for name, (shape, dtype) in tensors.items()
        },
        "metadata": dict(metadata),
    }


class HiddenStatesSamples:
    """Puts, gets and deletes hidden states. Threads and forked workers may share one."""

    def __init__(self, config: FeaturedConfig) -> None:
        """Does not connect yet."""
        self.config = config
        self._attachment: Optional[Attachment] = None
        self._lock = threading.Lock()
        self._refs: dict[str, fb.Ref] = {}

    def setup(self) -> None:
        """Connects, if this process has not yet. Raises Unavailable when no broker answers."""
        with self._lock:
            if self._attachment is None:
                self._attachment = Attachment(self.config.settings())
        self._attachment.store

    @property
    def _store(self) -> fb.Store:
        if self._attachment is None:
            raise RuntimeError("call setup() first")
        return self._attachment.store

    def put(
        self,
        manifest: Mapping[str, Any],
        write: Callable[[Mapping[str, torch.Tensor]], None],
        *,
        timeout_s: float = 30.0,
    ) -> fb.Ref:
        """Makes room for a sample as its manifest says, lets `write` fill it, and shows it.

        write: is given the tensors, which lie in the broker's memory; copies into them must have
            ended when it returns, those from a GPU too. When it raises nothing is shown.
        """
        tensors = {
            name: (_parse_dtype(spec["dtype"]), tuple(spec["shape"]))
            for name, spec in manifest["tensors"].items()
        }
        with self._store.reserve(
            manifest["handle"], tensors, timeout_s=timeout_s, framework="torch"
        ) as room:
            write({name: room[name] for name in tensors})
        return room.ref

    def put_error(self, manifest: Mapping[str, Any], error: str) -> None:
        """Shows that the sample will not come."""
        text = json.dumps({"error": error}).encode()[:ERROR_MAX_BYTES]
        self._store.put(manifest["handle"], {ERROR: torch.tensor(list(text), dtype=torch.uint8)})

    def get(self, manifest: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Waits for a sample and gives its tensors, which are the caller's own.

        Raises ProducerError when vLLM failed, BadSampleError when the sample is not as the manifest
        says, TimeoutError after the configured wait_s, Lost when its node is gone.
        """
        if manifest.get("version") != VERSION:
            raise BadSampleError(
                f"the manifest has version {manifest.get('version')}, this is version {VERSION}: "
                f"install the same feature_broker for vLLM and the trainer ({dict(manifest)})"
            )
        handle = manifest["handle"]
        with self._store.get(
            handle, copy=False, wait_s=self.config.wait_s, framework="torch"
        ) as view:
            if ERROR in view:
                raise ProducerError(f"sample {handle}: {_read_error(view[ERROR])}")
            tensors = {
                name: _check(view, handle, name, spec) for name, spec in manifest["tensors"].items()
            }
            self._remember(handle, view.ref)
        return tensors

    def find(self, handle: str) -> Optional[dict[str, torch.Tensor]]:
        """The tensors of a sample that is there now, or None."""
        try:
            tensors: dict[str, torch.Tensor] = self._store.get(handle, framework="torch")
        except fb.NotFound:
            return None
        return tensors

    def delete(self, handle: str) -> None:
        """Frees a sample, wherever it is. Absent is fine."""
        with self._lock:
            ref = self._refs.pop(handle, None)
        retire(self._store, handle if ref is None else ref)

    def _remember(self, handle: str, ref: fb.Ref) -> None:
        with self._lock:
            self._refs[handle] = ref
            while len(self._refs) > REFS_MAX:
                del self._refs[next(iter(self._refs))]

    def close(self) -> None:
        """Ends the connection. Samples stay. setup() connects again."""
        with self._lock:
            attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.close()

    def __getstate__(self) -> dict[str, Any]:
        """For a spawned worker, which connects for itself."""
        return {"config": self.config, "connected": self._attachment is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"])  # type: ignore[misc]
        if state["connected"]:
            self._attachment = Attachment(self.config.settings())


def _check(view: fb.View, handle: str, name: str, spec: Mapping[str, Any]) -> torch.Tensor:
    """A copy of a tensor that is as the manifest says."""
    if name not in view:
        raise BadSampleError(f"sample {handle} has no tensor {name}, it has {', '.join(view)}")
    tensor: torch.Tensor = view[name]
    if list(tensor.shape) != list(spec["shape"]) or tensor.dtype != _parse_dtype(spec["dtype"]):
        raise BadSampleError(
            f"tensor {name} of sample {handle} is {tensor.dtype} {list(tensor.shape)}, and the "
            f"manifest says {spec['dtype']} {list(spec['shape'])}"
        )
    return tensor.clone()


def _read_error(tensor: torch.Tensor) -> str:
    text = bytes(tensor.tolist()).decode(errors="replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text


def _parse_dtype(word: str) -> torch.dtype:
    dtype = getattr(torch, str(word).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise BadSampleError(f"torch {torch.__version__} has no dtype {word!r}")
    return dtype
