# SPDX-License-Identifier: Apache-2.0
"""What may be put: layouts, libraries, and what is refused."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest

import feature_broker as fb
from brokers import Broker
from feature_broker import _sources

torch = pytest.importorskip("torch")

# Below and above the size up to which what is not dense goes through memory of its own.
SIZES = [8, 300]


def strided_arrays(n: int) -> dict[str, np.ndarray]:
    a = np.arange(n * n * 2, dtype=np.float32).reshape(n, n, 2)
    return {
        "transposed": a.transpose(2, 1, 0),
        "fortran": np.asfortranarray(a),
        "every second": a[:, ::2],
        "backwards": a[::-1, :, ::-1],
        "broadcast": np.broadcast_to(a[0, 0], (n, n, 2)),
        "big endian": a.astype(">f4"),
        "big endian, transposed": a.astype(">f4").T,
    }


@pytest.mark.parametrize("n", SIZES)
def test_numpy_layouts(store: fb.Store, sample_id: str, n: int) -> None:
    given = strided_arrays(n)
    ref = store.put(sample_id, {**given, "dense": np.arange(n * n)})
    for name, got in store.get(ref).items():
        want = given.get(name, np.arange(n * n))
        assert np.array_equal(got, want) and got.flags.c_contiguous and got.dtype.isnative
        assert got.shape == want.shape
    store.abort(ref)


@pytest.mark.parametrize("n", SIZES)
def test_torch_layouts(store: fb.Store, sample_id: str, n: int) -> None:
    a = torch.arange(n * n * 2, dtype=torch.float32).reshape(n, n, 2)
    c = torch.complex(a[..., 0], a[..., 1])
    given = {
        "transposed": a.permute(2, 1, 0),
        "every second": a[:, ::2],
        "expanded": a[0, 0].expand(n, n, 2),
        "grad": a.clone().requires_grad_(),
        "grad, transposed": a.clone().requires_grad_().permute(1, 0, 2),
        "conj": c.conj(),
        "neg": c.conj().imag,
        "parameter": torch.nn.Parameter(a),
        "channels last": a.reshape(1, 2, n, n).to(memory_format=torch.channels_last),
    }
    ref = store.put(sample_id, given)
    got = store.get(ref, framework="torch")
    for name, want in given.items():
        assert torch.equal(got[name], want.detach()), name
        assert got[name].is_contiguous() and not got[name].requires_grad
    store.abort(ref)


def test_large_strided_input_is_copied_into_the_arena_once(
    store: fb.Store, sample_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where numpy copies to is shared memory of the broker."""
    where: list[bool] = []
    true_copyto = np.copyto

    def copyto(to: np.ndarray, source: np.ndarray) -> None:
        where.append(is_in_arena(to.ctypes.data))
        true_copyto(to, source)

    monkeypatch.setattr(np, "copyto", copyto)
    a = np.random.default_rng(1).random((500, 500))
    ref = store.put(sample_id, {"x": a.T})
    assert where == [True]
    assert np.array_equal(store.get(ref)["x"], a.T)
    store.abort(ref)


def is_in_arena(address: int) -> bool:
    """Whether an address of this process lies in a memfd, as arenas do."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, *_, name = line.split(maxsplit=5)
            first, last = (int(end, 16) for end in span.split("-"))
            if first <= address < last:
                return "memfd" in name
    return False


def test_views_are_the_arena_itself(store: fb.Store, sample_id: str) -> None:
    """Zero-copy, proven by address: each tensor lies in the shared memory, and two views of a
    sample at the same place."""
    ref = store.put(sample_id, {"x": np.arange(5000)})
    with store.get(ref, copy=False) as one, store.get(ref, copy=False, framework="torch") as two:
        three = store.get(ref, copy=False, framework="raw")
        addresses = {one["x"].ctypes.data, two["x"].data_ptr(), three["x"].address}
        assert len(addresses) == 1 and is_in_arena(addresses.pop())
        assert np.from_dlpack(three["x"]).ctypes.data == three["x"].address
        assert torch.from_dlpack(three["x"]).data_ptr() == three["x"].address
        three.release()
    assert not is_in_arena(store.get(ref)["x"].ctypes.data)
    with store.reserve(sample_id, {"x": ("I64", (5000,))}) as room:
        assert is_in_arena(room["x"].ctypes.data)
        address = room["x"].ctypes.data
    with store.get(room.ref, copy=False) as view:
        assert view["x"].ctypes.data == address
    store.abort(room.ref)


def test_plain_buffers(store: fb.Store, sample_id: str) -> None:
    grid = memoryview(bytes(range(24))).cast("B", (4, 6))
    given: dict[str, Any] = {
        "bytes": b"hello",
        "bytearray": bytearray(b"hello"),
        "array": array.array("d", [1, 2, 3]),
        "long": array.array("l", [1, 2, 3]),
        "memoryview": memoryview(b"hello").cast("c"),
        "grid": grid,
        "strided": memoryview(b"hello")[::2],
        "empty": b"",
        "bool": memoryview(b"\0\1").cast("?"),
    }
    got = store.get(store.put(sample_id, given))
    assert got["bytes"].tobytes() == got["bytearray"].tobytes() == b"hello"
    assert got["bytes"].dtype == np.uint8 and got["array"].dtype == np.float64
    assert got["long"].dtype == np.int64 and got["bool"].dtype == np.bool_
    assert got["grid"].shape == (4, 6) and got["strided"].tobytes() == b"hlo"
    assert got["empty"].shape == (0,)
    store.abort(sample_id)


class OnlyDlpack:
    """An object of a library that this package does not know."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __dlpack__(self, **how: Any) -> Any:
        return self._of.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self._of.__dlpack_device__()


