# SPDX-License-Identifier: Apache-2.0
"""Refs: metadata-only pointers to one generation of a sample."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from ._dtypes import BY_CODE
from ._errors import Invalid, failure, text
from ._feature import ffi, lib


class TensorSpec(NamedTuple):
    """What a ref says of one tensor."""

    name: str
    dtype: str  # as safetensors calls it: "BF16"
    shape: tuple[int, ...]  # outermost first; counts elements, also where they have no whole byte
    bytes: int
    checksum: int | None  # XXH3-64; None where the store makes none


class Ref:
    """A pointer to one generation of a sample, a few hundred bytes, without the tensors' bytes.

    A put gives one. It may be pickled, sent as :meth:`to_bytes`, or written as its URI; whoever has
    it can get the sample, on every node. Refs are immutable and compare equal when they mean the
    same generation.
    """

    __slots__ = ("_holder", "_tensors", "__weakref__")

    def __init__(self, raw: Any) -> None:
        """Takes a struct feature_ref * that frees itself. Users get refs from puts instead."""
        if not isinstance(raw, ffi.CData):
            raise Invalid("a Ref is made by put(), Ref.from_bytes() or Ref.from_uri()")
        self._holder: Any = (raw,)
        self._tensors: tuple[TensorSpec, ...] | None = None

    @classmethod
    def _later(cls) -> "tuple[Ref, Any]":
        """A ref, and the struct feature_ref ** that C will set. Made before a put, whose copy drives
        Python's code out of the processor's caches: what is left to do after it is then little."""
        out = ffi.new("struct feature_ref **")
        ref = cls.__new__(cls)
        ref._holder = ffi.gc(out, lib.binding_ref_free)
        ref._tensors = None
        return ref, out

    @property
    def _raw(self) -> Any:
        """The struct feature_ref *."""
        return self._holder[0]

    @classmethod
    def _own(cls, pointer: Any) -> "Ref":
        """Takes a struct feature_ref * that is to be freed with the Ref."""
        return cls(ffi.gc(pointer, lib.feature_ref_free))

    @property
    def store(self) -> str:
        """The name of the store."""
        return text(lib.feature_ref_store(self._raw))

    @property
    def sample_id(self) -> str:
        """The sample's id, unique in its store."""
        return text(lib.feature_ref_sample_id(self._raw))

    @property
    def generation(self) -> int:
        """Unique in the cluster for ever; every put of a sample has a new one. 0: any."""
        return int(lib.feature_ref_generation(self._raw))

    @property
    def home(self) -> str:
        """The node in whose memory the bytes are."""
        return text(lib.feature_ref_home(self._raw))

    @property
    def incarnation(self) -> int:
        """The life of the home in which the sample was put."""
        return int(lib.feature_ref_incarnation(self._raw))

    @property
    def total_bytes(self) -> int:
        """Of all tensors together; 0 if not known, as for a ref from a URI."""
        return int(lib.feature_ref_bytes(self._raw))

    @property
    def metadata(self) -> bytes:
        """What the producer put beside the tensors; b"" if not known."""
        size = ffi.new("size_t *")
        pointer = lib.feature_ref_metadata(self._raw, size)
        return bytes(ffi.buffer(ffi.cast("char *", pointer), size[0])) if size[0] else b""

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The specs of the tensors, in the order of the put. Empty for a ref from a URI."""
        if self._tensors is None:
            checksums = lib.feature_ref_has_checksums(self._raw)
            specs = []
            for index in range(lib.feature_ref_tensor_count(self._raw)):
                tensor = lib.feature_ref_tensor(self._raw, index)
                dtype = BY_CODE.get(int(tensor.dtype))
                specs.append(
                    TensorSpec(
                        text(tensor.name),
                        dtype.name if dtype else f"dtype {int(tensor.dtype)}",
                        tuple(tensor.shape[0 : tensor.rank]),
                        int(tensor.bytes),
                        int(tensor.checksum) if checksums else None,
                    )
                )
            self._tensors = tuple(specs)
        return self._tensors

    @property
    def uri(self) -> str:
        """feature://STORE/SAMPLE?generation=G&home=NODE&incarnation=I. Carries no specs."""
        return self._encode(lib.feature_ref_to_uri)[:-1].decode()

    def to_bytes(self) -> bytes:
        """The serialised form, with specs and metadata. :meth:`from_bytes` reads it again."""
        return self._encode(lib.feature_ref_encode)

    def _encode(self, encode: Any) -> bytes:
        size = ffi.new("size_t *")
        encode(self._raw, ffi.NULL, 0, size)
        buffer = ffi.new("char[]", size[0])
        status = encode(self._raw, buffer, size[0], size)
        if status:
            raise failure(status)
        return bytes(ffi.buffer(buffer, size[0]))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Ref":
        """A ref from :meth:`to_bytes`. Raises Invalid for anything else; nothing is trusted."""
        out = ffi.new("struct feature_ref **")
        try:
            buffer = ffi.from_buffer(data)
        except TypeError:
            raise Invalid(f"Ref.from_bytes takes bytes, not {type(data).__name__}") from None
        status = lib.feature_ref_decode(buffer, len(data), out)
        if status:
            raise failure(status)
        return cls._own(out[0])

    @classmethod
    def from_uri(cls, uri: str) -> "Ref":
        """A ref from its URI. It has no specs, but a get of it has. Raises Invalid."""
        out = ffi.new("struct feature_ref **")
        status = lib.feature_ref_from_uri(c_string(uri, "a URI"), out)
        if status:
            raise failure(status, uri)
        return cls._own(out[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ref.from_bytes, (self.to_bytes(),))

    def _identity(self) -> tuple[str, str, int, str, int]:
        return (self.store, self.sample_id, self.generation, self.home, self.incarnation)

    def __eq__(self, other: object) -> bool:
        return self._identity() == other._identity() if isinstance(other, Ref) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        return f"Ref({self.uri!r})"

    def __str__(self) -> str:
        return self.uri


Key = Ref | str
"""What a call acts on: a Ref (that generation), or a sample id or a ref's URI as str."""


def c_string(value: str, what: str) -> bytes:
    """As bytes for C. A zero inside would cut it short there."""
    try:
        encoded = value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise Invalid(f"{value!r} is no {what}: give a str of valid Unicode") from None
    if b"\0" in encoded:
        raise Invalid(f"{what} {value!r} contains a zero byte")
    return encoded


def c_key(key: Key) -> tuple[Any, Any]:
    """A key as C takes it: a struct feature_ref * and a sample id, of which one is NULL."""
    if isinstance(key, Ref):
        return key._raw, ffi.NULL
    if isinstance(key, str):
        if key.startswith("feature://"):
            return Ref.from_uri(key)._raw, ffi.NULL
        return ffi.NULL, c_string(key, "sample id")
    raise Invalid(f"{key!r} is no key: give a Ref, a sample id, or the URI of a ref")


def make_keys(keys: Sequence[Key]) -> tuple[Any, Any]:
    """An array of struct feature_key, and what keeps its strings and refs alive."""
    array = ffi.new("struct feature_key[]", len(keys))
    keep: list[Any] = []
    for index, key in enumerate(keys):
        ref, sample_id = c_key(key)
        if sample_id:
            sample_id = ffi.new("char[]", sample_id)
        keep.append((ref, sample_id))
        array[index].size = ffi.sizeof("struct feature_key")
        array[index].ref = ref
        array[index].sample_id = sample_id
    return array, keep
