# SPDX-License-Identifier: Apache-2.0
"""From Mooncake's keys to featured's sample ids.

A key has up to 1024 bytes, an id at most 128 and no control characters. A key that is a good id is
its own id, so that `featurectl samples` shows it as the program knows it. Every other key is
shortened: its first 80 bytes, a tilde, and the BLAKE2b-128 of the whole key in hex.

    run0/s0/g1/hidden_state                     itself
    run0/a-very-long-name.../g1/hidden_state    run0/a-very-long-na~6f1d...(32 digits)

The object then carries the full key in its metadata. Whoever finds an object under a shortened id
compares that with the key that was meant, so two keys of one id never become each other: the second
is refused. A key that looks like a shortened id is shortened too; so an id never stands for a key
of each kind.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

KEY_BYTES_MAX = 1024
ID_BYTES_MAX = 128
_SHOWN_BYTES = 80
_SHORTENED = re.compile(rb"~[0-9a-f]{32}\Z")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Key(NamedTuple):
    """What a key is in featured."""

    sample_id: bytes  # ASCII or UTF-8, for C
    metadata: bytes  # the full key when it was shortened, else b""


def make(key: str) -> Key | None:
    """None: it is no key (empty, no str, or longer than 1024 bytes)."""
    if type(key) is not str:
        return None
    try:
        whole = key.encode()
        is_text = True
    except UnicodeEncodeError:  # parts of file names that are not UTF-8
        whole = key.encode("utf-8", "surrogatepass")
        is_text = False
    size = len(whole)
    if 0 < size <= ID_BYTES_MAX and is_text:
        if not _CONTROL.search(whole) and not _SHORTENED.search(whole):
            return Key(whole, b"")
    if not 0 < size <= KEY_BYTES_MAX:
        return None
    shown = _CONTROL.sub(b"?", whole[:_SHOWN_BYTES]).decode("utf-8", "ignore").encode()
    return Key(shown + b"~" + fingerprint(whole), whole)


def fingerprint(whole: bytes) -> bytes:
    """32 hex digits."""
    return hashlib.blake2b(whole, digest_size=16).hexdigest().encode()


def full(sample_id: str, metadata: bytes) -> str:
    """The key of an object that was found, from its id and metadata."""
    return metadata.decode("utf-8", "surrogatepass") if metadata else sample_id
