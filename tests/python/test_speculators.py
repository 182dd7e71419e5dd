# SPDX-License-Identifier: Apache-2.0
"""speculators on featured: the classes of the released hs_connectors, and the connector for vLLM
with vLLM's own classes stubbed, for it cannot be installed without a GPU stack."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Iterator

import pytest

import feature_broker as fb
import released
from brokers import DEADLINE_S, Broker, wait_until

torch = pytest.importorskip("torch")

LAYERS, HIDDEN, BLOCK = 3, 8, 4

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """hs_connectors, and no trace of what an earlier test imported."""
    released.importable(monkeypatch, "hs_connectors")
    for name in [name for name in sys.modules if name.startswith("feature_broker.speculators")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def backend(packages: None) -> Any:
    import feature_broker.speculators  # noqa: F401
    from hs_connectors import HiddenStatesBackend

    return HiddenStatesBackend.registry["featured"]


@pytest.fixture
def rid() -> str:
    return f"cmpl-{next(_numbers)}-0"


def make_transfer(backend: Any, broker: Broker, *arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    backend.add_train_args(parser)
    given = ["--featured-socket-path", broker.socket_path, "--featured-store", "keep", *arguments]
    return backend.from_train_args(parser.parse_args(given), "/nowhere")


@pytest.fixture
def transfer(backend: Any, broker: Broker) -> Iterator[Any]:
    transfer = make_transfer(backend, broker, "--featured-wait-s", str(DEADLINE_S))
    yield transfer
    transfer.samples.close()


def states(tokens: int) -> Any:
    count = tokens * LAYERS * HIDDEN
    return torch.arange(count, dtype=torch.float32).reshape(tokens, LAYERS, HIDDEN).bfloat16()


# ---- vLLM, as far as a connector sees it ----


class StubConnector:
    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        self._metadata: Any = None

    def bind_connector_metadata(self, metadata: Any) -> None:
        self._metadata = metadata

    def has_connector_metadata(self) -> bool:
        return self._metadata is not None

    def _get_connector_metadata(self) -> Any:
        return self._metadata


LAYOUTS = {
    # vLLM without its example connector: as the older ones.
    "none": None,
    "tokens first": lambda cache, slots, count: cache[
        slots // cache.shape[1], slots % cache.shape[1]
    ][:count],
    "layers first": lambda cache, slots, count: cache[
        slots // cache.shape[2], :, slots % cache.shape[2]
    ][:count],
}


@pytest.fixture
def layout() -> str:
    """How vLLM's cache of hidden states is laid out; tests may choose."""
    return "layers first"


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Modules of vLLM with the names that the connector imports."""

    def module(name: str, **attributes: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, made)
        parent, _, last = name.rpartition(".")
        if parent:
            if parent not in sys.modules:
                module(parent)
            setattr(sys.modules[parent], last, made)

    import logging

    base = "vllm.distributed.kv_transfer.kv_connector.v1.base"
    module(base, KVConnectorBase_V1=StubConnector, KVConnectorMetadata=object,
           SupportsHMA=type("SupportsHMA", (), {}))  # fmt: skip
    example = base.replace(".base", ".example_hidden_states_connector")
    if LAYOUTS[layout] is None:
        monkeypatch.setitem(sys.modules, example, None)
    else:
        connector = types.SimpleNamespace(get_required_kvcache_layout=lambda config: layout)
        module(example, extract_from_kv_cache=LAYOUTS[layout],
               ExampleHiddenStatesConnector=connector)  # fmt: skip
    module("vllm.logger", init_logger=logging.getLogger)
    module(
        "vllm.config",
        get_layers_from_vllm_config=lambda config, kind, names: {
            name: kind for name in names if name.startswith("cache_only")
        },
    )
    module("vllm.distributed.parallel_state", get_tensor_model_parallel_rank=lambda: 0)
    module("vllm.model_executor.models.extract_hidden_states", CacheOnlyAttentionLayer=object)


def vllm_config(broker: Broker, extra: dict[str, Any] | None = None) -> Any:
    space = types.SimpleNamespace
    settings = {"socket_path": broker.socket_path, "store": "keep", **(extra or {})}
    hf_config = space(eagle_aux_hidden_state_layer_ids=[1, 2, 3])
    return space(
        speculative_config=space(
            method="extract_hidden_states", draft_model_config=space(hf_config=hf_config)
        ),
        model_config=space(dtype=torch.bfloat16, get_hidden_size=lambda: HIDDEN),
        kv_transfer_config=space(get_from_extra_config=lambda key, default: settings),
    )


class Engine:
    """A scheduler and a worker of vLLM, as far as a request that ends goes through them."""

    def __init__(self, broker: Broker, layout: str = "layers first") -> None:
        from feature_broker.speculators.vllm_connector import BrokerHiddenStatesConnector

        config = vllm_config(broker)
        self.scheduler = BrokerHiddenStatesConnector(config, "scheduler", None)
        self.worker = BrokerHiddenStatesConnector(config, "worker", None)
        self.cache = torch.zeros(16, BLOCK, LAYERS, HIDDEN, dtype=torch.bfloat16)
        # The cache as vLLM hands it out; self.cache is a view of it with the tokens first.
        cache = self.cache.transpose(1, 2) if layout == "layers first" else self.cache
        self.worker.register_kv_caches({"attention": None, "cache_only": cache})

    def finish(self, rid: str, tokens: int, *, spoil: bool = False, **params: Any) -> Any:
        """A forward pass wrote the hidden states into scattered blocks; now the request ends."""
        blocks = [7, 2, 11, 5][: -(-tokens // BLOCK)]
        for position, row in enumerate(states(tokens)):
            self.cache[blocks[position // BLOCK], position % BLOCK] = row
        if spoil:
            self.cache[blocks[0], 0, 0, 0] = float("nan")
        request = types.SimpleNamespace(
            request_id=rid, prompt_token_ids=list(range(100, 100 + tokens)),
            all_token_ids=list(range(100, 100 + tokens)) + [999], kv_transfer_params=params,
        )  # fmt: skip
        keep, manifest = self.scheduler.request_finished(request, blocks)
        assert keep
        return manifest

    def step(self, finished: set[str]) -> set[str]:
        self.worker.bind_connector_metadata(self.scheduler.build_connector_meta(None))
        return self.worker.get_finished(finished)[0] or set()

    def run(self, rid: str) -> None:
        done = self.step({rid})
        if rid not in done:
            wait_until(lambda: rid in self.step(set()), "the copy has ended")

    def stop(self) -> None:
        self.worker.shutdown()


@pytest.fixture
def engine(vllm: None, broker: Broker, layout: str) -> Iterator[Engine]:
    engine = Engine(broker, layout)
    yield engine
    engine.stop()


# ---- tests ----


def test_arguments_and_config(backend: Any) -> None:
    from hs_connectors import HiddenStatesBackend, HiddenStatesTransfer

    train, launch = argparse.ArgumentParser(), argparse.ArgumentParser()
    for one in HiddenStatesBackend.registry.values():
        one.add_train_args(train)
        one.add_launch_args(launch)
        one.add_launch_args(launch)  # twice is fine
    transfer = backend.from_train_args(train.parse_args([]), "/nowhere")
    assert isinstance(transfer, HiddenStatesTransfer) and issubclass(backend, HiddenStatesBackend)
    assert transfer.samples.config.store == "hidden-states"
    config = backend.build_kv_transfer_config(
        launch.parse_args(["--featured-store", "run7", "--featured-writer-threads", "2"])
    )
    assert config["kv_role"] == "kv_producer"
    assert config["kv_connector"] == "BrokerHiddenStatesConnector"
    assert config["kv_connector_module_path"] == "feature_broker.speculators.vllm_connector"
    ours = config["kv_connector_extra_config"]["featured"]
    assert (ours["store"], ours["writer_threads"], ours["socket_path"]) == ("run7", 2, None)


def test_the_connector_is_found_by_its_module_path(backend: Any, vllm: None) -> None:
    import importlib

    config = backend.build_kv_transfer_config(argparse.Namespace())
    module = importlib.import_module(config["kv_connector_module_path"])
    connector = getattr(module, config["kv_connector"])
    assert issubclass(connector, StubConnector)
    assert connector.get_required_kvcache_layout(None) == "layers first"


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_from_vllm_to_the_trainer(engine: Engine, transfer: Any, rid: str) -> None:
    manifest = engine.finish(rid, 10)
    assert engine.scheduler.get_num_new_matched_tokens(None, 0) == (0, False)
    engine.run(rid)
    manifest = pickle.loads(pickle.dumps(manifest))
    got = transfer.get_generated(manifest)
    assert torch.equal(got["hidden_states"], states(10))
    assert got["token_ids"].tolist() == list(range(100, 110))
    assert manifest["metadata"]["num_tokens"] == 10
    assert manifest["metadata"]["extract_mode"] == "prompt_only"
    transfer.delete(manifest["handle"])
    transfer.delete(manifest["handle"])  # absent is fine
    assert transfer.samples.find(manifest["handle"]) is None


def test_output_tokens(engine: Engine, transfer: Any, rid: str) -> None:
    manifest = engine.finish(rid, 8, include_output_tokens=True)
    engine.run(rid)
    assert transfer.get_generated(manifest)["token_ids"].tolist() == list(range(100, 108))
    assert manifest["metadata"]["extract_mode"] == "all"
    transfer.delete(manifest["handle"])


def test_a_trainer_that_asks_early_waits(engine: Engine, transfer: Any, rid: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    manifest = engine.finish(rid, 5)
    transfer.setup()
    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(transfer.get_generated, manifest)
        engine.run(rid)
        assert torch.equal(early.result(DEADLINE_S)["hidden_states"], states(5))
    transfer.delete(manifest["handle"])


def test_an_error_comes_at_once(engine: Engine, transfer: Any, rid: str) -> None:
    from feature_broker.speculators.samples import ProducerError

    manifest = engine.finish(rid, 4, spoil=True)
    engine.run(rid)
    with pytest.raises(ProducerError, match="NaN or infinite"):
        transfer.get_generated(manifest)
    transfer.delete(manifest["handle"])
    retry = engine.finish(rid + "-again", 4)
    engine.run(rid + "-again")
    assert torch.equal(transfer.get_generated(retry)["hidden_states"], states(4))
    transfer.delete(retry["handle"])


class FakeStreams:
    """torch's module of an accelerator: notes what is asked of it, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        note = self.log.append

        class Event:
            def record(self) -> None:
                note("forward pass recorded")

        class Stream:
            def wait_event(self, event: Event) -> None:
                note("stream waits for it")

            def synchronize(self) -> None:
                note("stream has ended")

        self.Event, self.Stream = Event, Stream

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.log.append("on the stream")
        yield
        self.log.append("off the stream")


