# SPDX-License-Identifier: Apache-2.0
"""Dtypes: the names of safetensors, and what numpy, torch and DLPack call the same thing.

A dtype is written as a string, for example ``"BF16"``. F4 and the F6 kinds have less than a byte
per element: their tensors are packed, and their shape counts elements. torch's float4_e2m1fn_x2
holds two elements of the last dimension in each of its own.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NamedTuple

from ._errors import Invalid, Unsupported


class Dtype(NamedTuple):
    """One line of the table below."""

    code: int  # enum feature_dtype
    name: str
    bits: int  # of one element
    numpy: str  # "" = numpy has none; "ml:..." = the package ml_dtypes has it
    torch: str  # "" = torch has none
    dlpack: tuple[int, int, int]  # type code, bits, lanes
    format: str  # of the buffer protocol; "" = none


DTYPES = (
    Dtype(1, "BOOL", 8, "bool", "bool", (6, 8, 1), "?"),
    Dtype(2, "U8", 8, "uint8", "uint8", (1, 8, 1), "B"),
    Dtype(3, "I8", 8, "int8", "int8", (0, 8, 1), "b"),
    Dtype(4, "F8_E4M3", 8, "ml:float8_e4m3fn", "float8_e4m3fn", (10, 8, 1), ""),
    Dtype(5, "F8_E5M2", 8, "ml:float8_e5m2", "float8_e5m2", (12, 8, 1), ""),
    Dtype(6, "U16", 16, "uint16", "uint16", (1, 16, 1), "H"),
    Dtype(7, "I16", 16, "int16", "int16", (0, 16, 1), "h"),
    Dtype(8, "F16", 16, "float16", "float16", (2, 16, 1), "e"),
    Dtype(9, "BF16", 16, "ml:bfloat16", "bfloat16", (4, 16, 1), ""),
    Dtype(10, "U32", 32, "uint32", "uint32", (1, 32, 1), "I"),
    Dtype(11, "I32", 32, "int32", "int32", (0, 32, 1), "i"),
    Dtype(12, "F32", 32, "float32", "float32", (2, 32, 1), "f"),
    Dtype(13, "U64", 64, "uint64", "uint64", (1, 64, 1), "Q"),
    Dtype(14, "I64", 64, "int64", "int64", (0, 64, 1), "q"),
    Dtype(15, "F64", 64, "float64", "float64", (2, 64, 1), "d"),
    Dtype(16, "F8_E8M0", 8, "ml:float8_e8m0fnu", "float8_e8m0fnu", (14, 8, 1), ""),
    Dtype(17, "F8_E4M3FNUZ", 8, "ml:float8_e4m3fnuz", "float8_e4m3fnuz", (11, 8, 1), ""),
    Dtype(18, "F8_E5M2FNUZ", 8, "ml:float8_e5m2fnuz", "float8_e5m2fnuz", (13, 8, 1), ""),
    Dtype(19, "F4", 4, "", "float4_e2m1fn_x2", (17, 4, 1), ""),
    Dtype(20, "F6_E2M3", 6, "", "", (15, 6, 1), ""),
    Dtype(21, "F6_E3M2", 6, "", "", (16, 6, 1), ""),
    Dtype(22, "C64", 64, "complex64", "complex64", (5, 64, 1), ""),
    Dtype(23, "C32", 32, "", "complex32", (5, 32, 1), ""),
    Dtype(24, "C128", 128, "complex128", "complex128", (5, 128, 1), ""),
)
BY_CODE: dict[int, Dtype] = {dtype.code: dtype for dtype in DTYPES}
BY_NAME: dict[str, Dtype] = {dtype.name: dtype for dtype in DTYPES}
BY_DLPACK: dict[tuple[int, int, int], Dtype] = {dtype.dlpack: dtype for dtype in DTYPES}
F4 = BY_NAME["F4"]

# "l" and "L" are 8 bytes on the machines that featured runs on; "c" and no format are bytes.
BY_FORMAT: dict[str, Dtype] = {
    **{dtype.format: dtype for dtype in DTYPES if dtype.format},
    "l": BY_NAME["I64"],
    "L": BY_NAME["U64"],
    "c": BY_NAME["U8"],
}

# The words of numpy and torch, for `reserve(..., {"hidden": ("float32", shape)})`.
_WORDS: dict[str, Dtype] = {
    **{dtype.torch: dtype for dtype in DTYPES if dtype.torch},
    **{dtype.numpy.removeprefix("ml:"): dtype for dtype in DTYPES if dtype.numpy},
    **BY_NAME,
}


def by_code(code: int, tensor: str) -> Dtype:
    """The dtype that a sample says its tensor has."""
    dtype = BY_CODE.get(code)
    if dtype is None:
        raise Unsupported(
            f"tensor {tensor} has dtype number {code}, which this version of feature_broker does "
            "not know: install a newer one"
        )
    return dtype


def parse(dtype: Any) -> Dtype:
    """What somebody means by a name, a numpy dtype or a torch dtype. Raises Invalid."""
    if isinstance(dtype, Dtype):
        return dtype
    word = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    found = _WORDS.get(word)
    if found is None and isinstance(dtype, type):  # numpy.float32, float
        found = _WORDS.get(getattr(dtype, "__name__", ""))
    if found is None:
        raise Invalid(f"{dtype!r} is no dtype: give one of {', '.join(BY_NAME)}")
    return found


# ---- numpy ----


class NumpyTypes:
    """numpy's dtypes for ours, with those of ml_dtypes where that package is installed."""

    def __init__(self, numpy: ModuleType) -> None:
        self.numpy = numpy
        self._to: dict[int, Any] = {}
        self.codes: dict[Any, Dtype] = {}
        for dtype in DTYPES:
            if dtype.numpy and not dtype.numpy.startswith("ml:"):
                self._note(dtype, numpy.dtype(dtype.numpy))
        self._has_ml = False
        self._find_ml(force="ml_dtypes" in sys.modules)

    def _note(self, dtype: Dtype, theirs: Any) -> None:
        self._to[dtype.code] = theirs
        self.codes[theirs] = dtype

    def _find_ml(self, force: bool) -> None:
        """Imports ml_dtypes when one of its types is wanted for the first time."""
        if self._has_ml or not force:
            return
        try:
            import ml_dtypes
        except ImportError:
            return
        self._has_ml = True
        for dtype in DTYPES:
            theirs = getattr(ml_dtypes, dtype.numpy.removeprefix("ml:"), None)
            if dtype.numpy.startswith("ml:") and theirs is not None:
                self._note(dtype, self.numpy.dtype(theirs))

    def to(self, code: int, tensor: str) -> Any:
        """numpy's dtype, for a tensor of that name."""
        theirs = self._to.get(code)
        if theirs is None:
            self._find_ml(force=True)
            theirs = self._to.get(code)
        if theirs is None:
            dtype = by_code(code, tensor)
            remedy = "install the package ml_dtypes, or " if dtype.numpy else ""
            others = 'framework="torch" or framework="raw"' if dtype.torch else 'framework="raw"'
            raise Unsupported(
                f"tensor {tensor} is {dtype.name}, which numpy does not have: {remedy}ask for "
                f"{others}"
            )
        return theirs

    def of(self, theirs: Any) -> Dtype | None:
        """Ours for numpy's; None where there is none."""
        found = self.codes.get(theirs)
        if found is None and theirs.kind == "V":  # as ml_dtypes' types are
            self._find_ml(force="ml_dtypes" in sys.modules)
            found = self.codes.get(theirs)
        return found


