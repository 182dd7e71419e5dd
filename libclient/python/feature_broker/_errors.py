# SPDX-License-Identifier: Apache-2.0
"""Exceptions. Each is also the built-in exception that Python programmers would expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._feature import ffi, lib
from ._interrupts import raise_interrupt

if TYPE_CHECKING:
    from ._ref import Ref


class FeatureError(Exception):
    """Something that the broker, libfeature or this package refused or could not do.

    Attributes:
        status: the word of the status, for example ``"NOT_FOUND"``.
        sentence: what happened to which object, and which limit was hit. Also ``str(error)``.
        ref: what the call was about: a :class:`Ref`, a sample id, or None.
    """

    status = "INTERNAL"

    def __init__(self, sentence: str, ref: "Ref | str | None" = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.ref = ref

    def __str__(self) -> str:
        return self.sentence

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.sentence, self.ref))


class Invalid(FeatureError, ValueError):
    """The request is wrong: a bad argument, a closed handle, a handle of another process."""

    status = "INVALID"


class Denied(FeatureError, PermissionError):
    """No right to do this: a wrong secret, a read-only store, not an administrator."""

    status = "DENIED"


class NotFound(FeatureError, KeyError):
    """The sample is retired, superseded, gone or never seen. `featurectl explain` tells which."""

    status = "NOT_FOUND"


class Lost(NotFound):
    """The node that held the bytes is gone, and the bytes with it."""

    status = "LOST"


class Exists(FeatureError, FileExistsError):
    """There is one already; a store: with other settings."""

    status = "EXISTS"


class Full(FeatureError, MemoryError):
    """A quota or another limit was hit. Freeing samples or waiting longer helps."""

    status = "FULL"


class Timeout(FeatureError, TimeoutError):
    """The deadline passed without progress."""

    status = "TIMEOUT"


class Unavailable(FeatureError, ConnectionError):
    """The broker, another node or the directory is out of reach. Trying again may help."""

    status = "UNAVAILABLE"


class Corrupt(FeatureError, OSError):
    """A checksum did not match, also after a second read."""

    status = "CORRUPT"


class Unsupported(FeatureError, NotImplementedError):
    """Not available here."""

    status = "UNSUPPORTED"


class Internal(FeatureError, RuntimeError):
    """A fault of featured itself."""

    status = "INTERNAL"


class BatchError(FeatureError):
    """Some items of a batch failed; the others were carried out.

    Attributes:
        errors: for each failed item its place in the batch and what happened to it.
        results: one entry per item: what the call would have given for it (for `put_many` its
            :class:`Ref`), None where it failed.
        status: that of the first failure.
    """

    def __init__(self, sentence: str, errors: dict[int, FeatureError], results: list[Any]) -> None:
        super().__init__(sentence)
        self.errors = errors
        self.results = results
        first = next(iter(errors.values()), None)
        if first is not None:
            self.status = first.status
            self.ref = first.ref

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.sentence, self.errors, self.results))


_CLASSES: dict[int, type[FeatureError]] = {
    int(getattr(lib, "FEATURE_E_" + kind.status)): kind
    for kind in (
        Invalid, Denied, NotFound, Lost, Exists, Full, Timeout, Unavailable, Corrupt, Unsupported,
        Internal,
    )
}  # fmt: skip


def text(pointer: Any) -> str:
    """A C string as str. What is not UTF-8 is shown, not refused."""
    return str(ffi.string(pointer).decode("utf-8", "backslashreplace"))


def failure(
    status: int, ref: "Ref | str | None" = None, sentence: str | None = None
) -> FeatureError:
    """The exception for a status of libfeature, to be raised. Raises KeyboardInterrupt, or what else
    the handler of a signal has raised, when that is why the call has failed.

    sentence: None stands for what libfeature says of this thread's last failed call.
    """
    raise_interrupt()
    if sentence is None:
        sentence = text(lib.feature_last_error())
    kind = _CLASSES.get(status)
    if kind is None:
        error: FeatureError = Internal(f"status {status}: {sentence}", ref)
    else:
        error = kind(sentence, ref)
    return error


def check_batch(
    what: str, statuses: list[int], keys: list[Any], results: list[Any], first_sentence: str
) -> None:
    """Raises the BatchError of a batch in which something failed.

    libfeature tells a sentence for the first failure only; the others get their status in words.
    """
    errors: dict[int, FeatureError] = {}
    for index, (status, key) in enumerate(zip(statuses, keys)):
        if status == 0:
            continue
        word = text(lib.feature_strerror(status))
        sentence = f"{what} {key}: {word}" if errors else first_sentence
        errors[index] = failure(status, key, sentence)
    if not errors:
        return
    named = "; ".join(f"[{index}] {error.status} {error.ref}" for index, error in errors.items())
    raise BatchError(
        f"{what}: {len(errors)} of {len(statuses)} failed ({named}). The first: {first_sentence}",
        errors,
        results,
    )
