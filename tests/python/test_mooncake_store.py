# SPDX-License-Identifier: Apache-2.0
"""The mooncake drop-in: every function, its codes, and what programs written for Mooncake rely on;
with real brokers, the producer and the consumer on one node and on two."""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import itertools
import os
import threading
from typing import Any, Callable, Iterator

import pytest

import mooncake_world as world
from brokers import DEADLINE_S, Broker, start_pair, temporary_folder, wait_until
from mooncake_world import Memory, connect

import feature_broker as fb
from feature_broker._feature import ffi, lib
from mooncake import _keys
from mooncake.store import MooncakeDistributedStore, ReplicateConfig

Ends = tuple[MooncakeDistributedStore, MooncakeDistributedStore]

KIB, MIB = 1 << 10, 1 << 20
ABSENT, BAD, FULL, RETRY, DAMAGED = -704, -600, -200, -800, -801
SIZES = [0, 1, 4 * KIB, 64 * KIB, 64 * KIB + 1, 5 * MIB]

_numbers = itertools.count()


@pytest.fixture(params=["one node", "two nodes"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Who puts and who gets."""
    if request.param == "one node":
        home = away = request.getfixturevalue("broker")
    else:
        home, away = request.getfixturevalue("pair")
    stores = connect(home.socket_path), connect(away.socket_path)
    yield stores
    for broker in {home, away}:
        with broker.connect() as client:
            wait_until(lambda: client.health().leases == 0, "no leases are left")
    for store in stores:
        assert store.close() == 0


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key in SpecForge's form that no other test uses."""
    return f"run0/{request.node.name}-{next(_numbers)}/g1/hidden_state"


def test_find_spec() -> None:
    assert importlib.util.find_spec("mooncake.store") is not None


@pytest.mark.parametrize("size", SIZES)
def test_bytes_come_as_they_went(ends: Ends, key: str, size: int) -> None:
    producer, consumer = ends
    content = os.urandom(size)
    source, target = Memory(content), Memory(size + 100)
    assert producer.put_from(key, source.address, size, ReplicateConfig()) == 0
    assert consumer.is_exist(key) == 1
    assert consumer.get_size(key) == size
    assert consumer.get_into(key, target.address, target.size) == size
    assert target.bytes == content + bytes(100)
    assert consumer.get(key) == content
    assert consumer.remove(key) == 0


def test_put_of_every_kind_of_buffer(ends: Ends, key: str) -> None:
    producer, consumer = ends
    for number, value in enumerate(
        (b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aXbXc")[::2])
    ):
        assert producer.put(f"{key}{number}", value) == 0
        assert consumer.get(f"{key}{number}") == b"abc"


def test_absent(ends: Ends, key: str) -> None:
    _, consumer = ends
    target = Memory(8)
    assert consumer.get(key) == b""
    assert consumer.get_into(key, target.address, 8) == ABSENT
    assert consumer.get_tensor(key) is None
    assert consumer.get_buffer(key) is None
    assert consumer.is_exist(key) == 0
    assert consumer.get_size(key) == ABSENT
    assert consumer.remove(key) == ABSENT
    assert target.bytes == bytes(8)


def test_a_put_on_a_live_key_is_success_and_the_old_bytes_stay(ends: Ends, key: str) -> None:
    producer, consumer = ends
    assert producer.put(key, b"old") == 0
    for store in (producer, consumer):
        assert store.put(key, b"newer") == 0
        assert store.batch_put_from([key, key], [Memory(b"x").address] * 2, [1, 1]) == [0, 0]
        assert store.put_tensor(key, b"other") == 0
    assert consumer.get(key) == producer.get(key) == b"old"


def test_a_large_put_on_a_live_key_leaves_the_old_bytes(ends: Ends, key: str) -> None:
    producer, consumer = ends
    old, new = bytes(300_000), bytes([1]) * 2_000_000
    assert producer.put(key, old) == 0
    for store in (producer, consumer):
        assert store.put(key, new) == 0
        assert store.get_size(key) == len(old)
    assert consumer.get(key) == producer.get(key) == old


def test_of_one_key_twice_in_a_batch_the_first_counts(ends: Ends, key: str) -> None:
    producer, consumer = ends
    one, two = Memory(b"one"), Memory(b"two")
    assert producer.batch_put_from([key, key], [one.address, two.address], [3, 3]) == [0, 0]
    assert consumer.get(key) == b"one"


def test_threads_that_put_one_key_keep_the_first(broker: Broker, key: str) -> None:
    store = connect(broker.socket_path)
    seen = []
    start = threading.Barrier(8)

    def put(number: int) -> None:
        start.wait()
        assert store.put(key, bytes([number])) == 0
        seen.append(store.get(key))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    store.close()


def test_remove_is_seen_at_once_everywhere(ends: Ends, key: str) -> None:
    producer, consumer = ends
    for remover, force in ((producer, False), (consumer, True)):
        for _ in range(20):
            assert producer.put(key, b"bytes") == 0
            assert consumer.get(key) == b"bytes"  # where a copy may be kept
            assert consumer.is_exist(key) == 1
            assert remover.remove(key, force=force) == 0
            assert producer.is_exist(key) == consumer.is_exist(key) == 0
            assert consumer.get(key) == producer.get(key) == b""
            assert remover.remove(key) == ABSENT


def test_remove_works_while_others_read(ends: Ends, key: str) -> None:
    producer, consumer = ends
    producer.put(key, b"bytes")
    code, lease = consumer._lease(key)
    assert code == 0
    assert producer.remove(key) == 0
    assert consumer.is_exist(key) == 0
    assert bytes(ffi.buffer(lease.tensors[0].data, 5)) == b"bytes"
    lib.binding_release(lease, 0)


def test_batches(ends: Ends, key: str) -> None:
    producer, consumer = ends
    keys = [f"{key}{number}" for number in range(6)]
    sources = [Memory(os.urandom(size)) for size in SIZES]
    targets = [Memory(source.size) for source in sources]
    addresses, sizes = [m.address for m in sources], [m.size for m in sources]
    assert producer.batch_put_from(keys, addresses, sizes, config=ReplicateConfig()) == [0] * 6
    assert consumer.batch_is_exist([*keys, key]) == [1] * 6 + [0]
    got = consumer.batch_get_into([*keys, key], [*(m.address for m in targets), 8], [*sizes, 8])
    assert got == [*sizes, ABSENT]
    assert [m.bytes for m in targets] == [m.bytes for m in sources]
    buffers = consumer.batch_get_buffer([*keys, key])
    assert buffers[-1] is None
    assert [bytes(b) for b in buffers if b] == [m.bytes for m in sources if m.size]
    assert [b.size() for b in buffers if b is not None] == sizes
    assert consumer.get_batch(keys) == [m.bytes for m in sources]
    assert consumer.batch_remove([*keys, key], force=True) == [0] * 6 + [ABSENT]
    assert producer.batch_is_exist(keys) == [0] * 6


def test_a_batch_tells_which_of_it_was_wrong(ends: Ends, key: str) -> None:
    producer, consumer = ends
    source = Memory(b"12345")
    keys = [key, "", "k" * 1025, key + "b"]
    assert producer.batch_put_from(keys, [source.address] * 4, [5, 5, 5, -1]) == [0, BAD, BAD, BAD]
    assert producer.batch_put_from([key], [], []) == [BAD]
    assert consumer.batch_get_into([key, "", key], [source.address] * 3, [5, 5, 4]) == [5, BAD, BAD]
    assert consumer.batch_get_into([key], [], []) == [BAD]
    assert producer.batch_put_from([], [], []) == consumer.batch_get_into([], [], []) == []


def test_room_that_is_too_small_is_refused_and_not_touched(ends: Ends, key: str) -> None:
    producer, consumer = ends
    producer.put(key, b"12345")
    target = Memory(5)
    assert consumer.get_into(key, target.address, 4) == BAD
    assert consumer.get_into(key, target.address, -1) == BAD
    assert consumer.get_into(key, 0, 5) == BAD
    assert target.bytes == bytes(5)
    assert producer.put_from(key + "b", 0, 5) == BAD


LONG = [
    "k" * 1024,
    "run0/" + "sample" * 30 + "/g1/hidden_state",
    "schlüssel-" * 12,
    "line\nbreak",
    "zero\0byte",
    "\udcff-not-utf8",
    "feature://x/y?generation=1&home=a",
    "looks-shortened~" + "0" * 32,
]


@pytest.mark.parametrize("name", LONG)
def test_every_key_of_up_to_1024_bytes(ends: Ends, key: str, name: Any) -> None:
    producer, consumer = ends
    assert producer.put(name, key.encode()) == 0
    assert producer.put(name, b"again") == 0
    assert consumer.get(name) == key.encode()
    assert consumer.is_exist(name) == 1
    assert consumer.get_size(name) == len(key)
    assert consumer.remove(name) == 0
    assert consumer.is_exist(name) == 0


@pytest.mark.parametrize("name", ["", "k" * 1025, "ü" * 513, 7, None, b"bytes"])
def test_what_is_no_key(ends: Ends, name: Any) -> None:
    producer, _ = ends
    assert producer.put(name, b"x") == BAD
    assert producer.get(name) == b""
    assert producer.is_exist(name) == BAD
    assert producer.remove(name) == BAD


def test_two_keys_of_one_id_never_become_each_other(
    ends: Ends, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, consumer = ends
    monkeypatch.setattr(_keys, "fingerprint", lambda whole: b"0" * 32)
    one, two = (f"{key}{'x' * 200}{end}" for end in "ab")
    made = _keys.make(one), _keys.make(two)
    assert made[0] and made[1] and made[0].sample_id == made[1].sample_id
    assert producer.put(one, b"one") == 0
    assert producer.put(two, b"two") == BAD
    assert consumer.get(one) == b"one"
    assert consumer.get(two) == b"" and consumer.is_exist(two) == 0 and consumer.get_size(two) == ABSENT
    assert consumer.get_into(two, Memory(8).address, 8) == ABSENT
    assert consumer.remove(two) == ABSENT
    assert consumer.get(one) == b"one"


def test_probes_take_no_lease(broker: Broker, key: str) -> None:
    store = connect(broker.socket_path)
    store.put(key, b"x")
    with broker.connect() as client:
        before = client.health().leases
        for _ in range(10):
            assert store.is_exist(key) == 1 and store.get_size(key) == 1
            assert client.health().leases == before
    store.close()


def test_registering_is_never_a_mistake(ends: Ends) -> None:
    producer, _ = ends
    memory = Memory(4096)
    for address, size in ((memory.address, 4096), (memory.address, 4096), (memory.address + 8, 10), (0, 0)):
        assert producer.register_buffer(address, size) == 0
    for _ in range(2):
        assert producer.unregister_buffer(memory.address) == 0
    assert producer.unregister_buffer(12345) == 0


def test_remove_by_regex_and_remove_all(ends: Ends, key: str) -> None:
    producer, consumer = ends
    producer.remove_all(force=True)
    names = [f"one/{key}", f"two/{key}", "two/" + "long" * 60]
    for store, name in zip((producer, consumer, producer), names):
        assert store.put(name, b"x") == 0
    assert consumer.remove_by_regex("^two/", force=True) == 2
    assert producer.batch_is_exist(names) == [1, 0, 0]
    assert consumer.remove_by_regex("(") == BAD
    assert producer.remove_all() == 1
    assert consumer.remove_all() == 0


def test_arguments_are_named_as_in_mooncake(broker: Broker) -> None:
    expected = {
        "setup": "local_hostname metadata_server global_segment_size local_buffer_size protocol "
        "rdma_devices master_server_addr",
        "put": "key value config",
        "put_from": "key buffer_ptr size config",
        "batch_put_from": "keys buffer_ptrs sizes config",
        "get_into": "key buffer_ptr size",
        "batch_get_into": "keys buffer_ptrs sizes",
        "put_tensor": "key tensor",
        "get_tensor": "key",
        "register_buffer": "buffer_ptr size",
        "unregister_buffer": "buffer_ptr",
        "remove": "key force",
        "batch_remove": "keys force",
        "remove_by_regex": "regex_pattern force",
        "remove_all": "force",
        "batch_is_exist": "keys",
        "allocate_and_mount_segment": "size protocol location",
    }
    for name, arguments in expected.items():
        parameters = list(inspect.signature(getattr(MooncakeDistributedStore, name)).parameters)[1:]
        assert parameters[: len(arguments.split())] == arguments.split(), name
    assert "force" in (MooncakeDistributedStore.batch_remove.__doc__ or "")


def test_setup_by_keyword_and_by_position(broker: Broker) -> None:
    with world.environ(FEATURED_SOCKET=broker.socket_path):
        by_name, by_place = MooncakeDistributedStore(), MooncakeDistributedStore()
        assert by_name.setup(
            local_hostname="127.0.0.1", metadata_server="http://127.0.0.1:1/metadata",
            global_segment_size=1 << 30, local_buffer_size=1 << 30, protocol="rdma",
            rdma_devices="mlx5_0", master_server_addr="127.0.0.1:1",
        ) == 0  # fmt: skip
        assert by_place.setup("h", "P2PHANDSHAKE", 0, 0, "tcp", "", "127.0.0.1:1") == 0
        assert by_place.setup("h", "P2PHANDSHAKE", 0, 0, "tcp", "", "127.0.0.1:1") == 0
        assert MooncakeDistributedStore().setup("h", "P2PHANDSHAKE", -1, 0) == BAD
    assert by_name.health_check() == 0 and by_name.get_hostname() == broker.name
    segment = by_name.allocate_and_mount_segment(1 << 20)
    assert segment == {"ret": 0, "segment_ids": [broker.name], "allocated_size": 1 << 20}
    by_name.close(), by_place.close()


def test_replicate_config_takes_what_programs_set() -> None:
    config = ReplicateConfig()
    assert (config.replica_num, config.with_hard_pin, config.with_soft_pin) == (1, False, False)
    config.replica_num, config.with_hard_pin, config.with_soft_pin = 2, True, True
    assert "with_hard_pin=True" in repr(config)


@pytest.mark.parametrize("ended", [False, True], ids=["before setup", "after close"])
def test_a_store_that_is_not_connected(broker: Broker, ended: bool) -> None:
    store = connect(broker.socket_path) if ended else MooncakeDistributedStore()
    if ended:
        assert store.close() == store.close() == 0
    memory = Memory(8)
    assert store.put("k", b"x") == BAD
    assert store.put_from("k", memory.address, 8) == BAD
    assert store.batch_put_from(["k", "l"], [memory.address] * 2, [8, 8]) == [BAD, BAD]
    assert store.put_tensor("k", b"x") == BAD
    assert store.get("k") == b"" and store.get_batch(["k"]) == [b""]
    assert store.get_into("k", memory.address, 8) == BAD
    assert store.batch_get_into(["k"], [memory.address], [8]) == [BAD]
    assert store.get_tensor("k") is None and store.get_buffer("k") is None
    assert store.batch_get_buffer(["k"]) == [None]
    assert store.is_exist("k") == BAD and store.batch_is_exist(["k"]) == [BAD]
    assert store.get_size("k") == BAD
    assert store.remove("k") == BAD and store.batch_remove(["k"]) == [BAD]
    assert store.remove_by_regex("k") == BAD and store.remove_all() == BAD
    assert store.health_check() == BAD
    assert store.register_buffer(memory.address, 8) == store.unregister_buffer(memory.address) == BAD
    assert store.allocate_and_mount_segment(8)["ret"] == BAD


def test_a_store_can_be_set_up_again(broker: Broker, key: str) -> None:
    store = connect(broker.socket_path)
    store.put(key, b"x")
    store.close()
    with world.environ(FEATURED_SOCKET=broker.socket_path):
        assert store.setup("h", "P2PHANDSHAKE", 0, 0) == 0
    assert store.get(key) == b"x"
    store.close()


# ---- tensors ----


def test_tensors(ends: Ends, key: str) -> None:
    torch = pytest.importorskip("torch")
    producer, consumer = ends
    tensors = [
        torch.randn(3, 4),
        torch.randn(4, 6).t(),
        torch.arange(7, dtype=torch.int64),
        torch.randn(5, dtype=torch.float32).to(torch.bfloat16),
        torch.tensor(True),
        torch.empty(0, 8),
    ]
    for number, tensor in enumerate(tensors):
        assert producer.put_tensor(f"{key}{number}", tensor) == 0
        got = consumer.get_tensor(f"{key}{number}")
        assert got.dtype == tensor.dtype and got.shape == tensor.shape and torch.equal(got, tensor)
        got.fill_(0)
        assert torch.equal(consumer.get_tensor(f"{key}{number}"), tensor)
    assert producer.put_tensor(key, "no tensor") == BAD
    assert producer.put_tensor("k" * 500 + key, tensors[0]) == 0
    assert torch.equal(consumer.get_tensor("k" * 500 + key), tensors[0])


def test_get_tensor_without_torch(broker: Broker, key: str) -> None:
    store = connect(broker.socket_path)
    store.put(key, b"x")
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom mooncake.store import MooncakeDistributedStore\n"
        "s = MooncakeDistributedStore()\nassert s.setup('h', 'P2PHANDSHAKE', 0, 0) == 0\n"
        "assert s.get_tensor(sys.argv[1]) is None and s.get(sys.argv[1]) == b'x'\n"
        "assert s._connection.client.health().leases == 0\n"
    )
    done = world.run_child(code, key, FEATURED_SOCKET=broker.socket_path)
    assert done.returncode == 0, done.stderr
    assert "torch cannot be imported" in done.stderr
    store.close()


def test_a_tensors_bytes(ends: Ends, key: str) -> None:
    torch = pytest.importorskip("torch")
    producer, consumer = ends
    tensor = torch.randn(3, 4)
    assert producer.put_from(key, tensor.data_ptr(), 48) == 0
    assert consumer.get_tensor(key).view(torch.float32).tolist() == tensor.flatten().tolist()
    assert producer.put_tensor(key + "b", tensor) == 0
    assert consumer.get_size(key + "b") == 48
    assert consumer.get(key + "b") == tensor.numpy().tobytes()


def test_the_way_torchspec_goes(ends: Ends, key: str) -> None:
    """Tensors one behind the other in a staging buffer; the reader makes tensors over the handles."""
    torch = pytest.importorskip("torch")
    producer, consumer = ends
    tensors = {
        "_hs": torch.randn(3, 16).to(torch.bfloat16),
        "_ids": torch.arange(5),
        "_lhs": torch.randn(2, 16).to(torch.bfloat16),
    }
    staging = torch.empty(4096, dtype=torch.uint8)
    assert producer.register_buffer(staging.data_ptr(), 4096) == 0
    keys, addresses, sizes, offset = [], [], [], 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        staging[offset : offset + size].copy_(tensor.view(torch.uint8).view(-1))
        keys.append(key + name)
        addresses.append(staging.data_ptr() + offset)
        sizes.append(size)
        offset += size
    assert consumer.batch_get_buffer(keys) == [None] * 3
    assert producer.batch_put_from(keys, addresses, sizes) == [0] * 3
    handles = consumer.batch_get_buffer(keys)
    for handle, tensor in zip(handles, tensors.values()):
        assert handle is not None
        raw = (ctypes.c_byte * handle.size()).from_address(handle.ptr())
        got = torch.frombuffer(raw, dtype=tensor.dtype, count=tensor.numel()).reshape(tensor.shape)
        assert torch.equal(got, tensor)
        got += 1  # the memory is the reader's own
    assert consumer.get(keys[1]) == tensors["_ids"].numpy().tobytes()
    assert consumer.batch_remove(keys, force=True) == [0] * 3
    assert consumer.batch_remove(keys, force=True) == [ABSENT] * 3


# ---- when something goes wrong ----


def code_of(call: Callable[[], int]) -> int:
    """What the call says in the end. -800 says "try again": so does a program, and a machine that has
    other work may have it try more than once."""
    codes: list[int] = []

    def settled() -> bool:
        codes.append(call())
        return codes[-1] != RETRY

    wait_until(settled, "an answer that is final")
    return codes[-1]


@pytest.fixture
def small() -> Iterator[tuple[Broker, Broker]]:
    """Two nodes with 1 MiB each, that a test may spoil."""
    for folder in temporary_folder():
        pair = start_pair(folder, world.SMALL_STORE)
        yield pair
        for broker in pair:
            broker.stop()


def test_full_waits_and_says_so(
    small: tuple[Broker, Broker], key: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = connect(small[0].socket_path, put_wait_s=0.3)
    memory = Memory(600 * KIB)
    assert store.put_from(key, memory.address, memory.size) == 0
    assert code_of(lambda: store.put_from(key + "b", memory.address, memory.size)) == FULL
    assert "mooncake" in caplog.text and "full" in caplog.text
    batch = [key + "b"], [memory.address], [memory.size]
    assert code_of(lambda: store.batch_put_from(*batch)[0]) == FULL
    assert code_of(lambda: store.put_tensor(key + "b", memory.bytes)) == FULL
    assert store.remove(key) == 0
    assert store.put_from(key + "b", memory.address, memory.size) == 0
    assert store.put_from(key + "c", Memory(2 * MIB).address, 2 * MIB) == BAD, "it can never fit"
    store.close()


def test_a_put_that_waits_goes_on_when_there_is_room(
    small: tuple[Broker, Broker], key: str
) -> None:
    store = connect(small[0].socket_path, put_wait_s=DEADLINE_S)
    memory = Memory(600 * KIB)
    assert store.put_from(key, memory.address, memory.size) == 0
    codes = []
    thread = threading.Thread(
        target=lambda: codes.append(store.put_from(key + "b", memory.address, memory.size))
    )
    thread.start()
    waiting = '"put_waiters":1'
    wait_until(lambda: waiting in small[0].ctl("stores", "--json"), "the put waits")
    assert not codes
    assert store.remove(key) == 0, "the GIL is free while the other waits"
    thread.join()
    assert codes == [0]
    store.close()


def test_damaged_bytes_are_never_given(small: tuple[Broker, Broker], key: str) -> None:
    producer, consumer = connect(small[0].socket_path), connect(small[1].socket_path)
    with small[0].connect() as client:
        store = client.store("mooncake")
        out = ffi.new("struct feature_reservation **")
        numbers = (int(lib.FEATURE_DTYPE_U8), 0, 8, 1, 8)
        raw = store._open().raw
        sample_id = key.encode()
        assert lib.binding_reserve(raw, sample_id, b"value", numbers, 1, ffi.NULL, 0, 1000, out) == 0
        data = lib.feature_reservation_data(out[0], 0)
        ffi.memmove(data, b"12345678", 8)
        assert lib.feature_commit(out[0], ffi.NULL) == 0
        ffi.memmove(data, b"1234567X", 8)  # memory that has gone bad
        target = Memory(8)
        assert consumer.get_into(key, target.address, 8) == DAMAGED
        assert consumer.batch_get_into([key], [target.address], [8]) == [DAMAGED]
        assert consumer.get(key) == b""
        assert target.bytes == bytes(8)
    producer.close(), consumer.close()


def test_many_objects_pass_through_a_small_buffer(small: tuple[Broker, Broker], key: str) -> None:
    """1 MiB for objects, 1 MiB for copies on the other node: 20 times as much goes through."""
    producer, consumer = connect(small[0].socket_path), connect(small[1].socket_path)
    target = Memory(300 * KIB)
    for number in range(60):
        content = os.urandom(300 * KIB)
        assert producer.put_from(f"{key}{number}", Memory(content).address, len(content)) == 0
        assert consumer.get_into(f"{key}{number}", target.address, target.size) == target.size
        assert target.bytes == content
        assert consumer.remove(f"{key}{number}", force=True) == 0
    producer.close(), consumer.close()


def test_the_producers_death_costs_nothing(ends: Ends, key: str) -> None:
    producer, consumer = ends
    assert producer._connection is not None
    socket_path = str(producer._connection.client.socket_path)
    code = (
        "import os, sys\nfrom mooncake.store import MooncakeDistributedStore\n"
        "s = MooncakeDistributedStore()\nassert s.setup('h', 'P2PHANDSHAKE', 0, 0) == 0\n"
        "assert s.put(sys.argv[1], b'x' * 100_000) == 0\nos.kill(os.getpid(), 9)\n"
    )
    died = world.run_child(code, key, FEATURED_SOCKET=socket_path)
    assert died.returncode == -9, died.stderr
    assert consumer.is_exist(key) == 1
    assert consumer.get(key) == b"x" * 100_000
    assert consumer.remove(key) == 0


def test_what_was_lost_with_its_node_is_absent(small: tuple[Broker, Broker], key: str) -> None:
    producer, consumer = connect(small[0].socket_path), connect(small[1].socket_path)
    assert producer.put(key, b"x" * 1000) == 0
    small[0].kill()
    small[0].start()
    wait_until(lambda: '"up"' in small[1].ctl("nodes", "--json"), "the brokers see each other")
    assert code_of(lambda: consumer.get_into(key, Memory(1000).address, 1000)) == ABSENT
    assert code_of(lambda: consumer.is_exist(key)) == 0
    producer.close(), consumer.close()


def test_a_broker_that_is_away_is_worth_a_retry(small: tuple[Broker, Broker], key: str) -> None:
    store = connect(small[0].socket_path, put_wait_s=0.5)
    assert store.put(key, b"x") == 0
    small[0].kill()
    assert store.put(key + "b", b"x") == -800
    assert store.health_check() == -800
    small[0].start()
    wait_until(lambda: store.put(key + "b", b"x") == 0, "the store connects again")
    store.close()


def test_a_forked_child_is_refused_and_harms_nothing(broker: Broker, key: str) -> None:
    store = connect(broker.socket_path)
    store.put(key, b"x")
    child = os.fork()
    if not child:
        os._exit(0 if store.get(key) == b"" and store.put(key + "b", b"x") == BAD else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.get(key) == b"x"
    store.close()