def test_order_on_an_accelerator(
    vllm: None, broker: Broker, transfer: Any, rid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy comes after the forward pass, and the sample is shown after the copy."""
    from feature_broker.speculators import samples, vllm_connector

    streams = FakeStreams()
    monkeypatch.setattr(vllm_connector, "_streams_of", lambda device: streams)
    put = samples.HiddenStatesSamples.put

    def noting_put(*arguments: Any) -> Any:
        ref = put(*arguments)
        streams.log.append("shown")
        return ref

    monkeypatch.setattr(samples.HiddenStatesSamples, "put", noting_put)
    engine = Engine(broker)
    manifest = engine.finish(rid, 6)
    engine.run(rid)
    assert torch.equal(transfer.get_generated(manifest)["hidden_states"], states(6))
    assert streams.log == [
        "forward pass recorded", "stream waits for it", "on the stream", "off the stream",
        "stream has ended", "shown",
    ]  # fmt: skip
    transfer.delete(manifest["handle"])
    engine.stop()


def test_other_ranks_write_nothing(engine: Engine, rid: str) -> None:
    engine.worker._is_writer = False
    engine.finish(rid, 4)
    # It tells of what was to be saved, and of nothing else: that would be freed twice.
    assert engine.step({rid, "another"}) == {rid}
    assert engine.step({"another"}) == set()


def test_a_request_that_was_never_scheduled(engine: Engine, rid: str) -> None:
    request = types.SimpleNamespace(request_id=rid, kv_transfer_params=None)
    assert engine.scheduler.request_finished(request, []) == (False, None)
    assert engine.scheduler.request_finished_all_groups(request, ()) == (False, None)
    assert engine.step({rid}) == set()


def test_what_a_manifest_must_match(engine: Engine, transfer: Any, rid: str) -> None:
    from feature_broker.speculators.samples import BadSampleError

    manifest = engine.finish(rid, 4)
    engine.run(rid)
    transfer.setup()
    with pytest.raises(BadSampleError, match="version 2"):
        transfer.get_generated({**manifest, "version": 2})
    shape = {"shape": [9, LAYERS, HIDDEN], "dtype": "torch.bfloat16"}
    with pytest.raises(BadSampleError, match=r"says torch.bfloat16 \[9, 3, 8\]"):
        transfer.get_generated({**manifest, "tensors": {"hidden_states": shape}})
    with pytest.raises(BadSampleError, match="has no tensor logits"):
        transfer.get_generated({**manifest, "tensors": {"logits": shape}})
    transfer.delete(manifest["handle"])


def test_what_never_comes(backend: Any, broker: Broker, rid: str) -> None:
    from feature_broker.speculators.samples import make_manifest

    transfer = make_transfer(backend, broker, "--featured-wait-s", "0.05")
    with pytest.raises(TimeoutError, match=rid):
        transfer.get_generated(make_manifest(rid, {}, {}))
    transfer.delete(rid)
    transfer.samples.close()


def test_get_cached(transfer: Any, broker: Broker) -> None:
    assert transfer.get_cached(12) is None
    with broker.connect() as client:
        client.store("keep").put("hs_12", {"hidden_states": states(3)})
    assert torch.equal(transfer.get_cached(12)["hidden_states"], states(3))
    transfer.delete("hs_12")
    assert transfer.get_cached(12) is None


def test_configurations_that_cannot_work(vllm: None, broker: Broker) -> None:
    from feature_broker.speculators.vllm_connector import BrokerHiddenStatesConnector as Connector

    config = vllm_config(broker)
    config.speculative_config.method = "eagle3"
    with pytest.raises(ValueError, match="extract_hidden_states"):
        Connector(config, "worker", None)
    config = vllm_config(broker)
    config.speculative_config.draft_model_config.hf_config = None
    with pytest.raises(ValueError, match="eagle_aux_hidden_state_layer_ids"):
        Connector(config, "worker", None)
    worker = Connector(vllm_config(broker, {"unknown": 1}), "worker", None)
    with pytest.raises(ValueError, match="one layer"):
        worker.register_kv_caches({"attention": None})


def test_secret(backend: Any, broker: Broker, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of more than sixteen bytes\n")
    with broker.connect() as client:
        client.create_store("sealed", policy="retain", secret=secret.read_bytes().strip(),
                            max_resident_bytes=1 << 20)  # fmt: skip
        to_store = ["--featured-store", "sealed"]
        with pytest.raises(fb.Denied):
            make_transfer(backend, broker, *to_store).setup()
        transfer = make_transfer(backend, broker, *to_store, "--featured-secret-file", str(secret))
        transfer.setup()
        transfer.samples.close()
        client.drop_store("sealed")


def _train(transfer: Any, manifest: Any, answers: Any) -> None:
    answers.put(float(transfer.get_generated(manifest)["hidden_states"].float().sum()))
    transfer.delete(manifest["handle"])
    transfer.samples.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(engine: Engine, transfer: Any, rid: str, method: str) -> None:
    """Workers of a DataLoader get the transfer of their parent, which may be connected."""
    manifest = engine.finish(rid, 6)
    engine.run(rid)
    transfer.setup()
    context: Any = multiprocessing.get_context(method)
    answers = context.Queue()
    worker = context.Process(target=_train, args=(transfer, manifest, answers))
    worker.start()
    assert answers.get(timeout=DEADLINE_S) == float(states(6).float().sum())
    worker.join(DEADLINE_S)
    assert worker.exitcode == 0 and transfer.samples.find(manifest["handle"]) is None


def test_vllm_dies_before_the_trainer_reads(
    backend: Any, vllm: None, pair: tuple[Broker, Broker], rid: str
) -> None:
    home, away = pair
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def serve() -> None:
        engine = Engine(home)
        manifest = engine.finish(rid, 12)
        engine.run(rid)
        queue.put(manifest)
        queue.close()
        queue.join_thread()
        os.kill(os.getpid(), signal.SIGKILL)

    server = context.Process(target=serve)
    server.start()
    manifest = queue.get(timeout=DEADLINE_S)
    server.join(DEADLINE_S)
    assert server.exitcode == -signal.SIGKILL
    transfer = make_transfer(backend, away)
    assert torch.equal(transfer.get_generated(manifest)["hidden_states"], states(12))
    transfer.delete(manifest["handle"])
    transfer.samples.close()
    with home.connect() as client:
        assert not client.store("keep").exists(manifest["handle"])


def test_programs_that_know_the_backend(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom hs_connectors import HiddenStatesBackend\n"
        "print(sorted(HiddenStatesBackend.registry), sys.argv[1:], __name__)\n"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-m", "feature_broker.speculators", str(program), "--flag"],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout == "['featured', 'file', 'fp8', 'mooncake'] ['--flag'] __main__\n"