# ---- torch ----


class TorchTypes:
    """torch's dtypes for ours. Old versions of torch lack some."""

    def __init__(self, torch: ModuleType) -> None:
        self.torch = torch
        self._to: dict[int, Any] = {}
        self.codes: dict[Any, Dtype] = {}
        for dtype in DTYPES:
            theirs = getattr(torch, dtype.torch, None) if dtype.torch else None
            if theirs is not None:
                self._to[dtype.code] = theirs
                self.codes[theirs] = dtype

    def to(self, code: int, tensor: str) -> Any:
        """torch's dtype, for a tensor of that name."""
        theirs = self._to.get(code)
        if theirs is None:
            dtype = by_code(code, tensor)
            others = 'framework="numpy" or framework="raw"' if dtype.numpy else 'framework="raw"'
            raise Unsupported(
                f"tensor {tensor} is {dtype.name}, which torch {self.torch.__version__} does not "
                f"have: ask for {others}"
            )
        return theirs


_numpy_types: NumpyTypes | None = None
_torch_types: TorchTypes | None = None


def numpy_types() -> NumpyTypes | None:
    """The table for numpy; None where numpy is not installed."""
    global _numpy_types
    if _numpy_types is None:
        try:
            import numpy
        except ImportError:
            return None
        _numpy_types = NumpyTypes(numpy)
    return _numpy_types


def torch_types() -> TorchTypes:
    """The table for torch, which is imported now if it was not yet. Raises Unsupported."""
    global _torch_types
    if _torch_types is None:
        try:
            import torch
        except ImportError as error:
            raise Unsupported(
                f'torch cannot be imported ({error}): ask for framework="numpy" or framework="raw"'
            ) from error
        _torch_types = TorchTypes(torch)
    return _torch_types


def numpy_types_or_fail() -> NumpyTypes:
    """The table for numpy. Raises Unsupported where numpy is not installed."""
    types = numpy_types()
    if types is None:
        raise Unsupported('numpy is not installed: ask for framework="torch" or framework="raw"')
    return types
