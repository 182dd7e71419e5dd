# SPDX-License-Identifier: Apache-2.0
"""From the names of training frameworks, which are free text, to those that a broker takes."""

from __future__ import annotations

import hashlib
import re
from typing import Optional

STORE_NAME_MAX = 64
SAMPLE_ID_MAX_BYTES = 128
SECRET_MIN_BYTES, SECRET_MAX_BYTES = 16, 4096


def store_name_of(store_id: str) -> str:
    """The name of the broker's store: the store_id itself where a broker takes it.

    Brokers take 1 to 64 of A-Z a-z 0-9 . _ - for a name. In other ids what does not fit becomes
    "-", and part of a hash is added, so that two ids never share a store: "runs/a b" becomes
    "runs-a-b-" and 16 hexadecimal digits.
    """
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", store_id):
        return store_id
    digest = hashlib.sha256(store_id.encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9._-]", "-", store_id)[: STORE_NAME_MAX - 17]
    return f"{readable}-{digest}"


def broker_id_of(sample_id: str) -> str:
    """The sample's id at the broker: the id itself up to 128 bytes, else its start and a hash."""
    if len(sample_id.encode()) <= SAMPLE_ID_MAX_BYTES:
        return sample_id
    digest = hashlib.sha256(sample_id.encode()).hexdigest()
    start = sample_id.encode()[: SAMPLE_ID_MAX_BYTES - len(digest) - 1]
    return f"{start.decode(errors='ignore')}~{digest}"


def secret_of(token: Optional[str]) -> Optional[bytes]:
    """The store's secret for a token: its bytes; for one that is shorter than the 16 bytes which a
    broker asks for, or longer than 4096, the hexadecimal SHA-256 of them. None: no secret."""
    if token is None:
        return None
    secret = token.encode()
    if SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        return secret
    return hashlib.sha256(secret).hexdigest().encode()