@pytest.mark.parametrize("n", SIZES)
def test_dlpack_of_others(store: fb.Store, sample_id: str, n: int) -> None:
    a = torch.arange(n * n * 2, dtype=torch.bfloat16).reshape(n, n, 2)
    given = {
        "dense": a,
        "transposed": a.permute(2, 0, 1),
        "part": a[1:, ::3],
        "expanded": a[0, 0].expand(n, n, 2),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
    }
    ref = store.put(sample_id, {name: OnlyDlpack(value) for name, value in given.items()})
    for name, got in store.get(ref, framework="torch").items():
        assert torch.equal(got, given[name]), name
    store.abort(ref)


def test_what_cannot_be_put(store: fb.Store, sample_id: str) -> None:
    refused: list[Any] = [
        [1, 2, 3],
        3.0,
        "text",
        None,
        object(),
        np.array([object()]),
        np.zeros(3, dtype=[("a", "i4")]),
        np.array(["text"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        torch.zeros(3, 3).to_sparse(),
        torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.qint8),
        torch.zeros(3, device="meta"),
        np.zeros((1,) * 9),
    ]
    for value in refused:
        with pytest.raises(ValueError) as caught:
            store.put(sample_id, {"fine": np.zeros(1), "wrong": value})
        assert isinstance(caught.value, fb.Invalid)
        if not isinstance(value, np.ndarray) or value.ndim < 9:
            assert "wrong" in caught.value.sentence
    for tensors in (
        {},
        {1: np.zeros(1)},
        {"a\0b": np.zeros(1)},
        {"": np.zeros(1)},
        [np.zeros(1)],
        None,
    ):
        with pytest.raises(fb.Invalid):
            store.put(sample_id, tensors)  # type: ignore[arg-type]
    with pytest.raises(fb.Invalid, match="at most 64"):
        store.put(sample_id, {str(i): b"" for i in range(65)})
    for wrong in ("", "x" * 129, "a\0b", "\ud800", 7, None):
        with pytest.raises(fb.Invalid):
            store.put(wrong, {"x": b"x"})  # type: ignore[arg-type]
        with pytest.raises(fb.Invalid):
            store.get(wrong)  # type: ignore[arg-type, call-overload]
    with pytest.raises(fb.Invalid):
        store.put(sample_id, {"x": b"x"}, metadata=bytes(9 << 10))
    for timeout_s in (-1, "1", float("nan")):
        with pytest.raises(fb.Invalid, match="timeout_s"):
            store.put(sample_id, {"x": b"x"}, timeout_s=timeout_s)  # type: ignore[arg-type]
    with pytest.raises(fb.Invalid):
        store.reserve(sample_id, {"x": "F32"})  # type: ignore[dict-item]
    with pytest.raises(fb.Invalid):
        store.reserve(sample_id, {"x": ("F32", (-1,))})
    assert not store.exists(sample_id)


def test_no_call_gives_a_bare_error_of_cffi(
    client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    ref = store.put(sample_id, {"x": b"x"})
    wrong: list[Any] = [
        lambda: store.put(sample_id, {"x": b"x"}, metadata="text"),  # type: ignore[arg-type]
        lambda: store.put_many([(sample_id, {"x": b"x"})], metadata=[b"a", b"b"]),
        lambda: store.get(ref, 5),  # type: ignore[call-overload]
        lambda: store.get(ref, [5]),  # type: ignore[list-item]
        lambda: store.get(ref, copy=False, names=5),  # type: ignore[call-overload]
        lambda: store.get(ref, wait_s="1"),  # type: ignore[call-overload]
        lambda: store.ack(5),  # type: ignore[arg-type]
        lambda: store.ack([5]),  # type: ignore[list-item]
        lambda: store.exists(None),  # type: ignore[arg-type]
        lambda: store.list(5),  # type: ignore[arg-type]
        lambda: store.gc("x"),  # type: ignore[arg-type]
        lambda: client.create_store("x", readers="many"),  # type: ignore[arg-type]
        lambda: client.create_store("x", max_resident_bytes=-1),
        lambda: client.create_store(5),  # type: ignore[arg-type]
        lambda: client.store("run", secret=5),  # type: ignore[arg-type]
        lambda: client.drain("x"),  # type: ignore[arg-type]
        lambda: fb.connect(5, timeout_s=0.05),  # type: ignore[arg-type]
        lambda: fb.connect(timeout_s=None, socket_path="a\0b"),  # type: ignore[arg-type]
        lambda: fb.Ref(5),
        lambda: fb.Ref.from_bytes("text"),  # type: ignore[arg-type]
        lambda: fb.Ref.from_bytes(b"nonsense"),
        lambda: fb.Ref.from_uri("feature://run"),
        lambda: fb.Tensor("F32", 5, b""),  # type: ignore[arg-type]
        lambda: fb.Tensor("F32", (-1,), b""),
        lambda: fb.Tensor("F32", (1,), 5),
    ]
    for call in wrong:
        with pytest.raises(fb.FeatureError):
            call()
    store.ack(ref)


def test_many_tensors_and_names(store: fb.Store, sample_id: str) -> None:
    given = {f"{i}/schön.{'x' * (i % 7)}": np.full(i, i) for i in range(64)}
    got = store.get(store.put(sample_id, given))
    assert list(got) == list(given)
    assert all(np.array_equal(got[name], given[name]) for name in given)
    store.abort(sample_id)


def test_a_mapping_that_is_no_dict(store: fb.Store, sample_id: str) -> None:
    ref = store.put(sample_id, {"x": np.arange(3)})
    with store.get(ref, copy=False) as view:  # a view is a mapping, and its tensors can be put
        again = store.put(sample_id + "-2", view)
    assert np.array_equal(store.get(again)["x"], np.arange(3))


def test_readers_are_found_by_type() -> None:
    assert _sources.describe({"x": np.float32(3)})[1][0].shape == ()
    assert _sources.describe({"x": np.zeros(2).view(np.matrix)})[1][0].shape == (1, 2)


def test_metadata_are_bytes_whatever_holds_them(store: fb.Store, sample_id: str) -> None:
    numbers = array.array("i", [1, 2, 3])
    for given in (numbers.tobytes(), bytearray(numbers), memoryview(numbers)):
        assert store.put(sample_id, {"x": b"x"}, metadata=given).metadata == numbers.tobytes()
        with store.reserve(sample_id, {"x": ("U8", (1,))}, metadata=given) as room:
            room["x"][:] = 0
        assert room.ref.metadata == numbers.tobytes()
        pairs = [(sample_id, {"x": b"x"}), (sample_id + "-2", {"x": b"x"})]
        for ref in store.put_many(pairs, metadata=given):
            assert ref.metadata == numbers.tobytes()
    store.abort([sample_id, sample_id + "-2"])


def test_what_a_user_may_get_wrong_is_told(
    broker: Broker, client: fb.Client, store: fb.Store, sample_id: str
) -> None:
    ref = store.put(sample_id, {"x": b"x"})
    wrong: list[Any] = [
        lambda: store.get_many(sample_id),
        lambda: store.get_many(ref),  # type: ignore[arg-type]
        lambda: store.get_many(None),  # type: ignore[arg-type]
        lambda: store.get_many([ref], window=2.5),  # type: ignore[arg-type]
        lambda: store.get_many([ref], window="2"),  # type: ignore[arg-type]
        lambda: store.put_many({sample_id: {"x": b"x"}}),  # type: ignore[arg-type]
        lambda: store.put_many([(sample_id, {"x": b"x"}, b"")]),  # type: ignore[list-item]
        lambda: store.put_many(None),  # type: ignore[arg-type]
        lambda: store.reserve(sample_id, {"x": ("F32", (1.5,))}),  # type: ignore[arg-type]
        lambda: fb.Tensor("U8", "12", b"ab"),  # type: ignore[arg-type]
        lambda: store.get(ref, framework=5),  # type: ignore[call-overload]
        lambda: fb.connect(broker.socket_path, log=5),  # type: ignore[arg-type]
        lambda: fb.set_receive_pool("5"),  # type: ignore[arg-type]
        lambda: client.create_store("x", max_resident_bytes=1 << 20, secret=b"short"),
        lambda: client.create_store("x", max_resident_bytes=1 << 20, secret=b""),
        lambda: client.create_store("x", max_resident_bytes=1 << 20, secret=bytes(4097)),
    ]
    for call in wrong:
        with pytest.raises(fb.Invalid):
            call()
    fb.connect(broker.socket_path.encode()).close()  # type: ignore[arg-type]
    store.ack(ref)


def test_a_nested_tensor_is_refused(store: fb.Store, sample_id: str) -> None:
    make = getattr(torch, "nested_tensor", None) or torch.nested.nested_tensor
    with pytest.raises(fb.Invalid, match="nested"):
        store.put(sample_id, {"x": make([torch.ones(2), torch.ones(3)])})
